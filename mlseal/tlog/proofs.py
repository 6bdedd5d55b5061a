"""Inclusion and consistency proofs: made from tiles, verified from nothing but hashes (RFC 6962, section 2.1).

Verifying needs the two functions at the top and trusts only the root handed to it. Making needs tiles: `HashReader`
reads the few that a proof touches. Given the expected root it also *authenticates* each tile before use: the right
edge by folding it into that root, every other tile by the hash that its parent tile holds for it. A reader with a
root thus never uses a byte of the source that the root does not vouch for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mlseal.errors import ForgedEvidence, Misuse, SplitView
from mlseal.tlog.hashing import EMPTY_ROOT, HASH_SIZE, fold, leaf_hash, node_hash, split_hashes
from mlseal.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, TileSource, iter_entries, missing_part, read_tile, tile_path
from mlseal.tlog.tree import Tree

__all__ = [
    "EMPTY_ROOT",
    "HashReader",
    "checked_entries",
    "leaf_hash",
    "node_hash",
    "verify_consistency",
    "verify_inclusion",
]


def verify_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the tree of `size` leaves with `root` holds `leaf_hash` at `index` (RFC 9162, section 2.1.3.2).

    Raises:
        ForgedEvidence: it does not, or the proof has another length than this position requires.
    """
    if not 0 <= index < size:
        raise ForgedEvidence("log index lies outside the tree", got=index, expected=f"0 to {size - 1}")
    _check_hashes(leaf_hash, root, *proof)
    node, last, result = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise ForgedEvidence("inclusion proof is too long", got=f"{len(proof)} hashes")
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ForgedEvidence("inclusion proof is too short", got=f"{len(proof)} hashes")
    if result != root:
        raise ForgedEvidence("inclusion proof leads to another root", got=result.hex(), expected=root.hex())


