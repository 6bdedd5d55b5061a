"""Objects that come in parts, as S3 clients send large ones: nothing of them counts until all of them have been judged.

Parts lie in a private directory of the gateway, one for each upload, and count as bytes on their way in. `whole` gives
them in order to the same judgement that a body sent at once passes. An upload ends when it is stored or refused, when
its client takes it back, when nothing of it came for an hour, or with the process: then its directory is gone.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlseal.evidence import paths
from mlseal_dvc.gateway_paths import Target
from mlseal_dvc.gateway_spool import Full, Spool, TooLarge

IDLE_SECONDS = 3600.0
MAX_PARTS, MAX_UPLOADS = 10_000, 256


class NoSuchUpload(Exception):
    """Nobody began it under this name, or it has ended."""


class WrongParts(Exception):
    """The parts that are to be put together are not those that came; one sentence."""


@dataclass
class _Upload:
    target: Target
    owner: object
    directory: Path
    parts: dict[int, tuple[str, int]] = field(default_factory=dict)
    touched: float = field(default_factory=time.monotonic)
    busy: int = 0
    ended: bool = False

    @property
    def size(self) -> int:
        return sum(size for _, size in self.parts.values())


class Parts:
    """All uploads of one gateway.

    Args:
        root: the gateway's state directory; what an earlier run left there is removed.
    """

    def __init__(self, root: Path, spool: Spool, *, idle: float = IDLE_SECONDS) -> None:
        self._spool, self._idle, self._lock = spool, idle, threading.Lock()
        self._root = paths.private(root / "parts")
        for left in self._root.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        self._uploads: dict[str, _Upload] = {}

    def begin(self, target: Target, owner: object) -> str:
        """A new upload's id. Raises `Full` while there are too many."""
        self.sweep()
        name = secrets.token_hex(32)
        with self._lock:
            if len(self._uploads) >= MAX_UPLOADS:
                raise Full
            self._uploads[name] = _Upload(target, owner, paths.private(self._root / name))
        return name

    def add(self, name: str, target: Target, owner: object, number: int, chunks: Iterable[bytes], limit: int) -> str:
        """Take one part in, in place of an earlier one with its number; its MD5, as S3 clients expect it.

        Raises `NoSuchUpload`, `WrongParts` for a number that S3 does not have, `TooLarge` when all parts together are
        larger than `limit`, `Full`, and what `chunks` raises: then the part does not count.
        """
        if not 1 <= number <= MAX_PARTS:
            raise WrongParts(f"parts are numbered from 1 to {MAX_PARTS}")
        with self._using(name, target, owner) as upload, self._spool.receive(chunks, limit) as received:
            self._spool.hold(received.size)
            over = received.size
            try:
                with self._lock:
                    if upload.ended:
                        raise NoSuchUpload
                    if upload.size + received.size > limit:
                        raise TooLarge
                    received.file.replace(upload.directory / str(number))
                    over = upload.parts.get(number, ("", 0))[1]
                    upload.parts[number] = received.md5, received.size
            finally:
                self._spool.release(over)
            return received.md5

    @contextmanager
    def whole(
        self, name: str, target: Target, owner: object, listed: Sequence[tuple[int, str]]
    ) -> Iterator[Iterator[bytes]]:
        """The bytes of the `listed` parts (number, MD5), in order. The upload is still there afterwards: see `end`.

        Raises `NoSuchUpload`, `WrongParts`.
        """
        with self._using(name, target, owner) as upload:
            numbers = [number for number, _ in listed]
            if not numbers or numbers != sorted(set(numbers)):
                raise WrongParts("the parts are not listed once each, in order")
            for number, md5 in listed:
                if upload.parts.get(number, ("", 0))[0] != md5:
                    raise WrongParts(f"part {number} did not come, or with other bytes")
            yield _read(upload.directory / str(number) for number in numbers)

    def end(self, name: str, target: Target, owner: object) -> None:
        """Nothing of the upload is kept. Raises `NoSuchUpload`."""
        with self._lock:
            upload = self._find(name, target, owner)
            self._remove(name, upload)

    def sweep(self) -> None:
        """End uploads of which nothing came for long."""
        before = time.monotonic() - self._idle
        with self._lock:
            for name, upload in list(self._uploads.items()):
                if not upload.busy and upload.touched < before:
                    self._remove(name, upload)

    @contextmanager
    def _using(self, name: str, target: Target, owner: object) -> Iterator[_Upload]:
        with self._lock:
            upload = self._find(name, target, owner)
            upload.busy += 1
        try:
            yield upload
        finally:
            with self._lock:
                upload.busy -= 1
                upload.touched = time.monotonic()

    def _find(self, name: str, target: Target, owner: object) -> _Upload:
        upload = self._uploads.get(name)
        if upload is None or (upload.target, upload.owner) != (target, owner):
            raise NoSuchUpload
        return upload

    def _remove(self, name: str, upload: _Upload) -> None:
        upload.ended = True
        self._uploads.pop(name, None)
        shutil.rmtree(upload.directory, ignore_errors=True)
        self._spool.release(upload.size)
        upload.parts.clear()


def _read(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        with file.open("rb") as part:
            while chunk := part.read(1 << 20):
                yield chunk
