"""A tile log for one thread: batches in, durable and published entries with proofs out.

`writer.LogWriter` puts a queue before it. The order within a batch is what the guarantees rest on:

    grow in memory ─▶ sign ─▶ journal, flushed ─▶ tiles ─▶ checkpoint published ─▶ caller told
                              └─ from here on the batch survives anything
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.errors import Unchecked
from mlseal.tlog.checkpoint import Checkpoint, open_note, sign
from mlseal.tlog.files import LogFiles
from mlseal.tlog.hashing import EMPTY_ROOT
from mlseal.tlog.identities import Identities, IdentityOf
from mlseal.tlog.journal import Journal, Record
from mlseal.tlog.lock import WriterLock
from mlseal.tlog.proofs import HashReader, checked_entries
from mlseal.tlog.recovery import Recovered, recover
from mlseal.tlog.tiles import iter_entries
from mlseal.tlog.tree import Tree

SETTLE_AT = 8 << 20
"""Bytes of journal after which tiles are made durable and the journal starts anew; bounds the time to recover."""

IDENTITIES = "identities.sqlite"
"""File of the identity map, beside the log."""

Entry = tuple[bytes, bytes]
"""Body and identity."""


_Proven = tuple[int, tuple[bytes, ...], bytes]
"""Index, inclusion proof and bytes of an entry."""


@dataclass(frozen=True)
class Appended:
    """An entry that is in the log, durable and published, with the proof of it."""

    index: int
    size: int
    """Size of the tree that `proof` and `checkpoint` are about."""
    root: bytes
    proof: tuple[bytes, ...]
    checkpoint: str
    """The signed note."""
    leaf: bytes
    """The entry's bytes as the log holds them: for a duplicate, those of the first."""
    duplicate: bool
    """Whether the log had an entry with this identity before."""


