"""The log's front door for many threads: submissions that arrive together share one flush (group commit).

While one batch is on its way to the disk the next gathers behind it, so the more submit, the larger the batches. A
batch waits a few milliseconds for as many as were there a moment ago; a lone submitter never waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.errors import Error, Misuse, Unchecked
from mlseal.tlog.identities import IDENTITY_SIZE, IdentityOf
from mlseal.tlog.log import SETTLE_AT, Appended, Entry, TileLog
from mlseal.tlog.tiles import MAX_ENTRY

__all__ = ["Appended", "LogWriter"]

MAX_BATCH = 1024
"""Most submissions in one batch."""


class LogWriter:
    """The one writer of the log in `directory`, which is made when absent.

    Guarantees: what `append` returned is durable and public, and stays so after a kill or a loss of power; all
    checkpoints ever returned belong to one history; an identity is appended once. Safe for threads; not for `fork`.

    Args:
        directory: holds `checkpoint` and `tile/`, to be served as they are, and the writer's own `journal`,
            `identities.sqlite` and `lock`.
        origin: name of the log, never to be used with another key.
        key: the log's key.
        identity_of: the identity that an entry's bytes carry, by which the identity map can be built again.
        batch_wait: most seconds that a batch waits for submitters who were there a moment ago; see above.
        lock_wait: seconds to wait for another writer to finish.
        settle_at: bytes of journal after which it starts anew; bounds the work of the next opening.

    Raises:
        Refusal: the directory does not reproduce what was signed; see `recovery`.
        ServiceUnavailable: another writer holds the log.
        Unchecked: the directory cannot be written.
    """

    def __init__(
        self,
        directory: str | Path,
        origin: str,
        key: Ed25519PrivateKey,
        *,
        identity_of: IdentityOf,
        batch_wait: float = 0.005,
        lock_wait: float = 0.0,
        settle_at: int = SETTLE_AT,
    ) -> None:
        self._identity_of = identity_of
        self._batch_wait = batch_wait
        self._settle_at = settle_at
        self._log = TileLog(Path(directory), origin, key, identity_of, lock_wait=lock_wait)
        self._note = self._log.checkpoint()
        self._process = os.getpid()
        self._queue: SimpleQueue[_Submission | None] = SimpleQueue()
        self._gate = Lock()
        self._closed = False
        self._thread = Thread(target=self._run, name=f"log {origin}", daemon=True)
        self._thread.start()

    def append(self, body: bytes, identity: bytes) -> Appended:
        """Append one entry, or find the one that carries the same identity already; see `append_all`."""
        return self.append_all([(body, identity)])[0]

    def append_all(self, entries: Sequence[Entry]) -> list[Appended]:
        """Append several entries in one batch, all or none; waits until they are durable and published.

        A repeated identity, here or in the log, is not appended again: the result is the first entry, with its own
        bytes and `duplicate` set.

        Raises:
            Misuse: an entry is too large, does not carry its identity, or the writer is closed.
            Refusal: the log no longer reproduces what it signed.
            Unchecked: the disk is full or fails. The entries may or may not be in the log; try again.
        """
        for body, identity in entries:
            self._check(body, identity)
        submission = _Submission(entries)
        if os.getpid() != self._process:
            raise Misuse("the log was opened by the parent of this process", remedy="submit through the service")
        with self._gate:
            if self._closed:
                raise Misuse("the log is closed", remedy="open it again")
            self._queue.put(submission)
        return submission.result()

    def checkpoint(self) -> str:
        """The last published note."""
        return self._note

    def close(self) -> None:
        """Finish what was submitted, then let another writer in. May be called twice."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, body: bytes, identity: bytes) -> None:
        if len(body) > MAX_ENTRY:
            raise Misuse("entry is too large for the log", got=f"{len(body)} bytes", expected=f"at most {MAX_ENTRY}")
        if len(identity) != IDENTITY_SIZE or self._identity_of(body) != identity:
            raise Misuse("entry does not carry the identity it is submitted under", got=identity.hex())

    def _run(self) -> None:
        try:
            expected = 1
            while batch := self._gather(expected):
                expected = self._serve(batch)
        finally:
            self._log.close()

    def _gather(self, expected: int) -> list[_Submission]:
        """The submissions that have come, at least one, or none when the writer is closed.

        If fewer than `expected` have come, the others get up to `batch_wait` seconds to join: those who were answered
        a moment ago are likely to be back with their next entry, and two half batches cost two flushes.
        """
        batch: list[_Submission] = []
        deadline = None
        while len(batch) < MAX_BATCH:
            wait = 0.0 if deadline is None else deadline - time.monotonic()
            try:
                if len(batch) < expected and wait > 0:
                    submission = self._queue.get(timeout=wait)
                else:
                    submission = self._queue.get(block=not batch)
            except Empty:
                break
            if submission is None:
                if batch:
                    self._queue.put(None)
                break
            batch.append(submission)
            deadline = deadline or time.monotonic() + self._batch_wait
        return batch

    def _serve(self, batch: Sequence[_Submission]) -> int:
        """Append a batch and tell its submitters; returns how many submissions to expect in the next."""
        try:
            results = iter(self._log.append([entry for submission in batch for entry in submission.entries]))
            self._note = self._log.checkpoint()
        except Exception as error:  # noqa: BLE001  whatever it was, nobody may be left waiting
            for submission in batch:
                submission.fail(error)
            return 1
        expected = len(batch) + self._queue.qsize()
        for submission in batch:
            submission.finish([next(results) for _ in submission.entries])
        with suppress(Error):  # the batch is safe in the journal; the next one meets the same trouble and reports it
            self._log.tidy(self._settle_at)
        return expected


class _Submission:
    """Entries on their way into the log, and the thread that waits for them."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._results: list[Appended] | None = None
        self._error: Exception | None = None
        self._done = Lock()  # held until done: a bare lock wakes its waiter several times faster than an Event
        self._done.acquire()

    def finish(self, results: list[Appended]) -> None:
        self._results = results
        self._done.release()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._done.release()

    def result(self) -> list[Appended]:
        self._done.acquire()
        if self._results is not None:
            return self._results
        error = self._error
        if isinstance(error, Error):  # each waiter raises its own
            raise type(error)(error.message, got=error.got, expected=error.expected, remedy=error.remedy) from error
        raise Unchecked("the log failed", got=repr(error), remedy="report this; nothing was acknowledged") from error
