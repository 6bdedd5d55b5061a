"""Paths and framing of tlog-tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, Unreadable
from mlseal.tlog.tiles import (
    MAX_ENTRY,
    DirectoryTiles,
    entries_path,
    iter_entries,
    join_entries,
    split_entries,
    tile_path,
)


@pytest.mark.parametrize(
    "args, path",
    [
        ((0, 0), "tile/0/000"),
        ((0, 999, 255), "tile/0/999.p/255"),
        ((1, 1000), "tile/1/x001/000"),
        ((0, 1234067, 8), "tile/0/x001/x234/067.p/8"),
        (("entries", 5, 1), "tile/entries/005.p/1"),
    ],
)
def test_paths(args, path):
    assert tile_path(*args) == path


def test_entry_bundles_lie_beside_the_tiles():
    assert entries_path(1234067) == "tile/entries/x001/x234/067"


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_framing_loses_nothing(entries):
    assert split_entries(join_entries(entries)) == entries


@given(st.binary(max_size=100))
def test_any_bytes_split_or_are_refused(data):
    try:
        entries = split_entries(data)
    except MalformedEvidence:
        return
    assert join_entries(entries) == data


def test_the_length_has_sixteen_bits():
    assert split_entries(join_entries([bytes(MAX_ENTRY)])) == [bytes(MAX_ENTRY)]
    with pytest.raises(Misuse, match="65536"):
        join_entries([bytes(MAX_ENTRY + 1)])


@pytest.mark.parametrize(
    "path",
    [
        "journal",
        "lock",
        "identities.sqlite",
        "../secret",
        "tile/0/../../../secret",
        "tile/0/000/../000",
        "tile/00/000",
        "tile/0/0000",
        "tile/0/000.p/0",
        "tile/0/000.p/08",
        "tile/0/x1/000",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/\u0661\u0661\u0661",
        "",
    ],
)
def test_no_other_file_is_ever_read(tmp_path, path):
    (tmp_path / "log" / "tile" / "0").mkdir(parents=True)
    for name in ("secret", "log/journal", "log/lock", "log/identities.sqlite", "log/tile/0/000"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileNotFoundError):
        DirectoryTiles(tmp_path / "log").read(path)


def test_reading_tells_absent_from_unreadable(tmp_path):
    tiles = DirectoryTiles(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"note")
    assert tiles.read("checkpoint") == b"note"
    with pytest.raises(FileNotFoundError):
        tiles.read("tile/0/000")
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").symlink_to("checkpoint")
    with pytest.raises(Unreadable):
        tiles.read("checkpoint")


def test_entries_are_read_from_any_start(tmp_path):
    entries = [b"%d" % i for i in range(600)]
    for n, path in enumerate((entries_path(0), entries_path(1), entries_path(2, 88))):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(join_entries(entries[256 * n : 256 * n + 256]))
    tiles = DirectoryTiles(tmp_path)
    for start in (0, 1, 255, 256, 599, 600):
        assert list(iter_entries(tiles, 600, start)) == list(enumerate(entries))[start:]
    with pytest.raises(Unreadable):
        list(iter_entries(tiles, 601))
    (tmp_path / entries_path(1)).write_bytes(join_entries(entries[:255]))
    with pytest.raises(ForgedEvidence):
        list(iter_entries(tiles, 600))
