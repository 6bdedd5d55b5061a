"""What nobody waits for: signing refusals, and putting copies of verdicts beside models.

An allowing verdict is signed before the database changes. A refusing one changes nothing, so the caller is answered at
once and one thread signs afterwards. Equal refusals within ten minutes are signed once, and in the long run no more
than one a second: otherwise whoever may ask could fill the log.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from mlseal.errors import Error
from mlseal.evidence.statement import Statement
from mlseal_mlflow import stopping

_log = logging.getLogger(__name__)
_REMEMBERED = 4096
_QUEUED = 512
_BURST = 64
"""Refusals recorded at once; after that one a second."""


class Background:
    """One thread that does jobs in the order given; what fails is logged, what does not fit is dropped and logged.

    With `awaited`, the end of this process waits for it, for a bounded time (`mlseal_mlflow.stopping`).
    """

    def __init__(self, what: str, *, awaited: bool = True) -> None:
        self._what, self._awaited = what, awaited
        self._queue: queue.Queue[Callable[[], object]] = queue.Queue(_QUEUED)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, job: Callable[[], object]) -> bool:
        """Queue `job`; says whether there was room."""
        begun = False
        with self._lock:
            if self._thread is None:  # started late: servers spawn their workers after constructing stores
                self._thread = threading.Thread(target=self._work, name=f"mlseal {self._what}", daemon=True)
                self._thread.start()
                begun = True
        if begun and self._awaited:
            stopping.before(self)
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            _log.warning("mlseal: %s: too much at once, one was dropped", self._what)
            return False
        return True

    def drain(self, seconds: float) -> bool:
        """Wait until every job is done, at most `seconds`; says whether that is so."""
        end, done = time.monotonic() + seconds, self._queue.all_tasks_done
        with done:
            while self._queue.unfinished_tasks and self._thread is not None and self._thread.is_alive():
                left = end - time.monotonic()
                if left <= 0:
                    break
                done.wait(left)
            return not self._queue.unfinished_tasks

    def _work(self) -> None:
        while True:
            job = self._queue.get()
            try:
                job()
            except Error as error:
                _log.warning("mlseal: %s failed: %s", self._what, error)
            except Exception:  # noqa: BLE001 - the thread outlives any job
                _log.exception("mlseal: %s failed", self._what)
            finally:
                self._queue.task_done()


class Recorder:
    """Signs refusals later, in the order given.

    Args:
        sign: signs and stores one statement; its errors are logged.
        seconds: for how long an equal refusal is not signed again.
    """

    def __init__(self, sign: Callable[[Statement], object], *, seconds: float = 600) -> None:
        self._sign, self._seconds = sign, seconds
        self._background = Background("recording a refusal")
        self._seen: OrderedDict[Hashable, float] = OrderedDict()
        self._credit, self._credited = float(_BURST), time.monotonic()
        self._lock = threading.Lock()

    def submit(self, statement: Statement, same: Hashable) -> bool:
        """Queue `statement` unless one with the same `same` was queued lately; says whether it was."""
        now = time.monotonic()
        with self._lock:
            if now - self._seen.get(same, -self._seconds) < self._seconds:
                return False
            self._credit = min(_BURST, self._credit + now - self._credited)
            self._credited = now
            if self._credit < 1:
                return False
            self._credit -= 1
            self._seen[same] = now
            self._seen.move_to_end(same)
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return self._background.run(lambda: self._sign(statement))
