"""From the place of a model to its digests, within bounds: size, number at once, and how long anyone waits.

A model on a disk of this server is hashed where it lies; any other is fetched into a private directory, compared with
what its storage had listed, hashed and thrown away. Nothing is loaded from either, so a copy of local files would prove
nothing more: it is no more atomic than reading them, and `measure` refuses a file that changes under it.

Models up to a size are hashed while the caller waits. Larger ones, and those whose storage answers slowly, are hashed
by a background thread; until it is done the answer is 409 "pending", and the result serves any worker of this server
for ten minutes. For large ones that begins when a version is registered (`Measuring.ahead`), one after the other, so
that a promotion finds it done. What changes in storage after hashing is not seen here: the loader
(`mlseal_mlflow.artifact`) verifies the bytes that are loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Error, Pending, Refusal, Unchecked, Unreadable
from mlseal.evidence import paths
from mlseal.evidence.bundle import write_atomic
from mlseal.evidence.digest import Manifest, Measured, Subject, measure
from mlseal_mlflow import private
from mlseal_mlflow.files import Location
from mlseal_mlflow.recorder import Background

RESULT_SECONDS = 600
FAILURE_SECONDS = 30

Listing = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Limits:
    """How much this server hashes: while the caller waits, at all, how many at once in one worker, for how long."""

    inline_bytes: int = 2 << 30
    max_bytes: int = 64 << 30
    at_once: int = 4
    wait_seconds: float = 60.0
    """MLflow's client gives up after 120."""


