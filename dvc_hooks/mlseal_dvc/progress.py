"""A bar for hashing that takes longer than two seconds, drawn by DVC's own class.

So it looks like DVC's, and is silent where DVC's is: with ``-q``, and where standard error is no terminal. It counts
bytes of files that were read whole; a single large file moves it once, at its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AFTER_SECONDS = 2.0


class _Bar:
    """Begins to draw late: DVC's own bar draws itself at once, whatever delay it is given."""

    def __init__(self, what: str) -> None:
        self._what, self._began, self._read = what, time.monotonic(), 0
        self._drawn: Any = None

    def update(self, size: int) -> None:
        if self._drawn is None and time.monotonic() - self._began >= AFTER_SECONDS:
            from dvc.progress import Tqdm

            self._drawn = Tqdm(desc=self._what, bytes=True, initial=self._read)
        self._read += size
        if self._drawn is not None:
            self._drawn.update(size)

    def close(self) -> None:
        if self._drawn is not None:
            self._drawn.close()


_bar: _Bar | None = None  # of this process: hashing is done by one thread at a time


@contextmanager
def shown(what: str) -> Iterator[None]:
    """While inside, files that `advance` reports are shown as progress of `what`. Nested ones are the outer's."""
    global _bar  # noqa: PLW0603
    if _bar is not None:
        yield
        return
    _bar = _Bar(what)
    try:
        yield
    finally:
        _bar.close()
        _bar = None


def advance(size: int) -> None:
    """A file of `size` bytes was read."""
    if _bar is not None:
        _bar.update(size)
