"""Progress on the terminal for work over two seconds; silent when nobody watches."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, Task

AFTER = 2.0
"""Seconds of work after which something is shown."""


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """While the block runs, and once two seconds have passed, a bar on stderr with the time and the bytes read.

    The block gets a function ``advance(done, total)`` and need not call it: the bar then runs to and fro. It is drawn
    from a thread of its own, which costs what hashes nothing, and is wiped away at the end, whatever ended the block.
    Nothing is drawn, and no thread started, where standard error is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    drawn: list[Progress] = []
    at: list[tuple[int, int]] = []
    start = _bytes_read()

    def draw() -> None:
        drawn.append(_progress(start))
        drawn[0].add_task(label, total=None)
        _update(drawn[0], at)
        drawn[0].start()

    def advance(done: int, total: int) -> None:
        at[:] = [(done, total)]
        if drawn and drawn[0].tasks:
            _update(drawn[0], at)

    timer = threading.Timer(AFTER, draw)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        timer.join()  # one that draws already is waited for, so that nothing appears after the end
        for progress in drawn:
            progress.stop()


def _progress(start: int | None) -> Progress:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class BytesRead(ProgressColumn):
        """What this process has read since the work began, as the kernel counts it."""

        def render(self, task: Task) -> Text:  # noqa: ARG002 - rich's signature
            now = _bytes_read()
            return Text("" if start is None or now is None else f"{decimal(now - start)} read")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        BytesRead(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results go where they were sent, also while a bar is there
    )


def _update(progress: Progress, at: list[tuple[int, int]]) -> None:
    for done, total in at:
        progress.update(progress.task_ids[0], completed=done, total=total)


def _bytes_read() -> int | None:
    """Bytes that this process has read from anywhere; None where the kernel does not say."""
    try:
        text = Path(f"/proc/{os.getpid()}/io").read_text(encoding="ascii")
        return int(text.partition("rchar: ")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return None
