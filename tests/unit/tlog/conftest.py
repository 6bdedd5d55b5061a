"""What the tests of the log share: a naive tree, one key, and logs in temporary directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.log import TileLog
from mlseal.tlog.proofs import HashReader, checked_entries, leaf_hash, verify_consistency, verify_inclusion
from mlseal.tlog.tiles import DirectoryTiles

ORIGIN = "log.example.org"


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


@pytest.fixture(scope="session")
def mth() -> Callable[[Sequence[bytes]], bytes]:
    return naive_root


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(b"the key of the test log").digest())


@pytest.fixture
def raw_key(key) -> bytes:
    return key.public_key().public_bytes_raw()


@pytest.fixture
def origin() -> str:
    return ORIGIN


@pytest.fixture
def identity() -> Callable[[bytes], bytes]:
    return lambda body: sha256(b"identity of " + body.partition(b"|")[0]).digest()


@pytest.fixture
def open_log(tmp_path: Path, key, identity) -> Iterator[Callable[[], TileLog]]:
    """Opens the log in `tmp_path/log`, having closed the one opened before."""
    opened: list[TileLog] = []

    def open_log() -> TileLog:
        close()
        opened.append(TileLog(tmp_path / "log", ORIGIN, key, identity))
        return opened[-1]

    def close() -> None:
        while opened:
            opened.pop().close()

    open_log.close = close
    yield open_log
    close()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def add(identity):
    """Appends `count` numbered entries, `each` per batch, and returns the results."""

    def add(log, count, start=0, each=7):
        bodies = [b"entry %d|rest" % i for i in range(start, start + count)]
        results = []
        for at in range(0, count, each):
            results += log.append([(body, identity(body)) for body in bodies[at : at + each]])
        return results

    return add


@pytest.fixture
def audit(directory, origin, raw_key):
    """Checks every entry of the log on disk and that all `results` are in it, forever; returns its size."""

    def audit(results=()):
        tiles = DirectoryTiles(directory)
        now = open_note(tiles.read("checkpoint").decode(), origin, raw_key)
        entries = dict(checked_entries(tiles, now.size, now.root))
        reader = HashReader(tiles.read, now.size, now.root)
        for result in results:
            then = open_note(result.checkpoint, origin, raw_key)
            assert (then.size, then.root) == (result.size, result.root)
            verify_inclusion(result.index, result.size, leaf_hash(result.leaf), result.proof, result.root)
            verify_consistency(then.size, now.size, then.root, now.root, reader.consistency(then.size))
            assert entries[result.index] == result.leaf
        return now.size

    return audit
