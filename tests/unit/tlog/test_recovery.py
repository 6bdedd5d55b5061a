"""Opening a log again: after a crash it goes on, after tampering it refuses, and never do its checkpoints fork."""

from __future__ import annotations

import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mlseal.errors import (
    ForgedEvidence,
    Misuse,
    Refusal,
    ServiceUnavailable,
    SplitView,
    Unchecked,
    Unreadable,
    UntrustedSigner,
)
from mlseal.tlog.checkpoint import Checkpoint, open_note, sign
from mlseal.tlog.edge import read_edge
from mlseal.tlog.journal import Journal, Record
from mlseal.tlog.log import TileLog
from mlseal.tlog.tiles import DirectoryTiles


def test_a_new_log_is_empty_and_signed(open_log, audit, directory):
    open_log()
    assert audit() == 0
    open_log.close()
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint", "identities.sqlite", "journal", "lock"]


@pytest.mark.parametrize("settled", [False, True])
def test_closing_and_opening_changes_nothing(open_log, add, audit, settled):
    log = open_log()
    results = add(log, 300)
    if settled:
        log.settle()
    before = log.checkpoint()
    log = open_log()
    assert log.checkpoint() == before
    results += add(log, 60, 300, each=1)
    assert audit(results) == 360
    again = add(log, 360)
    assert all(result.duplicate and result.index == i for i, result in enumerate(again))
    assert audit(results + again) == 360


def test_every_size_settles(open_log, add, audit):
    log = open_log()
    results = []
    for start in range(0, 530, 53):
        results += add(log, 53, start)
        log.settle()
        log = open_log()
    assert audit(results) == 530


def test_full_tiles_replace_partial_ones_but_for_those_recovery_needs(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 100)
    log.settle()
    results += add(log, 500, 100)
    assert [path.name for path in (directory / "tile/0/000.p").iterdir()] == ["100"]
    assert [path.name for path in (directory / "tile/entries/000.p").iterdir()] == ["100"]
    assert not (directory / "tile/0/001.p").exists()
    assert (directory / "tile/0/002.p/88").exists()
    log.settle()
    assert not (directory / "tile/0/000.p").exists()
    assert not (directory / "tile/entries/000.p").exists()
    assert audit(results) == 600


def test_a_crash_before_the_tiles_settled_loses_nothing(open_log, add, audit, directory):
    """What a loss of power can leave: the journal, and any of the files behind it torn, empty or gone."""
    log = open_log()
    results = add(log, 100)
    log.settle()
    results += add(log, 500, 100)
    open_log.close()
    for path in (directory / "tile").rglob("*"):
        if path.is_file() and path.name != "100":
            path.write_bytes(path.read_bytes()[:17])
    shutil.rmtree(directory / "tile/entries/002.p")
    (directory / "tile/entries/001").unlink()
    (directory / "checkpoint").write_bytes(b"\0" * 100)
    open_log()
    assert audit(results) == 600


def test_killed_between_settling_and_the_new_journal(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 100)
    log.settle()
    results += add(log, 300, 100)
    journal = (directory / "journal").read_bytes()
    log.settle()
    open_log.close()
    (directory / "journal").write_bytes(journal)
    log = open_log()
    results += add(log, 300, 400)
    assert audit(results) == 700


@pytest.mark.parametrize("cut", [1, 30, 36, 37, 500])
def test_an_unfinished_journal_record_was_never_acknowledged(open_log, add, audit, directory, cut):
    log = open_log()
    kept = add(log, 20, each=20)
    published, size = log.checkpoint(), (directory / "journal").stat().st_size
    tiles = directory / "tile"
    shutil.copytree(tiles, directory.parent / "saved")
    add(log, 20, 20, each=20)
    open_log.close()
    # Put back to the moment of the second flush: nothing but the journal has changed, and that not wholly.
    shutil.rmtree(tiles)
    (directory.parent / "saved").rename(tiles)
    (directory / "checkpoint").write_text(published)
    journal = (directory / "journal").read_bytes()
    (directory / "journal").write_bytes(journal[: size + cut])
    log = open_log()
    assert log.checkpoint() == published
    assert audit(kept + add(log, 5, 20)) == 25


