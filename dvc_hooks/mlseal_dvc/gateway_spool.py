"""Bytes on their way in: hashed while they stream to a private file, and bounded in every direction.

Nothing here is believed and nothing of it has reached the store. A refused body goes to quarantine with its reason, as
long as that has room; the oldest make way. Manifests and log tiles wait here until a bundle or checkpoint vouches for
them, so that nobody can fill the store with what no signature names.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlseal.errors import Unreadable
from mlseal.evidence import paths

_REASON = ".json"
_WAIT_SECONDS = 3600.0


@dataclass(frozen=True)
class Limits:
    """What one gateway may hold of other people's bytes.

    Attributes:
        body: largest body.
        incoming: bytes of all bodies on their way in together.
        waiting: bytes of manifests and tiles that wait for a signature.
        quarantine: bytes kept of refused bodies.
        files: number of files kept in quarantine, and of those that wait.
    """

    body: int = 64 << 30
    incoming: int = 256 << 30
    waiting: int = 4 << 30
    quarantine: int = 1 << 30
    files: int = 100_000


class TooLarge(Exception):
    """The body is larger than allowed."""


class Full(Exception):
    """Too many bytes are on their way in at once."""


@dataclass(frozen=True)
class Received:
    """A whole body in a private file."""

    file: Path
    size: int
    sha256: str
    md5: str

    def read(self) -> bytes:
        """All of it; the caller has bounded its size."""
        return self.file.read_bytes()


class Spool:
    """The gateway's own directory.

    Args:
        root: private to this gateway; what an earlier run left half-received is removed.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root, self.limits, self._lock, self._incoming = root, limits, threading.Lock(), 0
        self._in, self._wait, self.quarantine = (
            paths.private(root / name) for name in ("incoming", "waiting", "quarantine")
        )
        for left in self._in.iterdir():
            left.unlink(missing_ok=True)

    @contextmanager
    def receive(self, chunks: Iterable[bytes], limit: int) -> Iterator[Received]:
        """The body in a file, which is gone afterwards.

        Raises:
            TooLarge, Full: and nothing is left.
            Unreadable: the disk is full.
        """
        file, taken = self._in / secrets.token_hex(16), 0
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            with _disk():
                body = file.open("xb")
            with body:
                for chunk in chunks:
                    taken += len(chunk)
                    self._take(len(chunk))
                    if taken > limit:
                        raise TooLarge
                    sha256.update(chunk)
                    md5.update(chunk)
                    with _disk():
                        body.write(chunk)
                with _disk():
                    body.flush()
            yield Received(file, taken, sha256.hexdigest(), md5.hexdigest())
        finally:
            file.unlink(missing_ok=True)
            self._take(-taken)

    def hold(self, count: int) -> None:
        """Count bytes that stay here longer than their request. Raises `Full`, and then does not."""
        try:
            self._take(count)
        except Full:
            self._take(-count)
            raise

    def release(self, count: int) -> None:
        """They are gone."""
        self._take(-count)

    def _take(self, count: int) -> None:
        with self._lock:
            self._incoming += count
            if count > 0 and self._incoming > self.limits.incoming:
                raise Full

    def refuse(self, received: Received, path: str, peer: str, reason: str) -> None:
        """Keep the body with its reason, if the quarantine has room for it after the oldest made way."""
        kept = received.size <= self.limits.quarantine
        facts = {"time": int(time.time()), "path": path[:300], "peer": peer, "reason": reason[:1000], "kept": kept}
        facts |= {"sha256": received.sha256, "md5": received.md5, "size": received.size}
        name = f"{time.time_ns()}-{secrets.token_hex(4)}"
        with self._lock, suppress(OSError):  # the refusal stands, whether or not it can be kept
            self._make_room(self.quarantine, self.limits.quarantine, received.size if kept else 0)
            (self.quarantine / f"{name}{_REASON}").write_text(json.dumps(facts), encoding="utf-8")
            if kept:
                received.file.replace(self.quarantine / name)
                (self.quarantine / name).chmod(0o400)

    def wait(self, received: Received, name: str) -> None:
        """Let the body wait under `name` until somebody's signature names it. An earlier one is replaced."""
        with self._lock, _disk():
            self._make_room(self._wait, self.limits.waiting, received.size)
            received.file.replace(self._waiting_file(name))

    def waiting(self, name: str) -> Path | None:
        """The file that waits under `name`."""
        file = self._waiting_file(name)
        return file if file.exists() else None

    def done(self, name: str) -> None:
        """It waits no more."""
        self._waiting_file(name).unlink(missing_ok=True)

    def _waiting_file(self, name: str) -> Path:
        return self._wait / hashlib.sha256(name.encode()).hexdigest()

    def _make_room(self, directory: Path, limit: int, size: int) -> None:
        found = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(directory))
        total, count = sum(row[1] for row in found), len(found)
        for mtime, length, path in found:
            old = directory == self._wait and time.time() - mtime > _WAIT_SECONDS
            if total + size <= limit and count < self.limits.files and not old:
                continue
            with suppress(FileNotFoundError):
                os.unlink(path)
            total, count = total - length, count - 1


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unreadable(
            "the gateway's disk cannot be written", got=error.strerror, remedy="free space there"
        ) from error
