"""Find and end the processes of a run by a mark in their environment.

A process group or session is left by one call of ``setsid``; the environment that a process was started with is not. A
process that starts others with an emptied environment escapes this: host runs are for development, not a sandbox.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

RUN_TOKEN = "MLSEAL_KFP_RUN"  # noqa: S105 - the name of a variable
TASK_TOKEN = "MLSEAL_KFP_TASK"  # noqa: S105 - the name of a variable
_ROUNDS = 20


def marked(name: str, value: str) -> list[int]:
    """Ids of this user's processes that were started with ``name=value``; without /proc an empty list."""
    needle = f"{name}={value}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid() and not _is_dead(pid)]


def kill_marked(name: str, value: str) -> int:
    """Kill them, repeatedly, since one may be forking meanwhile. Returns how many were killed."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        alive = marked(name, value)
        if not alive:
            break
        for pid in alive:
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return len(killed)


def _is_dead(pid: int) -> bool:
    """Whether the process has ended and only waits to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state in "ZX"