def test_a_flushed_but_unpublished_batch_is_published(open_log, add, audit, directory):
    log = open_log()
    add(log, 20, each=20)
    published = (directory / "checkpoint").read_text()
    results = add(log, 20, 20, each=20)
    open_log.close()
    (directory / "checkpoint").write_text(published)
    open_log()
    assert audit(results) == 40


def test_a_deleted_checkpoint_is_published_again(open_log, add, audit, directory):
    results = add(open_log(), 20)
    open_log.close()
    (directory / "checkpoint").unlink()
    open_log()
    assert audit(results) == 20


def test_journal_put_back(open_log, add, directory):
    log = open_log()
    add(log, 20)
    old = (directory / "journal").read_bytes()
    add(log, 20, 20)
    open_log.close()
    (directory / "journal").write_bytes(old)
    with pytest.raises(SplitView, match="older than its published checkpoint"):
        open_log()


@pytest.mark.parametrize("sizes", [(20, 40), (200, 300), (256, 257), (256, 512), (250, 600)])
def test_journal_and_checkpoint_put_back(open_log, add, directory, sizes):
    first, second = sizes
    log = open_log()
    add(log, first)
    old = [(directory / name, (directory / name).read_bytes()) for name in ("journal", "checkpoint")]
    add(log, second - first, first)
    open_log.close()
    for path, data in old:
        path.write_bytes(data)
    with pytest.raises(SplitView, match="newer than its last checkpoint"):
        open_log()


def test_journal_deleted_and_checkpoint_put_back(open_log, add, directory):
    log = open_log()
    add(log, 20)
    old = (directory / "checkpoint").read_bytes()
    add(log, 20, 20)
    open_log.close()
    (directory / "journal").unlink()
    (directory / "checkpoint").write_bytes(old)
    with pytest.raises(SplitView, match="newer than its last checkpoint"):
        open_log()


def test_journal_and_checkpoint_deleted(open_log, add, directory):
    add(open_log(), 20)
    open_log.close()
    (directory / "journal").unlink()
    (directory / "checkpoint").unlink()
    with pytest.raises(ForgedEvidence, match="neither checkpoint nor journal"):
        open_log()


def test_a_mirror_is_taken_into_use(open_log, add, audit, directory):
    results = add(open_log(), 300)
    open_log.close()
    for name in ("journal", "identities.sqlite", "lock"):
        (directory / name).unlink()
    log = open_log()
    again = add(log, 1, 5)
    assert (again[0].index, again[0].duplicate) == (5, True)
    assert audit(results + add(log, 300, 300)) == 600


