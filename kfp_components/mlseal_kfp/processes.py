"""End everything that a task has started, also what left its process group or was abandoned by its parent.

The runner's process becomes the "subreaper" of what it starts (prctl(2), Linux): an orphan is handed to it and not to
init, so that nothing gets out of sight. On other systems only the process group of a task is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100
_SERVICE = (b"-m", b"mlseal", b"serve")
"""The trust service that a step may have started on demand; it serves others and ends by itself when idle."""


def adopt_orphans() -> bool:
    """Become the subreaper of everything started from here; whether the system can do that."""
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except (OSError, AttributeError):
        return False


def kill_tree(pid: int) -> None:
    """Kill `pid` and everything below it, stopping it first so that it starts nothing meanwhile."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGSTOP)
    for _ in range(_ROUNDS):
        below = [p for p in _descendants(pid) if not _is_service(p)]
        if not below:
            break
        _kill(below)
    _kill([pid])


def kill_orphans(keep: Collection[int]) -> None:
    """Kill every child of this process that is not in `keep`, with all below it, and collect it."""
    for _ in range(_ROUNDS):
        strays = [p for p in _children().get(os.getpid(), []) if p not in keep and not _is_service(p)]
        if not strays:
            return
        for stray in strays:
            kill_tree(stray)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stray, os.WNOHANG)
        time.sleep(0.005)


def _kill(pids: Collection[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children = _children()
    found, waiting = [], [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def _children() -> dict[int, list[int]]:
    """Parent → living children, for the whole machine; empty without /proc."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z" or int(parent) == os.getpid():
                found.setdefault(int(parent), []).append(int(entry.name))
    return found


def _is_service(pid: int) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(tuple(argv[i : i + 3]) == _SERVICE for i in range(len(argv)))
