"""Real processes, really killed, on disks that are really full: what was acknowledged is there afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.exchange import exchange
from mlseal.tlog.files import LogFiles
from mlseal.tlog.proofs import HashReader, checked_entries, verify_consistency
from mlseal.tlog.tiles import DirectoryTiles
from mlseal.tlog.writer import LogWriter

WRITER = """
    import json, resource, sys, threading
    from hashlib import sha256
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from mlseal.errors import Unchecked
    from mlseal.tlog.writer import LogWriter

    directory, origin, key, run, limit = sys.argv[1:]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key))
    identity = lambda body: sha256(b"identity of " + body.partition(b"|")[0]).digest()
    writer = LogWriter(directory, origin, key, identity_of=identity, settle_at=30_000)
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    out = threading.Lock()

    def say(**said):
        with out:
            print(json.dumps(said), flush=True)

    def submit(thread):
        for i in range(10_000):
            body = f"{run}-{thread}-{i}|".encode() + bytes(200)
            try:
                result = writer.append(body, identity(body))
            except Unchecked as error:
                return say(error=str(error))
            say(body=body.hex(), index=result.index, note=result.checkpoint)

    threads = [threading.Thread(target=submit, args=(n,)) for n in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    body = f"{run}-after".encode()
    result = writer.append(body, identity(body))
    say(body=body.hex(), index=result.index, note=result.checkpoint)
"""


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def start(directory, origin, key):
    """Starts a process that appends without end; `limit` bounds the size of each file that it writes."""

    def start(run, limit=0):
        arguments = [str(directory), origin, key.private_bytes_raw().hex(), str(run), str(limit)]
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start


@pytest.fixture
def check(directory, origin, raw_key):
    """Checks that the log on disk holds all that was `said`, under every checkpoint that was."""

    def check(said):
        tiles = DirectoryTiles(directory)
        now = open_note(tiles.read("checkpoint").decode(), origin, raw_key)
        entries = [entry for _, entry in checked_entries(tiles, now.size, now.root)]
        assert len(set(entries)) == len(entries)
        reader = HashReader(tiles.read, now.size, now.root)
        for note in {line["note"] for line in said}:
            then = open_note(note, origin, raw_key)
            verify_consistency(then.size, now.size, then.root, now.root, reader.consistency(then.size))
        for line in said:
            assert entries[line["index"]].hex() == line["body"]

    return check


def whole_lines(output):
    """What the process said before it died; the last line may be torn."""
    return [json.loads(line) for line in output.split(b"\n")[:-1]]


def test_killed_at_any_moment(start, check, directory, origin, key, identity):
    moments = random.Random()  # a new draw each run; the log must not care
    said = []
    for run in range(8):
        process = start(run)
        head = process.stdout.readline()  # it has opened the log, after whatever the kill before left behind
        assert head, process.stderr.read().decode()
        try:
            process.wait(moments.uniform(0, 0.25))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        said += whole_lines(head + process.communicate()[0])
        if run % 3 == 2:
            with LogWriter(directory, origin, key, identity_of=identity):
                check(said)
    with LogWriter(directory, origin, key, identity_of=identity) as writer:
        check(said)
        for line in said[-20:]:
            body = bytes.fromhex(line["body"])
            assert writer.append(body, identity(body)).index == line["index"]
    assert len(said) > 50


@pytest.mark.parametrize("limit", [2_000, 9_000, 20_000, 29_000])
def test_no_more_space(start, check, limit):
    """Each file may grow to `limit` only: the journal, a bundle or the identity map is the first to fail."""
    process = start("full", limit)
    output, errors = process.communicate(timeout=60)
    said = whole_lines(output)
    refused = [line["error"] for line in said if "error" in line]
    assert len(refused) == 6, errors.decode()  # every thread was told
    assert all("cannot be written" in error and "remedy: free space" in error for error in refused)
    assert process.returncode == 0, errors.decode()  # with space again, the same writer goes on
    appended = [line for line in said if "error" not in line]
    assert bytes.fromhex(appended[-1]["body"]) == b"full-after"
    check(appended)


def test_two_processes_do_not_write_at_once(start, check):
    first = start(1)
    head = first.stdout.readline()
    second = start(2)
    output, errors = second.communicate(timeout=60)
    first.send_signal(signal.SIGKILL)
    assert output == b""
    assert second.returncode != 0
    assert b"ServiceUnavailable: another writer holds the log" in errors
    check(whole_lines(head + first.communicate()[0]))


def test_the_disk_is_asked_before_anyone_is_told(directory, origin, key, identity, monkeypatch):
    """The order of flush, publication and answer, as the system sees it."""
    seen = []
    flush, publish = os.fdatasync, LogFiles.publish
    monkeypatch.setattr(os, "fdatasync", lambda handle: (flush(handle), seen.append("flushed"))[0])
    monkeypatch.setattr(LogFiles, "publish", lambda files, note: (publish(files, note), seen.append("published"))[0])
    with LogWriter(directory, origin, key, identity_of=identity) as writer:
        seen.clear()
        writer.append(b"a", identity(b"a"))
        seen.append("answered")
    assert seen == ["flushed", "published", "answered"]


def test_a_reader_always_finds_a_whole_checkpoint(directory, origin, key, raw_key, identity):
    """Publishing is one step for others: there is never no checkpoint, half of one, or one that goes back."""
    with LogWriter(directory, origin, key, identity_of=identity) as writer:
        tiles, sizes, stop = DirectoryTiles(directory), [0], threading.Event()

        def read():
            while not stop.is_set():
                sizes.append(open_note(tiles.read("checkpoint").decode(), origin, raw_key).size)

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            for i in range(300):
                writer.append(b"%d" % i, identity(b"%d" % i))
            stop.set()
            reading.result()
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 10


def test_exchanging_names_where_it_cannot_be_done(tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    assert not exchange(tmp_path / "one", tmp_path / "absent")
    (tmp_path / "other").write_bytes(b"2")
    if exchange(tmp_path / "one", tmp_path / "other"):
        assert (tmp_path / "one").read_bytes() == b"2"
    assert {(tmp_path / name).read_bytes() for name in ("one", "other")} == {b"1", b"2"}
