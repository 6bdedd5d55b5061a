"""Proofs against a naive tree: every one made verifies, every altered one is refused, every altered tile is found."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlseal.errors import ForgedEvidence, Misuse, SplitView, Unreadable
from mlseal.tlog.edge import Edge
from mlseal.tlog.hashing import leaf_hash
from mlseal.tlog.proofs import HashReader, checked_entries, verify_consistency, verify_inclusion

ENTRIES = [b"entry %d" % i for i in range(70_000)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


class MemoryTiles:
    """A log in memory."""

    def __init__(self, *sizes):
        self.files = {}
        edge = Edge()
        for size in sizes:
            growth = edge.grow(ENTRIES[edge.size : size])
            self.files.update(growth.files())
            edge, self.size, self.root = growth.edge, size, growth.tree().root()

    def read(self, path):
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(path) from None


@pytest.fixture(scope="module")
def large():
    """More than 256² entries: three levels of tiles."""
    return MemoryTiles(65_000, 65_536, 65_900)


def test_all_pairs_of_small_sizes(mth):
    roots = [mth(LEAVES[:n]) for n in range(73)]
    for n in range(73):
        reader = HashReader(MemoryTiles(n).read, n, roots[n])
        for i in range(n):
            verify_inclusion(i, n, LEAVES[i], reader.inclusion(i), roots[n])
        for m in range(n + 1):
            verify_consistency(m, n, roots[m], roots[n], reader.consistency(m))
            assert reader.prefix_root(m) == roots[m]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1400), min_size=1, max_size=6).map(sorted), st.data())
def test_any_growth_makes_the_naive_tree(mth, sizes, data):
    tiles, n = MemoryTiles(*sizes), sizes[-1]
    assert tiles.root == mth(LEAVES[:n])
    reader = HashReader(tiles.read, n, tiles.root)
    m = data.draw(st.integers(0, n))
    verify_consistency(m, n, mth(LEAVES[:m]), tiles.root, reader.consistency(m))
    assert reader.prefix_root(m) == mth(LEAVES[:m])
    if n:
        i = data.draw(st.integers(0, n - 1))
        verify_inclusion(i, n, LEAVES[i], reader.inclusion(i), tiles.root)
    assert list(checked_entries(tiles, n, tiles.root)) == list(enumerate(ENTRIES[:n]))


def test_sizes_around_tile_borders(mth):
    for n in (255, 256, 257, 511, 512, 513):
        tiles = MemoryTiles(n)
        reader = HashReader(tiles.read, n, mth(LEAVES[:n]))
        for i in (0, 1, 254, n - 1):
            verify_inclusion(i, n, LEAVES[i], reader.inclusion(i), tiles.root)


def test_three_levels(large, mth):
    assert large.root == mth(LEAVES[: large.size])
    reader = HashReader(large.read, large.size, large.root)
    for i in (0, 255, 256, 65_535, 65_536, 65_899):
        verify_inclusion(i, large.size, LEAVES[i], reader.inclusion(i), large.root)
    for m in (1, 256, 65_000, 65_535, 65_536, 65_537):
        verify_consistency(m, large.size, mth(LEAVES[:m]), large.root, reader.consistency(m))
        assert reader.prefix_root(m) == mth(LEAVES[:m])
    assert list(checked_entries(large, large.size, large.root, 65_530)) == [
        (i, ENTRIES[i]) for i in range(65_530, 65_900)
    ]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 600), data=st.data())
def test_no_altered_inclusion_proof_verifies(n, data):
    tiles = MemoryTiles(n)
    i = data.draw(st.integers(0, n - 1))
    proof = HashReader(tiles.read, n).inclusion(i)
    k = data.draw(st.integers(0, len(proof) - 1))
    bad = bytes([proof[k][0] ^ 1]) + proof[k][1:]
    for index, size, leaf, path in (
        (i, n, LEAVES[i], (*proof[:k], bad, *proof[k + 1 :])),
        (i, n, LEAVES[i], proof[:-1]),
        (i, n, LEAVES[i], (*proof, bad)),
        (i, n, LEAVES[(i + 1) % n], proof),
        ((i + 1) % n, n, LEAVES[i], proof),
        (i, n, LEAVES[i], (*proof[:k], proof[k][:31], *proof[k + 1 :])),
        (-1, n, LEAVES[i], proof),
        (n, n, LEAVES[i], proof),
    ):
        with pytest.raises(ForgedEvidence):
            verify_inclusion(index, size, leaf, path, tiles.root)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 600), data=st.data())
def test_no_altered_consistency_proof_verifies(mth, n, data):
    tiles = MemoryTiles(n)
    m = data.draw(st.integers(1, n - 1))
    old, proof = mth(LEAVES[:m]), HashReader(tiles.read, n).consistency(m)
    k = data.draw(st.integers(0, len(proof) - 1))
    bad = bytes([proof[k][0] ^ 1]) + proof[k][1:]
    for first, second, path in (
        (old, tiles.root, (*proof[:k], bad, *proof[k + 1 :])),
        (old, tiles.root, proof[:-1]),
        (old, tiles.root, (*proof, bad)),
        (old, tiles.root, ()),
        (bad, tiles.root, proof),
        (old, bad, proof),
    ):
        with pytest.raises(SplitView):
            verify_consistency(m, n, first, second, path)
    with pytest.raises(SplitView):
        verify_consistency(n, m, tiles.root, old, proof)


def test_equal_sizes_and_the_empty_tree_take_no_proof(mth):
    root, empty = mth(LEAVES[:5]), mth([])
    verify_consistency(5, 5, root, root, [])
    verify_consistency(0, 5, empty, root, [])
    for m, n, old, new, proof in (
        (5, 5, root, empty, []),
        (5, 5, root, root, [root]),
        (0, 5, root, root, []),
        (0, 5, empty, root, [root]),
        (0, 0, root, root, []),
    ):
        with pytest.raises(SplitView):
            verify_consistency(m, n, old, new, proof)


@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("tile/0/000", 3),
        ("tile/0/254", 65_100),
        ("tile/1/000", 3),
        ("tile/0/257.p/108", 65_899),
        ("tile/1/001.p/1", 3),
        ("tile/2/000.p/1", 3),
    ],
)
def test_an_altered_tile_is_found_before_it_is_used(large, path, index):
    tampered = MemoryTiles()
    tampered.files = {**large.files, path: bytes([large.files[path][0] ^ 1]) + large.files[path][1:]}
    with pytest.raises(ForgedEvidence):
        HashReader(tampered.read, large.size, large.root).inclusion(index)


def test_an_altered_short_or_missing_part_stops_the_audit(large):
    for path, data, error in (
        ("tile/entries/003", b"\0\1x" * 256, ForgedEvidence),
        ("tile/entries/003", b"\0\1x" * 255, ForgedEvidence),
        ("tile/0/003", large.files["tile/0/003"][:-32], ForgedEvidence),
        ("tile/0/003", None, Unreadable),
        ("tile/entries/003", None, Unreadable),
    ):
        tampered = MemoryTiles()
        tampered.files = {**large.files, path: data}
        if data is None:
            del tampered.files[path]
        seen = []
        with pytest.raises(error):
            seen.extend(checked_entries(tampered, large.size, large.root, 600))
        assert all(ENTRIES[i] == entry for i, entry in seen)


def test_a_partial_tile_may_have_given_way_to_the_full_one(mth):
    tiles = MemoryTiles(300, 512)
    del tiles.files["tile/0/001.p/44"], tiles.files["tile/entries/001.p/44"]
    reader = HashReader(tiles.read, 300, mth(LEAVES[:300]))
    verify_inclusion(290, 300, LEAVES[290], reader.inclusion(290), reader.root())
    assert len(list(checked_entries(tiles, 300, reader.root()))) == 300


def test_positions_outside_the_tree_are_the_callers_mistake(large):
    reader = HashReader(large.read, large.size)
    for call in (reader.inclusion, reader.consistency, reader.prefix_root):
        for position in (-1, large.size + 1):
            with pytest.raises(Misuse):
                call(position)
