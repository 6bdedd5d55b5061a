"""Does the policy still let this model serve? Judged at start, then again and again, so that a revocation is heard.

The bytes were measured once and a private copy of exactly those serves, so what is judged later is the evidence about
their digest: newly withdrawn, expired or failed evidence closes the guard at the next judgement. A judgement that
fails closes it too, and so does one that is overdue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mlseal.errors import Error, Refusal, Unchecked
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import Measured
from mlseal.policy.gate import Action, judge
from mlseal.policy.model import Policy
from mlseal.policy.verdict import Verdict

_GRACE = 15.0  # seconds that a judgement may take beyond three of its intervals before silence counts as no


class Closed(Refusal):
    """The policy refuses this model."""


class Undecided(Unchecked):
    """It cannot be told at present whether the model may serve."""

    http_status = 503


class Standing:
    """The latest judgement on the model that serves. Thread-safe.

    Args:
        measured: the model.
        action: what it does, for policies to match.
        policies: reads those in force, at each judgement, so that a stricter one is heard, and a broken one closes.
        archive: opens the evidence anew; each judgement is made with its own.
        seconds: between two judgements.
        heard: told of each verdict that differs from the one before, such as to sign it.
    """

    def __init__(
        self,
        measured: Measured,
        action: Action,
        policies: Callable[[], Sequence[Policy]],
        archive: Callable[[], Archive],
        seconds: float,
        heard: Callable[[Verdict], None],
    ) -> None:
        self._measured, self._action, self._policies = measured, action, policies
        self._archive, self._seconds, self._heard = archive, seconds, heard
        self._lock, self._end = threading.Lock(), threading.Event()
        self._verdict: Verdict | None = None
        self._failure: Error | None = None
        self._judged = float("-inf")
        self._server: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._watch, name="standing", daemon=True)

    def judge(self) -> None:
        """Judge now. A judgement that fails, or that cannot be told on, closes the guard as a refusal does."""
        verdict, failure = None, None
        try:
            verdict = judge(self._measured, self._action, self._policies(), self._archive())
            if self._differs(verdict):
                self._heard(verdict)
        except Error as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was decided
            failure = Unchecked("the model could not be judged", got=f"{type(error).__name__}: {error}"[:200])
        with self._lock:
            self._failure, self._judged = failure, time.monotonic()
            if failure is None:
                self._verdict = verdict

    def _differs(self, verdict: Verdict) -> bool:
        before = self._verdict
        return before is None or (type(before), before.reasons) != (type(verdict), verdict.reasons)

    def require(self) -> None:
        """Raise `Closed` or `Undecided` unless the latest judgement allows the model, and is recent.

        Whatever `start` was given may raise, too.
        """
        self._server()
        with self._lock:
            verdict, failure, judged = self._verdict, self._failure, self._judged
        age = time.monotonic() - judged
        if failure is not None:
            raise Undecided(failure.message, got=failure.got, expected=failure.expected, remedy=failure.remedy)
        if verdict is None or age > 3 * self._seconds + _GRACE:
            raise Undecided("the model was not judged lately", got=f"{age:.0f} s ago", expected=f"{self._seconds:g} s")
        if not verdict.passes:
            first = verdict.reasons[0]
            kind = Closed if verdict.exit_code == Refusal.exit_code else Undecided
            raise kind(first.message, got=first.got, expected=first.expected, remedy=first.remedy)

    def start(self, server: Callable[[], None] = lambda: None) -> None:
        """Begin to judge in the background. `server` raises once what was judged is not what would answer."""
        self._server = server
        self._thread.start()

    def stop(self) -> None:
        """End that; a judgement that is under way is not waited for."""
        self._end.set()

    def _watch(self) -> None:
        while not self._end.wait(self._seconds):
            self.judge()
