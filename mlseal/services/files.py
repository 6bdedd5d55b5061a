"""Files of the service on disk: written whole, private where they hold keys, never over what is there.

Every write goes to a temporary name, is flushed to the disk and then renamed, so that a reader, a crash or a full disk
leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mlseal.errors import DuplicateName, Refusal, Unreadable

PRIVATE, PUBLIC = 0o600, 0o644


def write(path: Path, data: bytes, *, mode: int) -> None:
    """Replace `path` by `data`, whole or not at all. Raises `Unreadable`, and leaves nothing, if the disk refuses."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
        sync_directory(path.parent)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


@contextmanager
def new_directory(path: Path, *, mode: int) -> Iterator[Path]:
    """A directory that comes into being whole: fill the yielded one; when the block ends it is renamed to `path`.

    Raises `DuplicateName` if `path` exists (an empty directory does not count) and `Unreadable` when it cannot be
    written. Whatever goes wrong inside, nothing stays behind.
    """
    require_absent(path)
    prefix = f".{path.name}.new-"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, prefix)
        work = Path(tempfile.mkdtemp(dir=path.parent, prefix=prefix))
    except OSError as error:
        raise _cannot_write(path, error) from error
    mark = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(mark, fcntl.LOCK_EX)  # says that somebody is at work here
        yield work
        for folder, _, _ in os.walk(work):
            sync_directory(Path(folder))
        work.chmod(mode)
        work.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:  # somebody was faster
            require_absent(path)
        raise _cannot_write(path, error) from error
    finally:
        os.close(mark)
        shutil.rmtree(work, ignore_errors=True)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what killed processes left of a directory; one that is being filled is locked."""
    for left in parent.glob(prefix + "*"):
        try:
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(handle)


def require_absent(path: Path) -> None:
    """Raise `DuplicateName` if something other than an empty directory is at `path`."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise DuplicateName(
            f"{path} exists already",
            expected="a name that is free; keys and trust are never overwritten",
            remedy="choose another directory, or remove that one yourself if nothing it signed matters any more",
        )


def read_private(path: Path) -> bytes:
    """The bytes of a key file. Raises `Refusal` if others may read or replace it, `Unreadable` if it is missing."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            data = file.read()
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="run as the owner of the service") from error
    if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise Refusal(
            f"{path} is open to others",
            got=f"owner {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):04o}",
            expected=f"owner {os.geteuid()}, mode 0600",
            remedy="treat the key as leaked: 'mlseal trust rotate'; or restore its mode if you know better",
        )
    return data


@contextmanager
def private_lock(path: Path) -> Iterator[TextIO]:
    """The open lock file `path`, for `fcntl.flock`. Nobody else can open it, so nobody else can hold it for ever."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE), "r+") as file:
        yield file


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> Unreadable:
    return Unreadable(f"cannot write {path}", got=error.strerror, remedy="check free space and permissions")
