"""The right edge of a growing tree, in memory: all that an append needs of what came before.

An edge holds the partial tile of each level and the partial entry bundle: under a megabyte or two, whatever the size
of the log. Growing returns a new edge and leaves the old one as it was, so a batch that could not be made durable is
forgotten by keeping the old one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlseal.errors import ForgedEvidence
from mlseal.tlog.hashing import fold, leaf_hash
from mlseal.tlog.proofs import HashReader
from mlseal.tlog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    TileSource,
    entries_path,
    iter_entries,
    join_entries,
    tile_path,
)
from mlseal.tlog.tree import Tree, tiles_of_edge

TileKey = tuple[int, int]
"""Level and number of a tile."""


@dataclass(frozen=True)
class Edge:
    """The incomplete right side of a tree of `size` entries."""

    size: int = 0
    partial: tuple[tuple[bytes, ...], ...] = ()
    """Hashes of the partial tile at each level; empty where the level's last tile is full."""
    bundle: bytes = b""
    """The partial entry bundle."""

    def grow(self, entries: Sequence[bytes]) -> Growth:
        """The edge after `entries`, with every tile that they touched.

        Raises:
            Misuse: an entry is too large.
        """
        touched: dict[TileKey, tuple[bytes, ...]] = {}
        partial: list[tuple[bytes, ...]] = []
        arriving: Sequence[bytes] = [leaf_hash(entry) for entry in entries]
        count, level = self.size, 0
        while arriving or level < len(self.partial):
            row = (*(self.partial[level] if level < len(self.partial) else ()), *arriving)
            first = count // TILE_WIDTH
            tiles = [row[i : i + TILE_WIDTH] for i in range(0, len(row), TILE_WIDTH)]
            if arriving:
                touched.update(((level, first + i), tile) for i, tile in enumerate(tiles))
            full = [tile for tile in tiles if len(tile) == TILE_WIDTH]
            partial.append(() if len(full) == len(tiles) else tiles[-1])
            arriving = [fold(tile) for tile in full]
            count, level = first, level + 1
        bundles = self._bundles(entries)
        size = self.size + len(entries)
        last = bundles.get(size // TILE_WIDTH, self.bundle if not bundles else b"")
        return Growth(Edge(size, tuple(partial), last), touched, bundles)

    def _bundles(self, entries: Sequence[bytes]) -> dict[int, bytes]:
        """Bytes of each entry bundle that `entries` touch."""
        bundles: dict[int, bytes] = {}
        at = 0
        while at < len(entries):
            n, filled = divmod(self.size + at, TILE_WIDTH)
            more = join_entries(entries[at : at + TILE_WIDTH - filled])
            bundles[n] = (self.bundle if at == 0 else b"") + more
            at += TILE_WIDTH - filled
        return bundles


@dataclass(frozen=True)
class Growth:
    """What one batch made of an edge."""

    edge: Edge
    tiles: Mapping[TileKey, tuple[bytes, ...]]
    bundles: Mapping[int, bytes]

    def tree(self) -> Tree:
        """The grown tree; it can give the root and the path of every entry of the batch, and of no other."""
        size = self.edge.size
        last = {(level, size >> TILE_HEIGHT * (level + 1)): row for level, row in enumerate(self.edge.partial)}
        held = {**last, **self.tiles}
        return Tree(size, lambda level, n: held[level, n])

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path and bytes of each file that this growth adds, entries first."""
        for n, data in self.bundles.items():
            yield entries_path(n, min(TILE_WIDTH, self.edge.size - n * TILE_WIDTH)), data
        for (level, n), row in self.tiles.items():
            yield tile_path(level, n, len(row)), b"".join(row)


def read_edge(source: TileSource, size: int, root: bytes) -> Edge:
    """The edge of the log in `source` at `size` entries, proven to make `root`.

    Raises:
        ForgedEvidence, MalformedEvidence: tiles or the last bundle do not make `root`.
        Unreadable: one is missing.
    """
    reader = HashReader(source.read, size, root)
    levels = tiles_of_edge(size)
    partial: list[tuple[bytes, ...]] = [() for _ in range(levels[-1][0] + 1)] if levels else []
    for level, n, _ in levels:
        partial[level] = tuple(reader.tile(level, n))
    start = size - size % TILE_WIDTH
    entries = [entry for _, entry in iter_entries(source, size, start)]
    if [leaf_hash(entry) for entry in entries] != list(partial[0] if partial else ()):
        raise ForgedEvidence(f"{entries_path(start // TILE_WIDTH, size % TILE_WIDTH)} does not match its tile")
    return Edge(size, tuple(partial), join_entries(entries))
