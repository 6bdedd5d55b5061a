"""Many threads, one log: batches form, each caller gets its own proof, and an identity goes in once."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlseal.errors import Misuse, ServiceUnavailable, Unchecked
from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.proofs import HashReader, checked_entries, leaf_hash, verify_inclusion
from mlseal.tlog.tiles import DirectoryTiles
from mlseal.tlog.writer import LogWriter


@pytest.fixture
def writer(tmp_path, origin, key, identity):
    with LogWriter(tmp_path / "log", origin, key, identity_of=identity) as writer:
        yield writer


def test_the_first_entry(writer, origin, raw_key, identity):
    result = writer.append(b"body", identity(b"body"))
    assert (result.index, result.size, result.proof, result.duplicate, result.leaf) == (0, 1, (), False, b"body")
    assert result.root == leaf_hash(b"body")
    assert open_note(result.checkpoint, origin, raw_key).root == result.root
    assert writer.checkpoint() == result.checkpoint


def test_a_repeated_identity_gives_the_first_entry_with_a_proof_of_today(writer, identity):
    first = writer.append(b"same|signed once", identity(b"same"))
    writer.append(b"other", identity(b"other"))
    again = writer.append(b"same|signed twice", identity(b"same"))
    assert (again.index, again.leaf, again.duplicate, again.size) == (0, first.leaf, True, 2)
    verify_inclusion(0, 2, leaf_hash(first.leaf), again.proof, again.root)


def test_a_repeat_within_one_batch(writer, identity):
    a, b, c = writer.append_all(
        [(b"same|1", identity(b"same")), (b"other", identity(b"other")), (b"same|2", identity(b"same"))]
    )
    assert [r.index for r in (a, b, c)] == [0, 1, 0]
    assert [r.duplicate for r in (a, b, c)] == [False, False, True]
    assert c.leaf == b"same|1"


def test_threads_share_batches_and_each_gets_its_own_proof(tmp_path, writer, origin, raw_key, identity):
    def submit(i):
        body = b"%d|" % (i % 700) + bytes(50)  # every identity past 700 is a repeat
        result = writer.append(body, identity(body))
        verify_inclusion(result.index, result.size, leaf_hash(body), result.proof, result.root)
        assert open_note(result.checkpoint, origin, raw_key).root == result.root
        return result

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(submit, range(1000)))
    assert sorted({r.index for r in results}) == list(range(700))
    assert sum(r.duplicate for r in results) == 300
    assert len({r.size for r in results}) < 700  # entries went in together
    now = open_note(writer.checkpoint(), origin, raw_key)
    tiles = DirectoryTiles(tmp_path / "log")
    assert {body for _, body in checked_entries(tiles, now.size, now.root)} == {r.leaf for r in results}
    reader = HashReader(tiles.read, now.size, now.root)
    for result in results:
        assert reader.prefix_root(result.size) == result.root


def test_a_batch_waits_for_those_who_were_there_a_moment_ago(tmp_path, origin, key, identity):
    def submit(thread):
        bodies = [b"%d-%d" % (thread, i) for i in range(5)]
        return [writer.append(body, identity(body)).size for body in bodies]

    with LogWriter(tmp_path / "log", origin, key, identity_of=identity, batch_wait=1) as writer:
        with ThreadPoolExecutor(8) as pool:
            sizes = {size for sizes in pool.map(submit, range(8)) for size in sizes}
    assert len(sizes) < 15  # of 40 entries


def test_a_lone_submitter_waits_for_nobody(tmp_path, origin, key, identity):
    with LogWriter(tmp_path / "log", origin, key, identity_of=identity, batch_wait=60) as writer:
        assert [writer.append(b"%d" % i, identity(b"%d" % i)).size for i in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "body, name",
    [(bytes(65_536), bytes(65_536)), (b"a", b"b"), (b"a", None)],
    ids=["too large", "identity of another", "no digest"],
)
def test_mistakes_of_the_caller(writer, identity, body, name):
    with pytest.raises(Misuse):
        writer.append(body, b"short" if name is None else identity(name))
    assert writer.append(b"next", identity(b"next")).index == 0


def test_nothing_to_append_is_not_a_batch(writer):
    before = writer.checkpoint()
    assert writer.append_all([]) == []
    assert writer.checkpoint() == before


def test_a_closed_writer_says_so(tmp_path, origin, key, identity):
    writer = LogWriter(tmp_path / "log", origin, key, identity_of=identity)
    writer.append(b"a", identity(b"a"))
    writer.close()
    writer.close()
    with pytest.raises(Misuse, match="closed"):
        writer.append(b"b", identity(b"b"))
    with LogWriter(tmp_path / "log", origin, key, identity_of=identity) as writer:
        assert writer.append(b"a", identity(b"a")).duplicate


def test_closing_finishes_what_was_submitted(tmp_path, origin, key, identity):
    writer = LogWriter(tmp_path / "log", origin, key, identity_of=identity, batch_wait=0.05)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(writer.append, b"%d" % i, identity(b"%d" % i)) for i in range(8)]
        writer.close()
        outcomes = [future.exception() or future.result() for future in futures]
    done = [o for o in outcomes if not isinstance(o, Exception)]
    assert all(isinstance(o, Misuse) for o in outcomes if isinstance(o, Exception))
    with LogWriter(tmp_path / "log", origin, key, identity_of=identity) as writer:
        for result in done:
            assert writer.append(result.leaf, identity(result.leaf)).index == result.index


def test_the_second_writer_is_refused_or_waits(tmp_path, writer, origin, key, identity):
    with pytest.raises(ServiceUnavailable, match="another writer"):
        LogWriter(tmp_path / "log", origin, key, identity_of=identity)
    timer = threading.Timer(0.2, writer.close)
    timer.start()
    with LogWriter(tmp_path / "log", origin, key, identity_of=identity, lock_wait=10) as second:
        assert second.append(b"a", identity(b"a")).index == 0
    timer.join()


def test_a_forked_child_is_told_instead_of_waiting_for_ever(writer, identity):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            writer.append(b"a", identity(b"a"))
        except Misuse:
            os.write(write, b"told")
        finally:
            os._exit(0)
    os.close(write)
    assert os.read(read, 10) == b"told"
    os.close(read)
    os.waitpid(child, 0)


def test_trouble_reaches_every_caller_and_ends_with_its_cause(tmp_path, writer, identity):
    writer.append(b"a", identity(b"a"))
    obstacle = tmp_path / "log" / "checkpoint.new"
    obstacle.mkdir()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(writer.append, b"%d" % i, identity(b"%d" % i)) for i in range(4)]
    errors = [future.exception() for future in futures]
    assert all(isinstance(error, Unchecked) for error in errors)
    assert len({id(error) for error in errors}) == 4
    obstacle.rmdir()
    results = [writer.append(b"%d" % i, identity(b"%d" % i)) for i in range(4)]
    assert sorted(r.index for r in results) == [1, 2, 3, 4]
