"""What waits to be signed when a server is told to stop is signed first, for a bounded time.

A worker of gunicorn or waitress ends as any Python program does, and `atexit` serves. A worker of uvicorn answers its
last requests and then ends by the signal itself, which runs no exit handlers; so what it does after its last request
(``Server.shutdown``) is extended by ours, from the thread of its event loop. What a killed worker leaves behind is in
the signer's journal, and the next start publishes it.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
import time
from typing import Any, Protocol
from weakref import WeakSet

SECONDS = 10.0
"""For how long a stopping worker goes on signing; less than `mlseal_mlflow.serving.STOPPING_SECONDS`."""

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_extended = False


class Work(Protocol):
    """Something that is done in the background."""

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is left to do, at most `seconds`; says whether that is so."""


_works: WeakSet[Any] = WeakSet()


def before(work: Work) -> None:
    """Have `work` drained before this process ends. Called on the thread of a request, where uvicorn can be found."""
    global _extended  # noqa: PLW0603 - once in a process
    with _lock:
        _works.add(work)
        if _extended or "uvicorn" not in sys.modules:
            return
        import anyio.from_thread

        try:
            _extended = anyio.from_thread.run_sync(_extend)
        except RuntimeError:  # no event loop waits for this thread: another server, or none
            return


def drain(seconds: float = SECONDS) -> bool:
    """Wait until everything that was queued is done, at most `seconds`; what is not is logged."""
    end = time.monotonic() + seconds
    left = [work for work in list(_works) if not work.drain(max(0.0, end - time.monotonic()))]
    if left:
        _log.warning("mlseal: stopped before everything was signed; the decision log has every line")
    return not left


def _extend() -> bool:
    """On the thread of uvicorn's event loop: its server is whoever handles the signal."""
    import anyio.to_thread

    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stock = getattr(server, "shutdown", None)
    if stock is None:
        return False

    async def shutdown(*arguments: Any, **named: Any) -> None:
        await stock(*arguments, **named)
        await anyio.to_thread.run_sync(drain)

    server.shutdown = shutdown
    return True


atexit.register(drain)
