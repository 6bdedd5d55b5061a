"""Something to look at while a stage runs: on a terminal a spinner with the seconds, elsewhere a line now and then.

Everything goes to standard error, so that standard output stays what scripts read. Nothing is shown for work that ends
within two seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

_AFTER = 2.0
_EVERY = 15.0


class Progress:
    """Shows that `title` is running. Use as a context manager; `log` may be called from any thread."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.title = title
        self._quiet = quiet
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._started = time.monotonic()
        self._status: object | None = None
        self._lock = threading.Lock()
        self._step = ""

    def log(self, line: str) -> None:
        """Show one line of a child's output."""
        if self._quiet:
            return
        with self._lock:
            if self._status is not None:
                self._status.console.print(line, markup=False, highlight=False)  # type: ignore[attr-defined]
            else:
                print(line, file=sys.stderr, flush=True)  # noqa: T201 - a person watches standard error

    def step(self, done: int, total: int | None, what: str) -> None:
        """Note how far the work is; shown with the next sign of life, so that it costs nothing to say it often."""
        of = f" of {total}" if total is not None else ""
        self._step = f" · {done}{of} {what}"

    def __enter__(self) -> Self:
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        if self._done.wait(_AFTER):
            return
        if sys.stderr.isatty():
            self._spin()
        while not self._done.wait(_EVERY):
            print(f"{self.title}{self._step}: {self._seconds()} s …", file=sys.stderr, flush=True)  # noqa: T201

    def _spin(self) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        with console.status(self.title) as status:
            with self._lock:
                self._status = status
            while not self._done.wait(0.5):
                status.update(f"{self.title}{self._step} · {self._seconds()} s")
            with self._lock:
                self._status = None

    def _seconds(self) -> int:
        return int(time.monotonic() - self._started)
