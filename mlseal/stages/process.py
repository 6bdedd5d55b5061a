"""Foreign programs, run as children: a training script, a scorer that unpickles a model.

The child gets a new session, no standard input, a small environment without any ``MLSEAL_*`` variable, a home of its
own, and Python's isolated mode (``-I``): no current directory, no ``PYTHONPATH``, no user site, so that the program
that was hashed is the program that runs, beside what is installed. It still has this user's rights: the limits are
those of a process, not of a container, and evidence says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlseal.errors import Misuse, Unchecked

PASSED_ON = frozenset(
    {
        "PATH",
        "LANG",
        "LC_ALL",
        "TZ",
        "LD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
    }
)
"""Environment variables that a child may see; credentials and proxies are not among them."""
_MAX_LINE = 2000
_TAIL = 20


@dataclass(frozen=True)
class Program:
    """A Python program and how long it may run.

    Attributes:
        path: a file, or a directory with ``__main__.py``.
        arguments: passed as they are; no shell is involved.
        home: an empty directory that becomes the child's HOME, working directory and temporary directory.
        timeout: seconds until the whole session is killed.
        remedy: what to do when it fails; nothing was published then.
    """

    path: Path
    arguments: Sequence[str]
    home: Path
    timeout: float
    remedy: str = "mend the program"

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise Misuse("a timeout must be a positive number of seconds", got=self.timeout)


def run(program: Program, log: Callable[[str], None]) -> None:
    """Run `program` to its end, handing each line of its output to `log`.

    Raises `Unchecked` when it fails or is still running after its timeout, with its last line. No process of its
    session outlives the call; one that made a session of its own may.
    """
    program.home.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-I", "-B", "-u", str(program.path), *program.arguments]
    child = subprocess.Popen(
        command,
        env=environment(program.home),
        cwd=program.home,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    tail: deque[str] = deque(maxlen=_TAIL)
    assert child.stdout is not None
    pump = threading.Thread(target=_pump, args=(child.stdout, tail, log), daemon=True)
    expired = threading.Event()
    timer = threading.Timer(program.timeout, _expire, args=(child.pid, expired))
    pump.start()
    timer.start()
    try:
        # Wait without reaping: the group id stays ours until the stragglers are gone.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    finally:
        timer.cancel()
        _kill(child.pid)
        code = child.wait()
        pump.join(timeout=5)
    last = next((line for line in reversed(tail) if line.strip()), "no output")
    if expired.is_set():
        raise Unchecked(
            f"{program.path.name} was stopped",
            got=f"no end after {program.timeout:g} s; last line: {last}",
            remedy="raise --timeout or make the program faster",
        )
    if code != 0:
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise Unchecked(
            f"{program.path.name} failed",
            got=f"{ended}; last line: {last}",
            expected="exit code 0",
            remedy=f"{program.remedy}; nothing was published",
        )


def environment(home: Path) -> dict[str, str]:
    """What a child may see of this process's environment: no credential, no proxy, and `home` as its own."""
    passed = {name: value for name, value in os.environ.items() if name in PASSED_ON}
    return {**passed, "HOME": str(home), "TMPDIR": str(home)}


def _pump(stream: IO[bytes], tail: deque[str], log: Callable[[str], None]) -> None:
    with stream:
        while raw := stream.readline(_MAX_LINE):
            # Control characters of a child must not reach the terminal.
            line = "".join(c if c.isprintable() or c == "\t" else " " for c in raw.decode("utf-8", "replace")).rstrip()
            tail.append(line)
            log(line)


def _expire(pid: int, expired: threading.Event) -> None:
    expired.set()
    _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
