"""Frames between two processes of one stage, over a unix socket: eight bytes of length, then the content."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIMIT = 256 * 1024 * 1024
"""The largest frame; a batch of ciphertexts goes in several."""


@contextmanager
def address(path: Path) -> Iterator[str]:
    """What to bind or connect for the socket at `path`, however deep it lies: an address holds 107 bytes (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def send(peer: socket.socket, content: bytes) -> None:
    """Send one frame. Raises `OSError`."""
    peer.sendall(len(content).to_bytes(8) + content)


def receive(peer: socket.socket) -> bytes:
    """The next frame. Raises `ConnectionError` when the peer is gone or announces more than `LIMIT`."""
    size = int.from_bytes(_exactly(peer, 8))
    if size > LIMIT:
        raise ConnectionError(f"a frame of {size} bytes was announced")
    return _exactly(peer, size)


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = peer.recv(min(1 << 20, size - len(found)))
        if not part:
            raise ConnectionError("the other process is gone")
        found += part
    return bytes(found)