class TileLog:
    """The log in `directory`, opened for writing. For one thread.

    Guarantees: what `append` returned survives a kill and a loss of power; checkpoints form one history; an identity
    is appended once. After an error nothing is assumed: the next call recovers from disk first.

    Raises (all methods):
        Refusal: the directory contradicts itself; see `recovery`.
        ServiceUnavailable: another writer holds the log.
        Unchecked: the disk is full or fails.
    """

    def __init__(
        self, directory: Path, origin: str, key: Ed25519PrivateKey, identity_of: IdentityOf, *, lock_wait: float = 0.0
    ) -> None:
        self._origin = origin
        self._key = key
        self._raw_key = key.public_key().public_bytes_raw()
        self._identity_of = identity_of
        self._files = LogFiles(directory)
        self._state: Recovered | None = None
        self._identities: Identities | None = None
        with _ours(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(directory, lock_wait)
        try:
            self._ready()
        except BaseException:
            self.close()
            raise

    def checkpoint(self) -> str:
        """The last published note."""
        return self._ready()[0].note

    def append(self, batch: Sequence[Entry]) -> list[Appended]:
        """Append the entries whose identity is new, look up the others; one result each, in order."""
        state, identities = self._ready()
        try:
            with _ours(self._files.path):
                return self._append(batch, state, identities)
        except BaseException:
            self._forget()
            raise

    def settle(self, *, beyond: int = SETTLE_AT) -> None:
        """Start the journal anew, once all that it covers is durable, if it is longer than `beyond` bytes."""
        state, identities = self._ready()
        if state.journal.size <= beyond:
            return
        try:
            with _ours(self._files.path):
                self._files.settle(state.note, state.edge.size)
                identities.settle(state.edge.size, state.root)
                fresh = Journal.create(state.journal.path, state.note)
        except BaseException:
            self._forget()
            raise
        state.journal.close()
        state.journal = fresh

    def close(self) -> None:
        """Let another writer in. Nothing is lost by not calling this."""
        self._forget()
        self._lock.close()

    def _ready(self) -> tuple[Recovered, Identities]:
        """The log's state, recovered from disk when it is not known."""
        if self._state is None or self._identities is None:
            try:
                with _ours(self._files.path):
                    self._state = recover(self._files, self._open_own, lambda: self._sign(0, EMPTY_ROOT))
                    self._identities = self._recover_identities(self._state)
            except BaseException:
                self._forget()
                raise
        return self._state, self._identities

    def _forget(self) -> None:
        if self._state is not None:
            with suppress(OSError):
                self._state.journal.close()
        if self._identities is not None:
            with suppress(sqlite3.Error):
                self._identities.close()
        self._state = self._identities = None

    def _recover_identities(self, state: Recovered) -> Identities:
        """The identity map, caught up with the log; from nothing when it is not a map of this log."""
        identities = Identities(self._files.path / IDENTITIES, self._identity_of)
        try:
            reader = HashReader(self._files.read, state.edge.size, state.root)
            covered, root = identities.extent()
            if covered > state.edge.size or (covered and reader.prefix_root(covered) != root):
                identities.reset()
                covered = 0
            entries = checked_entries(self._files, state.edge.size, state.root, covered)
            identities.catch_up(entries, reader.prefix_root)
        except BaseException:
            identities.close()
            raise
        return identities

    def _append(self, batch: Sequence[Entry], state: Recovered, identities: Identities) -> list[Appended]:
        held = self._held(batch, state, identities)
        fresh: dict[bytes, bytes] = {}
        for body, identity in batch:
            if identity not in held:
                fresh.setdefault(identity, body)
        proven: dict[bytes, _Proven] = {}
        if fresh:
            first = state.edge.size
            tree = self._commit(fresh, state, identities)
            for index, (identity, body) in enumerate(fresh.items(), first):
                proven[identity] = index, tree.path(0, index), body
        if held:
            reader = HashReader(self._files.read, state.edge.size, state.root)
            for identity, (index, body) in held.items():
                proven[identity] = index, reader.inclusion(index), body
        results = []
        for _, identity in batch:
            duplicate = fresh.pop(identity, None) is None
            index, proof, leaf = proven[identity]
            results.append(Appended(index, state.edge.size, state.root, proof, state.note, leaf, duplicate))
        return results

    def _held(self, batch: Sequence[Entry], state: Recovered, identities: Identities) -> dict[bytes, tuple[int, bytes]]:
        """Index and bytes of the entry that carries each identity of `batch` already.

        A map that names an entry with another identity is built anew.
        """
        found = {identity: index for _, identity in batch if (index := identities.find(identity)) is not None}
        if not found:
            return {}
        reader = HashReader(self._files.read, state.edge.size, state.root)
        held = {}
        for identity, index in found.items():
            entry = self._entry(index, reader)
            if entry is None or identities.identify(index, entry) != identity:
                identities.reset()
                entries = checked_entries(self._files, state.edge.size, state.root)
                identities.catch_up(entries, reader.prefix_root)
                return self._held(batch, state, identities)
            held[identity] = index, entry
        return held

    def _commit(self, fresh: Mapping[bytes, bytes], state: Recovered, identities: Identities) -> Tree:
        """Make `fresh` (identity to body) durable, then public; `state` is the log's new state when this returns."""
        bodies = tuple(fresh.values())
        growth = state.edge.grow(bodies)
        tree = growth.tree()
        note = self._sign(tree.size, tree.root())
        state.journal.append(Record(note, bodies))
        for path, data in growth.files():
            self._files.write(path, data)
        self._files.publish(note)
        for index, identity in enumerate(fresh, state.edge.size):
            identities.remember(identity, index)
        state.edge, state.root, state.note = growth.edge, tree.root(), note
        return tree

    def _entry(self, index: int, reader: HashReader) -> bytes | None:
        """Entry `index`, compared with its leaf in the tree; None behind the tree."""
        if index >= reader.size:
            return None
        _, entry = next(iter_entries(self._files, reader.size, index))
        reader.check_entry(index, entry)
        return entry

    def _sign(self, size: int, root: bytes) -> str:
        return sign(self._key, Checkpoint(self._origin, size, root))

    def _open_own(self, note: str) -> Checkpoint:
        return open_note(note, self._origin, self._raw_key)


@contextmanager
def _ours(directory: Path) -> Iterator[None]:
    """Turns failures of the disk and of the identity map into one of our errors."""
    try:
        yield
    except OSError as error:
        raise _unwritable(directory, error.strerror or str(error)) from error
    except sqlite3.Error as error:
        if not isinstance(error, sqlite3.OperationalError):  # damaged, not just unwritable: it can be built anew
            (directory / IDENTITIES).unlink(missing_ok=True)
        raise _unwritable(directory, str(error)) from error


def _unwritable(directory: Path, reason: str) -> Unchecked:
    return Unchecked(
        f"the log {directory} cannot be written",
        got=reason,
        remedy="free space or mend the disk, then try again; an entry that did get in is found, not appended twice",
    )
