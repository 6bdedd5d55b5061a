"""Shape of the tree: which hashes make its root and the path of each node, given its tiles.

Pure arithmetic over `Load`; where tiles come from and whether they are true is the caller's business. Each level of
tiles has a bottom row: the hashes of its complete subtrees, and behind them, if the tree does not end there, the root
of the incomplete subtree at the right edge. Folding the last tile of a level gives that root for the level above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlseal.tlog.hashing import EMPTY_ROOT, rows_above
from mlseal.tlog.tiles import TILE_HEIGHT, TILE_WIDTH

Load = Callable[[int, int], Sequence[bytes]]
"""Hashes of tile `(level, n)`; it may return more than the tree of this size has, never fewer."""


class Tree:
    """The first `size` leaves of a log. Rows above each loaded tile are kept, so a batch of paths shares them."""

    def __init__(self, size: int, load: Load) -> None:
        self.size = size
        self._load = load
        self._rows: dict[tuple[int, int], list[list[bytes]]] = {}
        self._above: dict[tuple[int, int], tuple[bytes, ...]] = {}
        self.top = top_level(size)
        """Level whose bottom row fits one tile, which the root tops."""

    def root(self) -> bytes:
        """Root of the tree."""
        return self._rows_of(self.top, 0)[-1][0] if self.size else EMPTY_ROOT

    def node(self, height: int, index: int) -> bytes:
        """Hash of complete subtree `index` among those of 2**height leaves."""
        level, row = divmod(height, TILE_HEIGHT)
        n, position = divmod(index, TILE_WIDTH >> row)
        return self._rows_of(level, n)[row][position]

    def path(self, height: int, index: int) -> tuple[bytes, ...]:
        """Siblings on the way from complete subtree `index` of 2**height leaves up to the root."""
        level, row = divmod(height, TILE_HEIGHT)
        n, position = divmod(index, TILE_WIDTH >> row)
        siblings = []
        for nodes in self._rows_of(level, n)[row:]:
            if position ^ 1 < len(nodes):  # the odd last node of a row has no sibling: it moves up unchanged
                siblings.append(nodes[position ^ 1])
            position >>= 1
        return (*siblings, *self._path_above(level, n))

    def _path_above(self, level: int, n: int) -> tuple[bytes, ...]:
        """Path of tile `(level, n)` as a whole, which all paths through it share."""
        if level == self.top:
            return ()
        path = self._above.get((level, n))
        if path is None:
            path = self._above[level, n] = self.path(TILE_HEIGHT * (level + 1), n)
        return path

    def _rows_of(self, level: int, n: int) -> list[list[bytes]]:
        rows = self._rows.get((level, n))
        if rows is None:
            rows = self._rows[level, n] = rows_above(self._bottom_row(level, n))
        return rows

    def _bottom_row(self, level: int, n: int) -> list[bytes]:
        complete = (self.size >> TILE_HEIGHT * level) - n * TILE_WIDTH
        row = list(self._load(level, n)[: min(complete, TILE_WIDTH)]) if complete else []
        if complete < TILE_WIDTH and self.size & ((1 << TILE_HEIGHT * level) - 1):
            row.append(self._rows_of(level - 1, self.size >> TILE_HEIGHT * level)[-1][0])
        return row


def top_level(size: int) -> int:
    """The lowest level whose bottom row for `size` leaves fits one tile."""
    level = 0
    while -(-size >> TILE_HEIGHT * level) > TILE_WIDTH:
        level += 1
    return level


def tiles_of_edge(size: int) -> list[tuple[int, int, int]]:
    """Level, number and width of each partial tile of a tree with `size` leaves, lowest level first."""
    edge = []
    level = 0
    while count := size >> TILE_HEIGHT * level:
        n, width = divmod(count, TILE_WIDTH)
        if width:
            edge.append((level, n, width))
        level += 1
    return edge
