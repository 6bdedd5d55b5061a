"""Refusals are evidence too, but nobody waits for their signature.

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

_log = logging.getLogger(__name__)
_REMEMBERED = 4096
_BURST = 64
"""Refusals recorded at once; after that one a second."""


class Recorder:
    """Signs statements later, in the order given.

    Args:
        sign: signs and stores one statement; its errors are logged.
        seconds: for how long an equal refusal is not signed again.
    """

    def __init__(self, sign: Callable[[Statement], object], *, seconds: float = 600) -> None:
        self._sign, self._seconds = sign, seconds
        self._queue: queue.Queue[Statement] = queue.Queue(_BURST)
        self._seen: OrderedDict[Hashable, float] = OrderedDict()
        self._credit, self._credited = float(_BURST), time.monotonic()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

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
            if self._thread is None:  # started late: servers fork or spawn their workers after constructing stores
                self._thread = threading.Thread(target=self._run, name="mlseal-recorder", daemon=True)
                self._thread.start()
        try:
            self._queue.put_nowait(statement)
        except queue.Full:
            _log.warning("mlseal: too many refusals to record; one was dropped")
            return False
        return True

    def _run(self) -> None:
        while True:
            statement = self._queue.get()
            try:
                self._sign(statement)
            except Error as error:
                _log.warning("mlseal: a refusal could not be recorded: %s", error)
            except Exception:  # noqa: BLE001 - the thread outlives any statement
                _log.exception("mlseal: a refusal could not be recorded")
