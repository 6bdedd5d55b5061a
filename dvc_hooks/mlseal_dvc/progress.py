"""A bar for hashing that takes longer than two seconds, drawn by DVC's own class.

So it looks like DVC's, and is silent where DVC's is: with ``-q``, and where standard error is no terminal. It counts
bytes of files that were read whole; a single large file moves it once, at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AFTER_SECONDS = 2.0
_bar: Any = None  # of this process: hashing is done by one thread at a time


@contextmanager
def shown(what: str) -> Iterator[None]:
    """While inside, files that `advance` reports are shown as progress of `what`. Nested ones are the outer's."""
    global _bar  # noqa: PLW0603
    if _bar is not None:
        yield
        return
    from dvc.progress import Tqdm

    with Tqdm(desc=what, bytes=True, delay=AFTER_SECONDS) as _bar:
        try:
            yield
        finally:
            _bar = None


def advance(size: int) -> None:
    """A file of `size` bytes was read."""
    if _bar is not None:
        _bar.update(size)
