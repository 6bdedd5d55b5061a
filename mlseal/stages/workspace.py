"""A private directory for each run, and what is done about those that a killed run left behind.

    TMPDIR/mlseal-stage-XXXX/   0700
        lock       held by the run as long as it lives; the system lets go when it dies, however it dies
        outputs    where the unpublished outputs lie, each path ended by NUL
        work/      0700; the stage's own (`Context.workspace`)

`sweep` takes a directory whose lock nobody holds for the remains of a killed run: it ends the children that live on in
it, removes the outputs that were never published, and the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PREFIX = "mlseal-stage-"
STAGED = re.compile(r"\..{1,40}\.[0-9a-f]{12}", re.DOTALL)
"""What names of unpublished outputs look like; nothing else is ever removed by a sweep."""
_HOMES = (b"HOME=", b"TMPDIR=")
_ROUNDS = 5
_LOOKS = 20


@contextlib.contextmanager
def workspace(outputs: Sequence[Path]) -> Iterator[Path]:
    """The workspace of one run, removed with whatever runs in it at the end of the block.

    `outputs` are the hidden paths of what is not yet published, so that a later run can remove them.
    """
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _locked(root)
    try:
        (root / "outputs").write_bytes(b"".join(os.fsencode(path) + b"\0" for path in outputs))
        work = root / "work"
        work.mkdir(mode=0o700)
        yield work
    except BaseException:
        end_processes(root)
        raise
    finally:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


def sweep() -> int:
    """Clean up after runs of this user that were killed; returns how many. Never raises, never touches a living run."""
    found = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    found += _abandoned(Path(entry.path))
    return found


def _locked(root: Path) -> int:
    """The held lock of a new directory. It gets its name when it is held, so no sweep sees it free."""
    fresh = root / ".lock"
    handle = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    fresh.rename(root / "lock")
    return handle


def _abandoned(root: Path) -> bool:
    """Remove `root` if it is ours and its run is dead."""
    what = root.lstat()
    if not stat.S_ISDIR(what.st_mode) or what.st_uid != os.getuid() or what.st_mode & 0o077:
        return False
    handle = os.open(root / "lock", os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        end_processes(root)
        with contextlib.suppress(FileNotFoundError):
            for line in (root / "outputs").read_bytes().split(b"\0"):
                path = Path(os.fsdecode(line))
                if STAGED.fullmatch(path.name):
                    remove(path)
        shutil.rmtree(root, ignore_errors=True)
    finally:
        os.close(handle)
    return True


def remove(path: Path) -> None:
    """Remove a file or a directory as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def end_processes(root: Path) -> None:
    """Kill this user's processes whose HOME or TMPDIR lies in `root`, as `mlseal.stages.process` sets them."""
    for _ in range(_ROUNDS):
        living = list(_inside(os.fsencode(root)))
        if not living:
            return
        for number in living:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)


def _inside(root: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            words = _environment(entry)
            if any(word == home + root or word.startswith(home + root + b"/") for home in _HOMES for word in words):
                yield int(entry.name)


def _environment(entry: Path) -> list[bytes]:
    """Of one process. Empty for a moment while a program is put in place of another, so it is read again then."""
    for _ in range(_LOOKS):
        if found := (entry / "environ").read_bytes():
            return found.split(b"\0")
        (entry / "exe").readlink()  # OSError for what has no program: a thread of the kernel, or a process that ended
        time.sleep(0.001)
    return []
