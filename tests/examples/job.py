"""The main job in a process of its own, and what it left."""

import subprocess
import sys
from pathlib import Path

from mlseal.evidence.store import Store

ROOT = Path(__file__).resolve().parents[2]


def run(work: Path, *arguments: str, env: dict[str, str]):
    command = [sys.executable, str(ROOT / "examples/demo/main.py"), "--work", str(work), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=1800, check=False, env={**env, "COLUMNS": "160"}, cwd=ROOT
    )


def statements(work: Path, kind: str) -> list[tuple[frozenset[str], dict]]:
    """The digests that each is about, and its claim."""
    store = Store(work / "project" / ".mlseal" / "evidence")
    said = [store.get(i).statement for i in store.ids()]
    return [(frozenset(x.sha256 for x in s.subjects), dict(s.predicate)) for s in said if kind in s.predicate_type]


def claims(work: Path, kind: str) -> list[dict]:
    return [claim for _, claim in statements(work, kind)]
