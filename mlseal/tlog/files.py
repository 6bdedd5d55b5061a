"""The files of a log that its writer changes, and when they reach the disk.

A file is written at once, so that readers see it, and made durable later, together with all others, by the work that
`settling` returns. Until then the journal (see `journal`) is what survives a loss of power, and recovery writes the
files again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from mlseal.tlog.exchange import exchange
from mlseal.tlog.tiles import TILE_WIDTH, DirectoryTiles, entries_path, tile_path
from mlseal.tlog.tree import tiles_of_edge

CHECKPOINT = "checkpoint"

_PARTIAL = ".p"


class LogFiles(DirectoryTiles):
    """A log's directory, for its one writer.

    Raises (all methods): `OSError` as the system gave it; the writer turns it into one of ours.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._unsettled: set[str] = set()
        self._outgrown: set[str] = set()
        self._made: set[str] = set()
        self._needed: frozenset[str] = frozenset()

    def start_from(self, size: int) -> None:
        """Keep the partial tiles of a log with `size` entries, and no others: recovery starts from them."""
        self._needed = _partial(size)
        self._drop_outgrown()

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
        if not folder.endswith(_PARTIAL):
            self._outgrown.add(path + _PARTIAL)
        if not _holds(target, data):
            target.write_bytes(data)

    def publish(self, note: str) -> None:
        """Replace the checkpoint, for readers in one step, then drop the partial tiles of full ones.

        Whoever still reads by an older checkpoint finds the full tile instead, as tlog-tiles has it.
        """
        fresh, current = self.path / f"{CHECKPOINT}.new", self.path / CHECKPOINT
        fresh.unlink(missing_ok=True)  # never truncate it: it may be the last checkpoint, and someone reading it
        with fresh.open("xb") as file:
            file.write(note.encode())
        if exchange(fresh, current):
            fresh.unlink()
        else:
            fresh.replace(current)
        self._drop_outgrown()

    def settling(self, size: int) -> Callable[[], None]:
        """Work that makes the files of the log's `size` entries durable, all that is written by now.

        It may run in another thread while this one goes on writing. When it is done, and a journal that starts from
        `size` has replaced the one before, call `start_from`.
        """
        paths, self._unsettled = {*self._unsettled, CHECKPOINT}, set()
        self._needed |= _partial(size)

        def work() -> None:
            for path in (*paths, *_folders(paths)):
                with suppress(FileNotFoundError):  # a partial tile may have given way to the full one by now
                    sync(self.path / path)

        return work

    def _drop_outgrown(self) -> None:
        for folder in tuple(self._outgrown):
            self._drop(folder)

    def _drop(self, folder: str) -> None:
        """Remove a folder of partial tiles, but for those that recovery needs until the full tile has settled."""
        kept = False
        with suppress(FileNotFoundError):
            for file in (self.path / folder).iterdir():
                path = f"{folder}/{file.name}"
                if path in self._needed:
                    kept = True
                else:
                    file.unlink()
                    self._unsettled.discard(path)
            if not kept:
                (self.path / folder).rmdir()
        if not kept:
            self._outgrown.discard(folder)
            self._made.discard(folder)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _folders(paths: Iterable[str]) -> list[str]:
    """Every directory between the log and `paths`, deepest first: a new name is durable once its directory is."""
    folders = {"."}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(folders, key=len, reverse=True)


def _partial(size: int) -> frozenset[str]:
    """Paths of the partial tiles and bundle of a log with `size` entries."""
    n, width = divmod(size, TILE_WIDTH)
    return frozenset([*(tile_path(*tile) for tile in tiles_of_edge(size)), entries_path(n, width)])


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