def verify_consistency(m: int, n: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `n` leaves begins with the tree of `m` leaves (RFC 9162, section 2.1.4.2).

    The empty tree begins every tree, so `m == 0` needs an empty proof and the empty root.

    Raises:
        SplitView: no single append-only log has both roots, or the proof does not show that one does.
    """
    _check_hashes(old_root, new_root, *proof, error=SplitView)
    if not 0 <= m <= n:
        raise SplitView("the log shrank", got=f"{n} entries", expected=f"at least {m}")
    if m in (0, n):
        if proof:
            raise SplitView("consistency proof should be empty", got=f"{len(proof)} hashes")
        expected = new_root if m else EMPTY_ROOT
        if old_root != expected:
            raise SplitView(f"two roots for {m} entries", got=old_root.hex(), expected=expected.hex())
        return
    old, new = _consistency_roots(m, n, [old_root, *proof] if m & (m - 1) == 0 else list(proof))
    if old != old_root:
        raise SplitView("consistency proof leads to another old root", got=old.hex(), expected=old_root.hex())
    if new != new_root:
        raise SplitView("consistency proof leads to another new root", got=new.hex(), expected=new_root.hex())


def _consistency_roots(m: int, n: int, path: list[bytes]) -> tuple[bytes, bytes]:
    """Both roots that `path` leads to; its first hash is the largest subtree at the old tree's right edge."""
    if not path:
        raise SplitView("consistency proof is empty", expected=f"a proof from {m} to {n} entries")
    node, last = m - 1, n - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise SplitView("consistency proof is too long", got=f"{len(path)} hashes")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise SplitView("consistency proof is too short", got=f"{len(path)} hashes")
    return old, new


def _check_hashes(*hashes: bytes, error: type[ForgedEvidence] = ForgedEvidence) -> None:
    for item in hashes:
        if len(item) != HASH_SIZE:
            raise error("a hash in the proof has a wrong length", got=f"{len(item)} bytes", expected=HASH_SIZE)


class HashReader:
    """Roots and proofs of the first `size` entries of a log, read through its tiles.

    Args:
        read: gives the bytes at a tlog-tiles path, or raises `FileNotFoundError` (`TileSource.read`).
        size: number of entries.
        root: the signed root; when given, every tile is checked against it before use.

    Tiles are kept for the reader's life, with the rows above them, so a batch of proofs costs little more than one.
    A reader is for one thread.

    Raises (all methods):
        ForgedEvidence: a tile has a wrong length, or does not belong under `root`.
        Unreadable: the source lacks a tile.
    """

    def __init__(self, read: Callable[[str], bytes], size: int, root: bytes | None = None) -> None:
        self.size = size
        self._source = _Reading(read)
        self._tiles: dict[tuple[int, int], list[bytes]] = {}
        self._tree = Tree(size, self.tile)
        self._leaves: tuple[int, list[bytes]] | None = None
        self._authenticated = False
        if root is not None and self.root() != root:
            raise ForgedEvidence(
                f"the tiles do not reproduce the root of {size} entries", got=self.root().hex(), expected=root.hex()
            )
        # From here on the tiles that make the root, those of the right edge, are known to be true.
        self._authenticated = root is not None

    def root(self) -> bytes:
        """Root of the tree."""
        return self._tree.root()

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Proof that entry `index` is in the tree, for `verify_inclusion`."""
        if not 0 <= index < self.size:
            raise Misuse("no such entry in the log", got=index, expected=f"0 to {self.size - 1}")
        return self._tree.path(0, index)

    def consistency(self, m: int) -> tuple[bytes, ...]:
        """Proof that the tree begins with its first `m` entries, for `verify_consistency`."""
        self._check_prefix(m)
        if m in (0, self.size):
            return ()
        # The old tree's right edge ends with a complete subtree; the proof is that subtree's path in the new tree,
        # behind its hash, which a verifier knows already when it is the whole old tree.
        height = (m & -m).bit_length() - 1
        index = (m - 1) >> height
        start = [self._tree.node(height, index)] if index else []
        return (*start, *self._tree.path(height, index))

    def prefix_root(self, m: int) -> bytes:
        """Root that the log had at `m` entries."""
        self._check_prefix(m)
        return Tree(m, self.tile).root()

    def check_entry(self, index: int, entry: bytes) -> None:
        """Check that `entry` is what the tree holds at `index`; meant to be called in order of index.

        Raises:
            ForgedEvidence: it is not.
        """
        n, position = divmod(index, TILE_WIDTH)
        if self._leaves is None or self._leaves[0] != n:
            self._leaves = n, self._tiles.get((0, n)) or self._fetch(0, n)
        expected = self._leaves[1][position]
        if leaf_hash(entry) != expected:
            raise ForgedEvidence(
                f"entry {index} is not the one in the tree", got=leaf_hash(entry).hex(), expected=expected.hex()
            )

    def _check_prefix(self, m: int) -> None:
        if not 0 <= m <= self.size:
            raise Misuse("the log never had that size", got=m, expected=f"0 to {self.size}")

    def tile(self, level: int, n: int) -> list[bytes]:
        """Hashes of tile `n` at `level`."""
        hashes = self._tiles.get((level, n))
        if hashes is None:
            hashes = self._tiles[level, n] = self._fetch(level, n)
        return hashes

    def _fetch(self, level: int, n: int) -> list[bytes]:
        width = min(TILE_WIDTH, (self.size >> TILE_HEIGHT * level) - n * TILE_WIDTH)
        try:
            data, full = read_tile(self._source, level, n, width)
        except FileNotFoundError as error:
            raise missing_part(tile_path(level, n, width), self.size) from error
        if len(data) != HASH_SIZE * (TILE_WIDTH if full else width):
            raise ForgedEvidence(f"{tile_path(level, n, width)} has a wrong length", got=f"{len(data)} bytes")
        hashes = split_hashes(data)[:width]
        if self._authenticated and level < self._tree.top and width == TILE_WIDTH:
            parent = self.tile(level + 1, n // TILE_WIDTH)[n % TILE_WIDTH]
            if fold(hashes) != parent:
                raise ForgedEvidence(
                    f"{tile_path(level, n)} does not belong to the tree", got=fold(hashes).hex(), expected=parent.hex()
                )
        return hashes


class _Reading:
    """A bare reading function as a `TileSource`."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self.read = read


def checked_entries(source: TileSource, size: int, root: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of each entry from `start` up to `size`, each proven to be in the tree with `root`.

    Guarantees: nothing is yielded that `root` does not vouch for. Reading a whole log this way is its full audit:
    every entry, every level-0 tile and every tile above it has been compared when the iterator ends.

    Raises:
        ForgedEvidence, MalformedEvidence: a tile or a bundle was altered.
        Unreadable: one is missing.
    """
    reader = HashReader(source.read, size, root)
    for index, entry in iter_entries(source, size, start):
        reader.check_entry(index, entry)
        yield index, entry
