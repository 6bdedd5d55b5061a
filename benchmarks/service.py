"""A trust service of the benchmark's own, in a temporary home."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def authority(name: str = "bench.mlseal.local") -> Iterator[object]:
    """Start ``mlseal serve`` over a fresh authority and give its trust root; everything is removed afterwards."""
    base = Path(tempfile.mkdtemp(prefix="mlsb-"))
    before = dict(os.environ)
    for key in [k for k in os.environ if k.startswith(("MLSEAL_", "XDG_"))]:
        del os.environ[key]
    os.environ["HOME"] = str(base)
    process = None
    try:
        init = [
            sys.executable,
            "-m",
            "mlseal",
            "init",
            str(base / "project"),
            "--name",
            name,
            "--state",
            str(base / "s"),
        ]
        subprocess.run(init, check=True, capture_output=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "mlseal", "serve", "--state", str(base / "s")], stdout=subprocess.DEVNULL
        )
        while not (base / "s" / "sock").exists():
            if process.poll() is not None:
                raise SystemExit("mlseal serve ended")
            time.sleep(0.02)
        from mlseal.evidence import trust

        yield trust.load(base / "project")
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(base, ignore_errors=True)
