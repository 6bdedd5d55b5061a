"""A foreign step for these tests: does what its first argument says with its ExecutorInput."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """`deploy` is what a gate protects; the others are attackers and accidents."""
    what, task = sys.argv[1], json.loads(sys.argv[2])
    parameters = task["inputs"].get("parameterValues", {})
    inputs = {port: Path(found["artifacts"][0]["uri"]) for port, found in task["inputs"].get("artifacts", {}).items()}
    if what == "deploy":
        Path(parameters["marker"]).write_text(parameters["passed_sha256"])
    elif what == "echo":
        _put(task, "said", parameters["text"])
    elif what == "rewrite":
        _rewrite(inputs["target"])
    elif what == "silent":
        Path(task["outputs"]["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        Path(task["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": task["outputs"]["artifacts"]}))
    elif what == "hang":
        child = "import os, sys, time; os.setsid(); os.fork() and os._exit(0); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(300)"
        subprocess.Popen([sys.executable, "-c", child, parameters["text"]], env={})
        time.sleep(300)
    return 7 if what == "fail" else 0


def _rewrite(target: Path) -> None:
    file = target if target.is_file() else next(p for p in sorted(target.rglob("*")) if p.is_file())
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(bytes(data))


def _put(task: dict[str, Any], name: str, text: str) -> None:
    path = Path(task["outputs"]["parameters"][name]["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
