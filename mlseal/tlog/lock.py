"""One writer: an advisory lock on the log's directory, which the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from mlseal.errors import ServiceUnavailable

_POLL = 0.01


class WriterLock:
    """The right to write the log in `directory`, held until `close`.

    Args:
        directory: the log.
        wait: seconds to wait for another writer to let go.

    Raises:
        ServiceUnavailable: another writer, of this or another process, holds it.
        OSError: the lock file cannot be opened.
    """

    def __init__(self, directory: Path, wait: float) -> None:
        deadline = time.monotonic() + wait
        self._handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_POLL)
                    continue
                os.close(self._handle)
                raise ServiceUnavailable(
                    f"another writer holds the log {directory}",
                    expected="one writer per log",
                    remedy="use the service that runs already, or stop it first",
                ) from None
            return

    def close(self) -> None:
        """Let another writer in."""
        os.close(self._handle)
