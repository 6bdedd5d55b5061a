"""Where evidence is read and written: a directory, or any remote that DVC can reach.

Nothing read here is trusted. A write is whole or absent for directories (temporary file, fsync, rename); for other
remotes it is as atomic as their single upload.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, Protocol

from mlseal.errors import Error, ServiceUnavailable, Unreadable
from mlseal.evidence.bundle import write_atomic
from mlseal_dvc import layout

MAX_BYTES = 1 << 30


class Place(Protocol):
    """A tree of small files, addressed by the names of `layout`."""

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there are none. Raises `Unchecked` when that cannot be told."""

    def write(self, name: str, data: bytes) -> None:
        """Put `data` there. Raises `Unchecked` when it cannot be written."""

    def create(self, name: str, data: bytes) -> None:
        """Put `data` there unless something is; the first wins where the remote can tell. Raises as `write`."""

    def names(self, directory: str) -> list[str] | None:
        """Names of all files below `directory`; None where listing is not possible."""


class DirectoryPlace:
    """A directory: of this user, or a remote that is one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Unreadable(f"cannot read {self.root / name}", got=error.strerror) from error

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        write_atomic(self.root / name, data)

    def create(self, name: str, data: bytes) -> None:
        """See `Place`."""
        target = self.root / name
        aside = f"{name}.{secrets.token_hex(8)}"
        self.write(aside, data)
        try:
            os.link(self.root / aside, target)  # unlike a rename, fails if it is there
        except FileExistsError:
            return
        except OSError as error:
            raise Unreadable(f"cannot write {target}", got=error.strerror, remedy="check its permissions") from error
        finally:
            (self.root / aside).unlink(missing_ok=True)

    def names(self, directory: str) -> list[str] | None:
        """See `Place`."""
        found = (Path(base, file) for base, _, files in os.walk(self.root / directory) for file in files)
        return sorted(file.relative_to(self.root).as_posix() for file in found)

    def __str__(self) -> str:
        return str(self.root)


class RemotePlace:
    """A remote reached through DVC's own file system object, with DVC's configuration and credentials."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs, self._root = fs, root

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            with self._fs.open(self._path(name), "rb") as file:
                return bytes(file.read(MAX_BYTES))
        except FileNotFoundError:
            return None
        except Error:
            raise
        except Exception as error:  # each remote has its own errors
            raise _unavailable(self, error) from error

    def write(self, name: str, data: bytes) -> None:
        """See `Place`."""
        path = self._path(name)
        try:
            self._fs.makedirs(self._fs.parent(path), exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix="mlseal-") as file:
                file.write(data)
                file.flush()
                self._fs.put_file(file.name, path)
        except Exception as error:
            raise _unavailable(self, error) from error

    def create(self, name: str, data: bytes) -> None:
        """See `Place`. Two writers at once are not told apart: whoever needs to know reads again."""
        if self.read(name) is None:
            self.write(name, data)

    def names(self, directory: str) -> list[str] | None:
        """See `Place`."""
        base = self._path(directory)
        try:
            found = [str(path) for path in self._fs.find(base)]
        except FileNotFoundError:
            return []
        except NotImplementedError:
            return None
        except Exception as error:
            raise _unavailable(self, error) from error
        # DVC's file systems answer with paths that end as the one asked for, whatever they put in front.
        inside = (path.rpartition(f"{directory}/")[2] for path in found)
        return sorted(f"{directory}/{path}" for path in inside)

    def _path(self, name: str) -> str:
        return str(self._fs.join(self._root, *name.split("/")))

    def __str__(self) -> str:
        return str(self._fs.unstrip_protocol(self._root))


def of_remote(remote: Any) -> Place:
    """The evidence beside the data of a DVC remote (`dvc.data_cloud.Remote`).

    On a cloud-versioned one outputs lie under their own paths, so evidence lies where no output can: below ``.dvc``.
    """
    inside = (".dvc",) if remote.worktree or remote.fs.version_aware else ()
    root = remote.fs.join(remote.path, *inside, *layout.ROOT)
    return DirectoryPlace(Path(root)) if remote.fs.protocol == "local" else RemotePlace(remote.fs, root)


def _unavailable(place: Place, error: Exception) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the evidence at {place} cannot be reached",
        got=f"{type(error).__name__}: {error}"[:160],
        remedy="check the remote and its credentials, then run again",
    )
