"""HTTP/1.1 over a unix socket or TLS, small and suspicious.

One thread for each connection, kept alive between requests. What a hostile or broken client can cost is bounded: one
deadline for each request from its first byte to its last, a size limit for bodies (a length must be announced), a limit
on connections in all and for each peer, a deadline for writing the answer. A client that hangs holds its own thread
and nothing else.
"""

from __future__ import annotations

import io
import logging
import select
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from mlseal.services.routes import MAX_BODY, Request, Response, failure

REQUEST_SECONDS, IDLE_SECONDS = 10.0, 30.0
MAX_CONNECTIONS, MAX_PER_PEER = 1024, 512
_BACKLOG = 256
_METHODS = ("GET", "HEAD", "POST")
_logger = logging.getLogger("mlseal.services")

Dispatch = Callable[[Request], Response]


class Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """Serves `listener`, a socket that is bound and listens already.

    Args:
        listener: AF_UNIX, or TCP with `tls`.
        dispatch: answers one request; its exceptions become a 500 that says nothing.
        tls: for a TCP listener.
        request_seconds: for one request, from its first byte; and for writing the answer.
        idle_seconds: until the next request on a connection that is kept.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self,
        listener: socket.socket,
        dispatch: Dispatch,
        *,
        tls: ssl.SSLContext | None = None,
        request_seconds: float = REQUEST_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        super().__init__(listener.getsockname(), _Handler)
        self.socket, self.dispatch, self.tls = listener, dispatch, tls
        self.request_seconds, self.idle_seconds = request_seconds, idle_seconds
        self.last_used = time.monotonic()
        self.busy = 0
        self._count_lock = threading.Lock()
        self._peers: Counter[object] = Counter()

    def fileno(self) -> int:
        """For the selector of `serve_forever`."""
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the peer is its uid on a unix socket, its address otherwise."""
        connection, address = self.socket.accept()
        return connection, peer_uid(connection) if connection.family == socket.AF_UNIX else address[0]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection of this peer."""
        with self._count_lock:
            full = self._peers.total() >= MAX_CONNECTIONS or self._peers[client_address] >= MAX_PER_PEER
            if not full:
                self._peers[client_address] += 1
                self.last_used = time.monotonic()  # who looks whether the service is there is about to ask
        if full and self.tls is None:
            request.settimeout(0.2)
            with suppress(OSError):
                request.sendall(encode(failure(503, "too many connections; try again"), keep=False))
        return not full

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._count_lock:
                self._peers[client_address] -= 1
                if not self._peers[client_address]:
                    del self._peers[client_address]

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is not worth more than a line."""
        del request
        _logger.info("connection of %s broke: %r", client_address, sys.exception())

    def server_close(self) -> None:
        """Take in what connected before now, then stop listening. After `shutdown` only."""
        while select.select([self.socket], [], [], 0)[0]:
            self._handle_request_noblock()  # type: ignore[attr-defined]  # of socketserver, not in its stub
        self.socket.close()

    def used(self, change: int) -> None:
        """Count a request in (1) or out (-1)."""
        with self._count_lock:
            self.busy += change
            self.last_used = time.monotonic()


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process at the other end, from the kernel (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def encode(response: Response, *, keep: bool, body: bool = True) -> bytes:
    """The bytes of an answer, head and body in one."""
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\nContent-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\nX-Content-Type-Options: nosniff\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + (response.body if body else b"")


class _Deadline(io.RawIOBase):
    """Reads a socket until a moment, however slowly the bytes come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self.end = connection, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server
    client_address: Any

    def setup(self) -> None:
        self.connection = self.request
        if self.server.tls is not None:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connection.settimeout(self.server.request_seconds)
            self.request = self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self._deadline = _Deadline(self.connection)
        self.rfile = self._reader = io.BufferedReader(self._deadline, 16 * 1024)

    def finish(self) -> None:
        if self.server.tls is not None:
            self.server.shutdown_request(self.connection)  # the wrapped socket; the plain one is detached

    def handle_one_request(self) -> None:
        self.close_connection, limit = True, self.server.request_seconds
        try:
            self._deadline.end = time.monotonic() + self.server.idle_seconds
            if not self._reader.peek(1):
                return
        except OSError:
            return
        self.server.used(1)
        try:
            self._deadline.end = time.monotonic() + limit
            self._one()
        except TimeoutError:
            self._send(failure(408, f"the request took longer than {limit:g} s"))
        except OSError:
            pass
        finally:
            self.server.used(-1)

    def _one(self) -> None:
        self.raw_requestline = self.rfile.readline(8 * 1024 + 1)
        if len(self.raw_requestline) > 8 * 1024:
            self._send(failure(414, "the request line is too long"))
        elif self.parse_request():
            body = self._body()
            if body is not None:
                self._answer(body)

    def _body(self) -> bytes | None:
        """The announced body; None if the request was answered with a refusal."""
        lengths = self.headers.get_all("Content-Length") or []
        if self.headers.get("Transfer-Encoding") or (self.command == "POST" and not lengths):
            self._send(failure(411, "the length of the body must be announced"))
        elif len(lengths) > 1 or any(not (text.isascii() and text.isdecimal()) for text in lengths):
            self._send(failure(400, "the length of the body is not a number"))
        elif self.command not in _METHODS:
            self._send(failure(405, f"{self.command[:20]} is not served"))
        elif lengths and (len(lengths[0]) > 9 or int(lengths[0]) > MAX_BODY):
            self._send(failure(413, f"the body is larger than {MAX_BODY} bytes"))
        else:
            size = int(lengths[0]) if lengths else 0
            body = self.rfile.read(size)
            if len(body) == size:
                return body
            self._send(failure(400, "the body is shorter than announced"))
        self._discard()
        return None

    def _discard(self) -> None:
        """Read what a refused client still sends, a little: closing at once would reset the refusal away."""
        self.close_connection = True
        self._deadline.end = min(self._deadline.end, time.monotonic() + 1)
        left = 16 * MAX_BODY
        with suppress(OSError):
            while left > 0 and (chunk := self._reader.read1(MAX_BODY)):
                left -= len(chunk)

    def _answer(self, body: bytes) -> None:
        peer = self.client_address
        request = Request(
            self.command,
            self.path.partition("?")[0],
            body,
            self.headers.get("Content-Type", ""),
            self.headers.get("Authorization", ""),
            peer if isinstance(peer, int) else None,
        )
        try:
            response = self.server.dispatch(request)
        except Exception:  # the client learns nothing about the inside, the log does
            _logger.exception("%s %r failed", request.method, request.path)
            response = failure(500, "the trust service failed; its log says why")
        if response.status >= HTTPStatus.BAD_REQUEST and response.status != HTTPStatus.CONFLICT:
            _logger.info("%s %r by %s: %d %s", request.method, request.path, peer, response.status, response.note)
        self._send(response, keep=not self.close_connection)

    def _send(self, response: Response, *, keep: bool = False) -> None:
        self.close_connection = not keep
        try:
            self.connection.settimeout(self.server.request_seconds)
            self.connection.sendall(encode(response, keep=keep, body=getattr(self, "command", "") != "HEAD"))
        except OSError:
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Used by the parser of request line and headers."""
        self._send(failure(int(code), message or explain or HTTPStatus(code).phrase))

    def handle_expect_100(self) -> bool:
        self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing is written for each request."""
