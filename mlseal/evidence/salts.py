"""The salts behind committed names: made once, readable by this user only, erasable.

One directory for each project or remote below this user's state directory, mode 0700, files 0600. A salt is written
whole under a name that did not exist, so of two processes that need one at the same time both use the first.
Erasing is unlinking: backups, snapshots and the disk's own spare blocks are the machine owner's business.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from mlseal.errors import Refusal, Unchecked, Unreadable
from mlseal.evidence import paths

BYTES = 32
_TEXT = re.compile(rb"[0-9a-f]{64}\n")
_SUFFIX = ".salt"
_ROOT_MARKS = (".git", ".mlseal")


def new() -> bytes:
    """A fresh salt."""
    return secrets.token_bytes(BYTES)


def encode(salt: bytes) -> bytes:
    """As a file has it: 64 hex digits and a newline."""
    return salt.hex().encode() + b"\n"


def decode(data: bytes, where: object) -> bytes:
    """The salt in the bytes of a file. Raises `Unchecked` for anything else: a short salt could be searched."""
    if not _TEXT.fullmatch(data):
        raise Unchecked(
            f"{where} holds no salt of names",
            got=f"{len(data)} bytes",
            expected="64 hex digits and a newline",
            remedy="restore it from a copy; without it names cannot be compared",
        )
    return bytes.fromhex(data.decode())


class Salts:
    """The salts that this user keeps for one project or remote.

    Args:
        scope: what they are for, such as ``project /home/a/study``; only its hash becomes a directory name.
    """

    def __init__(self, scope: str) -> None:
        digest = hashlib.sha256(scope.encode("utf-8", "surrogatepass")).hexdigest()
        self._directory = _root() / digest[:32]

    def create(self) -> bytes:
        """The newest salt kept here; a fresh one if there is none. Two callers at once get the same."""
        kept = self.kept()
        if kept:
            return kept[-1]
        self._put("first", new())
        return self.kept()[-1]

    def keep(self, salt: bytes) -> None:
        """Keep a salt that was made elsewhere, as the newest; nothing changes if it is here already."""
        if salt not in self.kept():
            self._put(secrets.token_hex(8), salt)

    def kept(self) -> list[bytes]:
        """Every salt kept here, the newest last."""
        return _read_all(self._directory)

    def forget(self) -> int:
        """Erase them; how many there were. Nobody can link these commitments to names from here again."""
        return _erase(self._directory)

    def _put(self, name: str, salt: bytes) -> None:
        paths.private(_root())
        target = paths.private(self._directory) / (name + _SUFFIX)
        aside = target.with_name(f".{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(encode(salt))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(aside, target)  # fails if it exists, and shows all of the file or nothing
            except FileExistsError:
                return
        except OSError as error:
            raise Unreadable(
                f"cannot keep a salt in {self._directory}", got=error.strerror, remedy="check space and permissions"
            ) from error
        finally:
            aside.unlink(missing_ok=True)


def of_project() -> Salts:
    """The salts of the project that the current directory lies in: the nearest directory with ``.git`` or ``.mlseal``.

    Which salt is used hides nothing and shows nothing, so the tree may have a say in it.
    """
    here = Path.cwd()
    root = next((d for d in (here, *here.parents) if any((d / mark).exists() for mark in _ROOT_MARKS)), here)
    return Salts(f"project {root}")


def every() -> list[bytes]:
    """Every salt that this user keeps, for any project or remote."""
    return list(dict.fromkeys(salt for directory in _directories() for salt in _read_all(directory)))


def forget_every() -> int:
    """Erase every salt that this user keeps; how many there were."""
    return sum(_erase(directory) for directory in list(_directories()))


def _root() -> Path:
    return paths.state_dir() / "names"


def _directories() -> Iterator[Path]:
    root = _root()
    return iter(sorted(d for d in root.iterdir() if d.is_dir()) if root.is_dir() else [])


def _read_all(directory: Path) -> list[bytes]:
    if not directory.is_dir():
        return []
    files = [(file.stat().st_mtime_ns, file) for file in directory.glob(f"*{_SUFFIX}")]
    return [_read(file) for _, file in sorted(files)]


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(1024)
    except OSError as error:
        raise Unreadable(f"cannot read the salt {file}", got=error.strerror, remedy="check its permissions") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Refusal(
            f"others may read the salt {file}",
            got=f"mode {stat.S_IMODE(mode):o}",
            expected="mode 600",
            remedy=f"chmod 600 {file}, and forget it if others read it: mlseal names forget",
        )
    return decode(data, file)


def _erase(directory: Path) -> int:
    files = list(directory.glob(f"*{_SUFFIX}")) if directory.is_dir() else []
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)
