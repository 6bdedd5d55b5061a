"""A tile log for one thread: batches in, durable and published entries with proofs out.

`writer.LogWriter` puts a queue before it. The order within a batch is what the guarantees rest on:

    grow in memory ─▶ sign ─▶ journal, flushed ─▶ tiles ─▶ checkpoint published ─▶ caller told
                              └─ from here on the batch survives anything
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.errors import Unchecked
from mlseal.tlog.checkpoint import Checkpoint, open_note, sign
from mlseal.tlog.files import LogFiles
from mlseal.tlog.hashing import EMPTY_ROOT
from mlseal.tlog.identities import Identities, IdentityOf, is_damage, remove
from mlseal.tlog.journal import Journal, Record
from mlseal.tlog.lock import WriterLock
from mlseal.tlog.proofs import HashReader, checked_entries
from mlseal.tlog.recovery import Recovered, recover
from mlseal.tlog.tiles import iter_entries
from mlseal.tlog.tree import Tree

SETTLE_AT = 8 << 20
"""Bytes of journal after which tiles are made durable and it starts anew; bounds the work of the next opening."""

SETTLE_ENTRIES = 1 << 14
"""Entries in the journal after which the same is done."""

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
        self._settling: _Settling | None = None
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

    def tidy(self, settle_at: int = SETTLE_AT) -> None:
        """Keep the journal short: settle in the background once it is longer than `settle_at` bytes.

        To be called after each batch. Waits only when the disk is so slow that the journal has grown fourfold.
        """
        state, _ = self._ready()
        entries = state.edge.size - state.settled
        if self._settling is None:
            if state.journal.size > settle_at or entries > SETTLE_ENTRIES:
                self._begin_settling()
        elif self._settling.done() or state.journal.size > 4 * settle_at or entries > 4 * SETTLE_ENTRIES:
            self._finish_settling()

    def settle(self) -> None:
        """Make all files durable and start the journal anew, now."""
        if self._settling is None:
            self._begin_settling()
        self._finish_settling()

    def _begin_settling(self) -> None:
        state, identities = self._ready()
        size = state.edge.size
        files, identified = self._files.settling(size), identities.settling(size, state.root)
        self._settling = _Settling(size, state.note, (files, identified))

    def _finish_settling(self) -> None:
        state, _ = self._ready()
        settling, self._settling = self._settling, None
        if settling is None:
            return
        try:
            with _ours(self._files.path):
                settling.wait()
                fresh = Journal.create(state.journal.path, settling.note, settling.since)
        except BaseException:
            self._forget()
            raise
        state.journal.close()
        state.journal, state.settled = fresh, settling.size
        self._files.start_from(settling.size)

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
        if self._settling is not None:
            with suppress(Exception):  # whatever it was, the journal stands and recovery starts from it
                self._settling.wait()
            self._settling = None
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
        found = identities.find({identity for _, identity in batch})
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
        record = Record(note, bodies)
        state.journal.append(record)
        if self._settling is not None:
            self._settling.since.append(record)
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


class _Settling:
    """Files and identities on their way to the disk, in a thread of their own.

    Args:
        size: entries that they are of.
        note: checkpoint of that size, which the next journal starts from.
        work: what to do.
    """

    def __init__(self, size: int, note: str, work: Sequence[Callable[[], None]]) -> None:
        self.size = size
        self.note = note
        self.since: list[Record] = []
        """Batches appended meanwhile, which the next journal has to hold."""
        self._work = work
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, name="log settling", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the work; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for work in self._work:
                work()
        except Exception as error:  # noqa: BLE001  handed to the thread that waits
            self._error = error


@contextmanager
def _ours(directory: Path) -> Iterator[None]:
    """Turns failures of the disk and of the identity map into one of our errors."""
    try:
        yield
    except OSError as error:
        raise _unwritable(directory, error.strerror or str(error)) from error
    except sqlite3.Error as error:
        if is_damage(error):  # the next opening builds it anew
            remove(directory / IDENTITIES)
        raise _unwritable(directory, str(error)) from error


def _unwritable(directory: Path, reason: str) -> Unchecked:
    return Unchecked(
        f"the log {directory} cannot be written",
        got=reason,
        remedy="free space or mend the disk, then try again; an entry that did get in is found, not appended twice",
    )
