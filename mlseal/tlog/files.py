"""The files of a log that its writer changes, and when they reach the disk.

A file is written at once, so that readers see it, and made durable later, together with all others, by `settle`.
Until then the journal (see `journal`) is what survives a loss of power, and recovery writes the files again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mlseal.tlog.tiles import DirectoryTiles

CHECKPOINT = "checkpoint"


class LogFiles(DirectoryTiles):
    """A log's directory, for its one writer.

    Raises (all methods): `OSError` as the system gave it; the writer turns it into one of ours.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._unsettled: set[str] = set()
        self._superseded: set[str] = set()
        self._made: set[str] = set()

    def write(self, path: str, data: bytes) -> None:
        """Write one tile or bundle; a file that has these bytes already is left alone.

        The name says what the bytes must be, and no checkpoint names a file before it is written, so it can be
        written in place: a torn one is seen by nobody and is written again on recovery.
        """
        target = self.path / path
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        self._unsettled.add(path)
        if ".p/" not in path:
            self._superseded.add(f"{path}.p")
        if not _holds(target, data):
            target.write_bytes(data)

    def publish(self, note: str, *, durable: bool = False) -> None:
        """Replace the checkpoint, for readers in one step."""
        fresh = self.path / f"{CHECKPOINT}.new"
        with fresh.open("wb") as file:
            file.write(note.encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(self.path / CHECKPOINT)
        if durable:
            sync(self.path)

    def settle(self, note: str) -> None:
        """Make everything written so far durable, `note` as the checkpoint last, and drop outgrown partial tiles."""
        kept = [path for path in self._unsettled if path.rpartition("/")[0] not in self._superseded]
        for path in kept:
            sync(self.path / path)
        for folder in _folders(kept):
            sync(self.path / folder)
        self.publish(note, durable=True)
        for path in self._superseded:
            shutil.rmtree(self.path / path, ignore_errors=True)
            self._made.discard(path)
        self._unsettled.clear()
        self._superseded.clear()


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folders(paths: Iterable[str]) -> list[str]:
    """Every directory between the log and `paths`, deepest first; a new file or folder is durable through its own."""
    folders = {"."}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(folders, key=len, reverse=True)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
