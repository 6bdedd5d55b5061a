"""Copy a log's tiles: what an auditor takes home, and what travels with data to people who cannot reach the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlseal.evidence.bundle import write_atomic
from mlseal.evidence.trust import LogKey
from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.tiles import TileSource, entries_path, tile_path


def copy_log(log: LogKey, source: TileSource, target: Path) -> int:
    """Copy checkpoint, hash tiles and entries of `log` to `target`; returns the tree size.

    Only files that are not there yet are read: a tile of a given width never changes. The checkpoint is written last,
    so an interrupted copy is an older log, not a broken one.
    """
    note = source.read("checkpoint")
    size = open_note(note.decode("utf-8"), log.origin, log.public_key).size
    for path in tree_paths(size):
        file = target / path
        if not file.exists():
            write_atomic(file, source.read(path))
    write_atomic(target / "checkpoint", note)
    return size


def tree_paths(size: int) -> Iterator[str]:
    """Every file of a log of `size` entries (C2SP tlog-tiles): hash tiles of all levels, then bundles of entries."""
    level, count = 0, size
    while count:
        yield from (tile_path(level, n, width) for n, width in _tiles(count))
        level, count = level + 1, count // 256
    yield from (entries_path(n, width) for n, width in _tiles(size))


def _tiles(count: int) -> Iterator[tuple[int, int]]:
    for n in range(0, count, 256):
        yield n // 256, min(256, count - n)
