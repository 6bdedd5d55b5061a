"""Where evidence is read and written: a directory, or any remote that DVC can reach.

Nothing read here is trusted. A write is whole or absent for directories (temporary file, fsync, rename); for other
remotes it is as atomic as their single upload.
"""

from __future__ import annotations

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

    def names(self, directory: str) -> list[str] | None:
        """Names in `directory`; None where listing is not possible."""


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

    def names(self, directory: str) -> list[str] | None:
        """See `Place`."""
        try:
            return sorted(f"{directory}/{entry.name}" for entry in (self.root / directory).iterdir())
        except OSError:
            return []

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

    def names(self, directory: str) -> list[str] | None:
        """See `Place`."""
        try:
            found = list(self._fs.find(self._path(directory)))
        except FileNotFoundError:
            return []
        except NotImplementedError:
            return None
        except Exception as error:
            raise _unavailable(self, error) from error
        return sorted(f"{directory}/{self._fs.name(path)}" for path in found)

    def _path(self, name: str) -> str:
        return str(self._fs.join(self._root, *name.split("/")))

    def __str__(self) -> str:
        return str(self._fs.unstrip_protocol(self._root))


def of_remote(remote: Any) -> Place:
    """The evidence beside the data of a DVC remote (`dvc.data_cloud.Remote`)."""
    root = remote.fs.join(remote.path, *layout.ROOT)
    return DirectoryPlace(Path(root)) if remote.fs.protocol == "local" else RemotePlace(remote.fs, root)


def _unavailable(place: Place, error: Exception) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the evidence at {place} cannot be reached",
        got=f"{type(error).__name__}: {error}"[:160],
        remedy="check the remote and its credentials, then run again",
    )
