"""Private directories for models that were copied to be measured or loaded; gone when the process is.

Three things remove one: leaving `passing`, the end of the process (`lasting`), and, for what a killed process left
behind, the next process of this user that needs one. The last goes by age and by whether the maker still runs; so the
name says who made it: PID namespace, PID and start time, which stay when a process becomes another program (as
``mlflow models serve`` does).
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "mlseal-mlflow-"
SPARED_SECONDS = 3600
"""Younger than this, nothing is swept."""

FOREIGN_SECONDS = 7 * 24 * 3600
"""What another PID namespace made (a container that shares this directory) is swept after a week: nobody can ask it."""

_NAME = re.compile(re.escape(PREFIX) + r"([0-9]+)-([0-9]+)-([0-9]+)-[A-Za-z0-9_]+")
_made: dict[Path, int] = {}
_sweeping = threading.Lock()
_swept: set[str] = set()


def new(parent: str | os.PathLike[str] | None = None) -> Path:
    """A new directory (0700) in `parent`, or among the temporary files; the caller removes it."""
    _sweep_once(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_namespace()}-{os.getpid()}-{_started(os.getpid())}-", dir=parent))


def lasting() -> Path:
    """A new directory that lasts as long as this process: a model may read its files at any time."""
    made = new()
    _made[made] = os.getpid()  # a forked child ends with the same list, and must not remove what is its parent's
    return made


@contextmanager
def passing() -> Iterator[Path]:
    """A new directory for the length of a ``with``."""
    made = new()
    try:
        yield made
    finally:
        remove(made)


def remove(directory: Path) -> None:
    """Remove `directory` with all that it holds, also what was copied read-only."""
    with suppress(OSError):
        for place, inside, _ in os.walk(directory):
            for path in (Path(place, name) for name in inside):
                if not path.is_symlink():
                    path.chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)
    _made.pop(directory, None)


def sweep(directory: str) -> int:
    """Remove what ended processes of this user left in `directory`; says how many it were."""
    removed = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            named = _NAME.fullmatch(entry.name)
            if named is not None and _left_behind(entry, *named.groups()):
                remove(Path(entry.path))
                removed += 1
    return removed


def _left_behind(entry: os.DirEntry[str], namespace: str, pid: str, started: str) -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return False
    age = time.time() - found.st_mtime
    if int(namespace) != _namespace():
        return age > FOREIGN_SECONDS
    return age > SPARED_SECONDS and not _runs(int(pid), int(started))


def _sweep_once(directory: str) -> None:
    with _sweeping:
        if directory in _swept:
            return
        _swept.add(directory)
    try:
        sweep(directory)
    except OSError:
        return  # housekeeping is no reason to refuse


def _runs(pid: int, started: int) -> bool:
    if started:
        return _started(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 where there is no ``/proc`` or no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


@atexit.register
def _remove_mine() -> None:
    for directory, maker in list(_made.items()):
        if maker == os.getpid():
            remove(directory)
