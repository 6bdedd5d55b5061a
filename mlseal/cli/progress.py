"""Progress on the terminal for work over two seconds; silent when nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function ``advance(done, total)`` that draws a bar on stderr once two seconds have passed."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    started = time.monotonic()
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(label, total=None)
    shown = False

    def advance(done: int, total: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > 2:
            progress.start()
            shown = True
        if shown:
            progress.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        if shown:
            progress.stop()
