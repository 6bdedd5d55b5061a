"""Hashes of the tree (RFC 6962, section 2.1): leaves and nodes can never be mistaken for one another.

The tree over n leaves splits at the largest power of two below n. The same tree comes out when neighbours are
paired from the left and an odd last node moves up unchanged, which is how `pair_up` and `fold` build it: no
recursion, and every intermediate row is at hand for proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

HASH_SIZE = 32
"""Bytes in a hash: SHA-256, the only algorithm of tlog-tiles."""

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of one entry: SHA-256 over a zero byte and the entry."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256 over a one byte and both children."""
    return sha256(b"\x01" + left + right).digest()


def pair_up(row: Sequence[bytes]) -> list[bytes]:
    """The row above `row`: neighbours hashed together, an odd last node moved up as it is."""
    above = [sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
    if len(row) % 2:
        above.append(row[-1])
    return above


def rows_above(row: Sequence[bytes]) -> list[list[bytes]]:
    """`row` and every row above it, up to the single root; `row` must hold at least one hash."""
    rows = [list(row)]
    while len(rows[-1]) > 1:
        rows.append(pair_up(rows[-1]))
    return rows


def fold(row: Sequence[bytes]) -> bytes:
    """Root of the tree whose bottom row is `row`; `EMPTY_ROOT` for no hashes.

    The last item may itself be the root of an incomplete subtree, as at the right edge of a log.
    """
    if not row:
        return EMPTY_ROOT
    while len(row) > 1:
        row = pair_up(row)
    return row[0]


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes in a tile's bytes; `data` must be a whole number of hashes."""
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]
