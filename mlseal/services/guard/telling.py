"""What a caller is told of an error, and what the operator is.

Whoever showed who they are is told what was wrong with their request. Everybody else is told which step it was, and
nothing that was found there: no provider's name, no identifier of evidence, no path of this machine. Those stand in the
guard's own log (standard error), each sentence at most once a minute, so that nobody can fill it; and nothing that a
caller sent stands there.
"""

from __future__ import annotations

import logging
import threading
import time

from mlseal.errors import Error, Misuse
from mlseal.services.guard.asking import BadUpstream
from mlseal.services.guard.callers import Unidentified, Unlisted
from mlseal.services.guard.standing import Closed, Undecided

_SENTENCES: dict[type[Error], str] = {
    Closed: "the policy does not let this model serve at present",
    Undecided: "it cannot be told at present whether this model may serve",
    Unidentified: "no bearer token that is accepted here",
    BadUpstream: "the model does not answer at present",
}
_OTHERWISE = "the request cannot be served at present"
_SECONDS, _SENTENCES_KEPT = 60.0, 256
_logger = logging.getLogger("mlseal.guard")
_lock = threading.Lock()
_logged: dict[str, float] = {}


def to_caller(error: Error, *, identified: bool) -> dict[str, object]:
    """`error` as JSON, without what an unknown caller must not learn; the rest is logged."""
    document = error.to_dict()
    about_standing = isinstance(error, Closed | Undecided)
    if not about_standing and (identified or isinstance(error, Misuse | Unlisted)):
        return document
    _log(str(error) if about_standing else error.message)
    return document | {
        "message": _SENTENCES.get(type(error), _OTHERWISE),
        "got": None,
        "expected": None,
        "remedy": "the operator's log says more",
    }


def to_operator(error: BaseException) -> None:
    """Log a fault of our own: its kind and where it arose; its text could hold what a caller sent."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else "an unknown place"
    _log(f"{type(error).__name__} at {where}")


def _log(sentence: str) -> None:
    now = time.monotonic()
    with _lock:
        if now - _logged.get(sentence, -_SECONDS) < _SECONDS:
            return
        if len(_logged) >= _SENTENCES_KEPT:
            _logged.clear()
        _logged[sentence] = now
    _logger.warning("guard: %s", "".join(c if c.isprintable() else "?" for c in sentence))