@pytest.mark.parametrize("path", ["tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88", "checkpoint"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_to_what_had_settled(open_log, add, directory, path, damage):
    log = open_log()
    add(log, 600)
    log.settle()
    open_log.close()
    target, data = directory / path, (directory / path).read_bytes()
    if damage == "gone" and path == "checkpoint":
        (directory / "journal").unlink()
    if damage == "gone":
        target.unlink()
    else:
        target.write_bytes(data[:-1] if damage == "cut" else data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(Unreadable if damage == "gone" and path != "checkpoint" else Refusal):
        open_log()


def test_a_checkpoint_by_the_same_key_of_another_tree(open_log, add, directory, key, origin):
    add(open_log(), 20)
    open_log.close()
    (directory / "checkpoint").write_text(sign(key, Checkpoint(origin, 10, bytes(32))))
    with pytest.raises(SplitView, match="not part of this log"):
        open_log()


def test_another_key_or_origin_does_not_go_on(open_log, add, directory, key, identity):
    add(open_log(), 20)
    open_log.close()
    with pytest.raises(UntrustedSigner):
        TileLog(directory, "log2.example.org", key, identity)
    with pytest.raises(UntrustedSigner):
        TileLog(directory, "log.example.org", Ed25519PrivateKey.generate(), identity)


@pytest.fixture(scope="module")
def journalled(tmp_path_factory):
    """A log of four batches, all in its journal."""
    directory, identity = tmp_path_factory.mktemp("journalled") / "log", lambda body: bytes(31) + body
    key = Ed25519PrivateKey.generate()
    log = TileLog(directory, "log.example.org", key, identity)
    for body in (b"0", b"1", b"2", b"3"):
        log.append([(body, identity(body))])
    log.close()
    return lambda: TileLog(directory, "log.example.org", key, identity).close(), directory / "journal"


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_altered_byte_of_the_journal_is_found(journalled, data):
    """Either as an altered record, or, as the last counts as unfinished then, by what was published since."""
    reopen, path = journalled
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(altered)
    try:
        with pytest.raises(Refusal):
            reopen()
    finally:
        path.write_bytes(whole)
    reopen()


def test_a_journal_whose_batch_does_not_make_its_root(open_log, add, directory, key, origin):
    add(open_log(), 5)
    open_log.close()
    journal, _ = Journal.load(directory / "journal")
    journal.append(Record(sign(key, Checkpoint(origin, 6, bytes(32))), (b"x",)))
    journal.close()
    with pytest.raises(SplitView, match="do not make the root"):
        open_log()


def test_one_writer_at_a_time(open_log, directory, key, origin, identity):
    open_log()
    with pytest.raises(ServiceUnavailable, match="another writer"):
        TileLog(directory, origin, key, identity)
    open_log.close()
    TileLog(directory, origin, key, identity).close()


def test_a_directory_that_cannot_be_made(tmp_path, key, origin, identity):
    (tmp_path / "file").touch()
    with pytest.raises(Unchecked, match="cannot be written"):
        TileLog(tmp_path / "file" / "log", origin, key, identity)


# ---- trouble while appending ---------------------------------------------------------------------------------------


def test_a_tile_that_cannot_be_written_is_not_published_and_not_lost(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 255)
    before = log.checkpoint()
    obstacle = directory / "tile/1"
    obstacle.write_bytes(b"in the way")
    with pytest.raises(Unchecked, match="cannot be written"):
        add(log, 1, 255)
    assert (directory / "checkpoint").read_text() == before
    with pytest.raises(Unchecked):
        log.checkpoint()
    obstacle.unlink()
    [again] = add(log, 1, 255)
    assert (again.index, again.duplicate) == (255, True)
    assert audit([*results, again, *add(log, 10, 256)]) == 266


def test_a_failure_while_settling_is_not_lost_either(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 300)
    obstacle = directory / "journal.new"
    obstacle.mkdir()
    with pytest.raises(Unchecked):
        log.settle()
    obstacle.rmdir()
    log.settle()
    assert audit(results + add(log, 300, 300)) == 600


def test_an_entry_that_is_too_large_stops_its_batch_only(open_log, add, audit, identity):
    log = open_log()
    results = add(log, 3)
    with pytest.raises(Misuse, match="too large"):
        log.append([(b"fine", identity(b"fine")), (bytes(65_536), identity(bytes(65_536)))])
    results += log.append([(b"x|" + bytes(65_533), identity(b"x|"))])
    assert audit(results) == 4


def test_edges_read_from_disk_are_those_in_memory(open_log, add, directory, origin, raw_key):
    log = open_log()
    for start in range(0, 1100, 100):
        add(log, 100, start, each=100)
        now = open_note(log.checkpoint(), origin, raw_key)
        edge = read_edge(DirectoryTiles(directory), now.size, now.root)
        assert edge.grow([b"next"]).tree().root() == log._state.edge.grow([b"next"]).tree().root()
        assert edge == log._state.edge


def test_appending_goes_on_while_the_log_settles(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 300, each=100)
    log._begin_settling()
    results += add(log, 300, 300, each=100)
    assert all(result.duplicate for result in add(log, 600, each=200))
    log._finish_settling()
    results += add(log, 100, 600, each=100)
    before = (directory / "journal").stat().st_size
    log = open_log()
    assert audit(results) == 700
    log.settle()
    assert (directory / "journal").stat().st_size < before


def test_closed_while_the_log_settles(open_log, add, audit, directory):
    log = open_log()
    results = add(log, 300, each=100)
    log._begin_settling()
    results += add(log, 300, 300, each=100)
    open_log()
    assert audit(results) == 600


def test_a_long_journal_settles_by_itself(open_log, add, audit, directory):
    log = open_log()
    results, longest = [], 0
    for start in range(0, 400, 20):
        results += add(log, 20, start, each=20)
        log.tidy(settle_at=1000)
        longest = max(longest, (directory / "journal").stat().st_size)
    assert longest < 6000  # four times what was asked for, and a batch
    assert audit(results) == 400
