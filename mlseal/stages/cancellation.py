"""Stopping a run from outside: a person's Ctrl-C, an orchestrator's SIGTERM, a caller's `Cancellation.cancel`.

While a stage measures, SIGINT and SIGTERM

1. are noted, so that a library that swallows the exception changes nothing: the runner asks again before it signs;
2. call what the stage gave to `Cancellation.on_cancel`, newest first: its servers and children end;
3. interrupt the stage where it stands (`KeyboardInterrupt`, which ``except Exception`` does not catch).

The run then ends with `mlseal.errors.Cancelled`: no evidence, no output, exit code 130 for either signal. Once signing
has begun it is finished, for the log may hold the entry already; a second signal interrupts that too, and the journal
of the signer finishes it the next time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from mlseal.errors import Cancelled

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Cancellation:
    """Whether a run is to stop, and what to do then. Thread-safe."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._shielded = False
        self._by = ""
        self._process = os.getpid()

    @property
    def asked(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if somebody asked the run to stop."""
        if self.asked:
            raise Cancelled(
                "the run was stopped before it was done",
                got=self._by,
                remedy="run it again; nothing was signed about it and nothing was published",
            )

    def cancel(self, by: str = "a request of the program that runs it") -> None:
        """Ask the run to stop and end what it started; it stops at its next `check`."""
        if not self.asked:
            self._by = by
            self._asked.set()
        self.release()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, when the run is stopped or at its end; at once if it was stopped already.

        It ends what the stage started: a server, a pool of workers. What it raises is ignored.
        """
        self._callbacks.append(callback)
        if self.asked:
            self.release()

    def release(self) -> None:
        """Call what waits, newest first, each once."""
        while self._callbacks:
            with contextlib.suppress(Exception):
                self._callbacks.pop()()

    @contextlib.contextmanager
    def releasing(self) -> Iterator[None]:
        """Call what waits at the end of the block, however it ends."""
        try:
            yield
        finally:
            self.release()

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """What must be finished once begun: the first signal is noted and no more. Raises `Cancelled` if it is late."""
        self.check()
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM for requests to stop, inside the block and in the main thread only.

        A `KeyboardInterrupt` leaves the block as `Cancelled`. Signals that this process ignores stay ignored.
        """
        kept = {}
        if threading.current_thread() is threading.main_thread():
            taken = [one for one in _SIGNALS if signal.getsignal(one) not in {signal.SIG_IGN, None}]
            kept = {one: signal.signal(one, self._handle) for one in taken}
        try:
            yield
        except KeyboardInterrupt:
            self.cancel("an interrupt")
            self.check()
        finally:
            for one, handler in kept.items():
                signal.signal(one, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork of the stage's own: what it is to end is itself, not our servers
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again = self.asked
        self.cancel(f"signal {signal.Signals(number).name}")
        if again or not self._shielded:
            raise KeyboardInterrupt