class Measuring:
    """Hashes models for the gate.

    Args:
        directory: private state, shared by the workers of this server.
        limits: what is hashed now, later, never.
        notice: called with each model's directory before it is hashed, so that evidence lying beside it is found.
    """

    def __init__(self, directory: Path, limits: Limits, notice: Callable[[Path], None]) -> None:
        self._directory = paths.private(directory)
        self._limits, self._notice = limits, notice
        self._slots = threading.BoundedSemaphore(limits.at_once)
        self._registered = Background("hashing what was registered", awaited=False)

    def measured(self, location: Location, key: object, *, name: str) -> Measured:
        """The files of the model at `location`; `key` is what they will be used for, so that it is not reused.

        Their ``path`` may be gone when this returns: what is far away is copied, measured and thrown away.

        Raises `Pending` while a large model is hashed or a slow storage answers, `Refusal` beyond the limit,
        `Unreadable` for no content.
        """
        if location.here() is None:
            return self._awaited(location, _Job.of(location.uri, key), name)
        listing = location.listing()
        if self._size(location, listing) <= self._limits.inline_bytes:
            return self._measure(location, name)
        job = _Job.of(location.uri, listing, key)
        job.leave()
        return self._awaited(location, job, name)

    def ahead(self, location: Location, key: object, *, name: str) -> None:
        """Begin to hash the model at `location` if it is too large for the caller of `measured` to wait.

        For what nobody asks about yet, so one at a time in each worker. What is dropped, since too much waits, or goes
        wrong leaves nothing behind but a line in the server's log: the first who asks begins anew.
        """
        self._registered.run(lambda: self._if_large(location, key, name))

    def _if_large(self, location: Location, key: object, name: str) -> None:
        listing = location.listing()
        if self._size(location, listing) <= self._limits.inline_bytes:
            return
        job = _Job.of(location.uri, key) if location.here() is None else _Job.of(location.uri, listing, key)
        if (lock := self._lock(job)) is None:
            return  # somebody asked already
        try:
            self._keep(job, self._measure(location, name, patient=True))
        finally:
            os.close(lock)

    def _size(self, location: Location, listing: Listing) -> int:
        total = sum(max(size, 0) for _, size in listing)
        if not listing:
            raise Unreadable(f"nothing lies at {location.uri}", remedy="log the model again, then register that")
        if total > self._limits.max_bytes:
            raise Refusal(
                "this model is larger than the gate hashes",
                got=f"{total} bytes",
                expected=f"at most {self._limits.max_bytes}",
                remedy="raise MLSEAL_MLFLOW_MAX_BYTES on the server",
            )
        return total

    def _measure(self, location: Location, name: str, job: _Job | None = None, *, patient: bool = False) -> Measured:
        if not self._slots.acquire(timeout=None if patient else min(30.0, self._limits.wait_seconds)):
            raise Pending("the gate is hashing other models", remedy="ask again")
        try:
            if (local := location.here()) is not None:
                return self._of(local, name)
            listing = location.listing()
            if self._size(location, listing) > self._limits.inline_bytes and job is not None:
                job.leave()
            with private.passing() as directory:
                model = location.fetch(directory)
                location.require_as_listed(listing, model)
                return self._of(model, name)
        finally:
            self._slots.release()

    def _of(self, model: Path, name: str) -> Measured:
        self._notice(model)
        return measure(model, name=name)

    def _awaited(self, location: Location, job: _Job, name: str) -> Measured:
        """The result of `job`, done by a thread; `Pending` when it takes longer than anyone waits."""
        if (known := _fresh(self._result(job))) is not None:
            return known
        if (lock := self._lock(job)) is None:  # another request is at it
            job.leave()
        else:
            threading.Thread(target=self._work, args=(location, job, lock, name), daemon=True).start()
        outcome = job.wait(self._limits.wait_seconds)
        if isinstance(outcome, Measured):
            return outcome
        if outcome is not None:
            raise outcome
        raise Pending(
            "verification pending: this model is hashed in the background",
            got=f"more than {self._limits.inline_bytes} bytes, or a storage that answers slowly",
            expected="a model that is hashed while you wait",
            remedy="ask again in a while",
        )

    def _lock(self, job: _Job) -> int | None:
        """The right to do `job`, which ends with its holder, even if a worker dies; None while another has it."""
        lock = os.open(self._directory / f"{job.name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _keep(self, job: _Job, outcome: Measured | Error) -> None:
        """Put it where any worker of this server finds it."""
        write_atomic(self._result(job), json.dumps(_told(outcome)).encode(), mode=0o600)
        _sweep(self._directory)

    def _result(self, job: _Job) -> Path:
        return self._directory / f"{job.name}.json"

    def _work(self, location: Location, job: _Job, lock: int, name: str) -> None:
        try:
            outcome: Measured | Error
            try:
                outcome = self._measure(location, name, job)
            except Error as error:
                outcome = error
            except Exception as error:  # noqa: BLE001 - whatever a storage raises, the one who asked is told
                outcome = Unchecked(
                    "the storage of this model failed",
                    got=f"{type(error).__name__}: {error}"[:300],
                    remedy="see that the server reaches it, then ask again",
                )
            if not job.finish(outcome) and not isinstance(outcome, Pending):  # nobody waits: the next who asks finds it
                self._keep(job, outcome)
        finally:
            os.close(lock)


class _Job:
    """One model that a thread hashes, and whether somebody still waits for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._changed, self._left, self._outcome = threading.Condition(), False, None

    @classmethod
    def of(cls, *what: object) -> _Job:
        return cls(hashlib.sha256(repr(what).encode()).hexdigest()[:32])

    _outcome: Measured | Error | None

    def wait(self, seconds: float) -> Measured | Error | None:
        """What came out within `seconds`; None when it takes longer, and then nobody waits any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._outcome is not None, seconds)
            self._left = self._outcome is None
            return self._outcome

    def leave(self) -> None:
        """It will take long: nobody should wait."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def finish(self, outcome: Measured | Error) -> bool:
        """Hand over what came out; says whether somebody waited for it."""
        with self._changed:
            if not self._left:
                self._outcome = outcome
                self._changed.notify_all()
            return not self._left


def _told(outcome: Measured | Error) -> dict[str, Any]:
    """What `_fresh` reads in any worker: the subjects, and every file, which rules about file names need."""
    if isinstance(outcome, Error):
        return {"failed": str(outcome)[:300]}
    files = outcome.manifest and outcome.manifest.to_bytes().decode("utf-8")
    return {"subjects": [[s.name, s.sha256] for s in outcome.subjects], "files": files}


def _fresh(result: Path) -> Measured | None:
    try:
        age = time.time() - result.stat().st_mtime
        outcome = json.loads(result.read_bytes())
    except (OSError, ValueError):
        return None
    if "failed" in outcome and age < FAILURE_SECONDS:
        raise Unchecked("this model could not be hashed in the background", got=outcome["failed"], remedy="ask again")
    if "files" not in outcome or age > RESULT_SECONDS:
        return None
    files = outcome["files"] and Manifest.from_bytes(outcome["files"].encode("utf-8"))
    return Measured(result, tuple(Subject(name, sha256) for name, sha256 in outcome["subjects"]), files)


def _sweep(directory: Path) -> None:
    """Remove results that are too old to be used, and their locks."""
    horizon = time.time() - 2 * RESULT_SECONDS
    for file in directory.iterdir():
        if file.stat().st_mtime < horizon:
            file.unlink(missing_ok=True)
