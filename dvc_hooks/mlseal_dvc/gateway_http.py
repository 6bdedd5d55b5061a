"""The gateway on the wire: HTTP/1.1 over TLS or loopback, small and suspicious.

Bodies stream, whole or in chunks, as DVC's HTTP client sends them. What a client can cost is bounded: time for the
head, a pace for the body, its size, connections in all and for each peer, uploads at once. Framing that two parsers
could read in two ways is refused: two lengths, a length beside chunks, chunk extensions, trailers. The reason of a
refusal stands in the status line too, because that is what DVC shows.

Who asks is known before a body is read (`gateway_access`), unless the gateway is anonymous. Below the name of its
bucket the same files are served to S3 clients (`gateway_s3`).
"""

from __future__ import annotations

import io
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from mlseal.errors import Error, ServiceUnavailable
from mlseal.services.routes import Response, failure
from mlseal.services.server import Server
from mlseal_dvc.gateway import Answer, Found, Gateway, status_of
from mlseal_dvc.gateway_access import Action, Callers, NotListed, Unknown
from mlseal_dvc.gateway_paths import Malformed, Target, target
from mlseal_dvc.gateway_s3 import S3Front, fault
from mlseal_dvc.gateway_spool import Full, TooLarge

_logger = logging.getLogger("mlseal.gateway")
_CHUNK = 1 << 20
_LINE = 1024
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})\r\n")
_METHODS = ("GET", "HEAD", "PUT", "POST")
_PLAIN = "application/octet-stream"
HEAD_SECONDS, IDLE_SECONDS, GRACE_SECONDS = 10.0, 60.0, 30.0
BYTES_PER_SECOND = 16 << 10
"""What a body must bring on the average, after the grace."""
UPLOADS, WAIT_SECONDS = 64, 20.0


class GatewayServer(Server):
    """Serves `listener` (bound, listening TCP socket) until `shutdown`.

    Args:
        callers: who may read and write; None lets everybody who connects.
        bucket: name under which S3 clients find the same files; None serves them nothing.
        grace: seconds before the pace of a body counts; also the longest silence within one.
    """

    def __init__(
        self,
        listener: socket.socket,
        gateway: Gateway,
        *,
        callers: Callers | None = None,
        bucket: str | None = None,
        tls: ssl.SSLContext | None = None,
        head_seconds: float = HEAD_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        super().__init__(listener, _no_dispatch, tls=tls, request_seconds=head_seconds, idle_seconds=IDLE_SECONDS)
        self.gateway, self.grace, self.callers = gateway, grace, callers
        self.s3 = S3Front(gateway, bucket, callers) if bucket else None
        self.uploads = threading.BoundedSemaphore(UPLOADS)
        self.RequestHandlerClass = _Handler

    def service_actions(self) -> None:
        """Between two connections: end what nobody goes on with."""
        if self.s3 is not None:
            self.s3.parts.sweep()


def _no_dispatch(_: object) -> Response:
    return failure(500, "not served this way")


class _Paced(io.RawIOBase):
    """Reads a socket until a moment that moves on with the bytes that come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self.end, self._per_byte = connection, 0.0, 0.0

    def allow(self, seconds: float, *, pace: bool = False) -> None:
        """From now on so many seconds, and more for each byte where there is a pace."""
        self.end = time.monotonic() + seconds
        self._per_byte = 1 / BYTES_PER_SECOND if pace else 0.0
        self._silence = seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, self._silence))
        count = self._connection.recv_into(buffer)
        self.end += count * self._per_byte
        return count


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: GatewayServer
    client_address: Any

    def setup(self) -> None:
        self.connection = self.request
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls is not None:
            self.connection.settimeout(self.server.request_seconds)
            self.request = self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self._paced = _Paced(self.connection)
        self.rfile = self._reader = io.BufferedReader(self._paced, 64 * 1024)

    def finish(self) -> None:
        if self.server.tls is not None:
            self.server.shutdown_request(self.connection)

    def handle_one_request(self) -> None:
        self.close_connection, self._asked_to_continue, self._last = True, False, True
        self.command, self._speaks_s3, self._read_whole, self._begun = "", False, False, False
        try:
            self._paced.allow(self.server.idle_seconds)
            if not self._reader.peek(1):
                return
        except OSError:
            return
        try:
            self._paced.allow(self.server.request_seconds)
            self._one()
        except TimeoutError:
            self._refuse(408, "the request came too slowly")
        except Malformed as error:
            self._answer_malformed(*error.args)
        except OSError:
            self.close_connection = True

    def _answer_malformed(self, status: int, message: str) -> None:
        """The connection can go on where all of the request was read, and nothing of an answer was sent."""
        if self._begun or not self._read_whole:
            self._refuse(status, message)
            return
        try:
            self._say(Answer(status, message), keep=True)
        except OSError:
            self.close_connection = True

    def _one(self) -> None:
        self.raw_requestline = self.rfile.readline(8 * 1024 + 1)
        if len(self.raw_requestline) > 8 * 1024:
            raise Malformed(414, "the request line is too long")
        if not self.parse_request():
            return
        self._last = self.close_connection
        path, mark, query = self.requestline.split()[1].partition("?")  # as it came: the base class mends some
        if self.request_version not in ("HTTP/1.0", "HTTP/1.1"):
            raise Malformed(400, "HTTP/1.1 is spoken here")
        if any(sign in path for sign in "%\\#") or "/.." in path or "//" in path:
            raise Malformed(400, "the path holds signs that no file of a remote has")
        s3 = self.server.s3
        self._speaks_s3 = s3 is not None and s3.owns(path)
        if s3 is not None and self._speaks_s3:
            s3.serve(self, path, query)
            return
        if mark:
            raise Malformed(400, "the path holds signs that no file of a remote has")
        if self.command not in _METHODS:
            raise Malformed(405, f"{self.command[:20]} is not served")
        writes = self.command in ("PUT", "POST")
        if not writes:
            self.require_no_body()
        who, found = self._known("write" if writes else "read"), target(path)
        if writes:
            self._store(found, who)
        else:
            self._hand_out(found)

    def _known(self, action: Action) -> str:
        """Whoever asks, for the log; '' if nobody asks who. Raises `Malformed`."""
        if self.server.callers is None:
            return ""
        try:
            who = self.server.callers.bearer(self.headers.get_all("Authorization") or [])
            self.server.callers.access.require(who, action)
        except Unknown as error:
            raise Malformed(401, str(error)) from error
        except NotListed as error:
            raise Malformed(403, str(error)) from error
        except ServiceUnavailable as error:
            raise Malformed(503, str(error)) from error
        return who.san

    def require_no_body(self) -> None:
        """Raise `Malformed` if the request announces one."""
        if self.headers.get_all("Content-Length", ["0"]) != ["0"] or self.headers.get("Transfer-Encoding"):
            raise Malformed(400, f"{self.command} has no body")
        self._read_whole = True

    def _framing(self) -> int | None:
        """Length of the body; None for chunks."""
        lengths, codings = (self.headers.get_all(name) or [] for name in ("Content-Length", "Transfer-Encoding"))
        if codings and (lengths or [coding.strip().lower() for coding in codings] != ["chunked"]):
            raise Malformed(400, "the body is either chunked or has a length, and nothing else")
        if codings:
            return None
        if not lengths:
            raise Malformed(411, "the body needs a length, or chunks")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdecimal() and len(lengths[0]) <= 15):
            raise Malformed(400, "the length of the body is not one number")
        return int(lengths[0])

    def _store(self, found: Target | None, who: str) -> None:
        if found is None:
            raise Malformed(404, "no file of a DVC remote (version 3) or of its evidence has this name")
        gateway = self.server.gateway
        with self.incoming(gateway.limit(found)) as chunks:
            answer = gateway.store(found, chunks, self.peer(who))
        self._say(answer, keep=True)

    def peer(self, who: str) -> str:
        """Where a request comes from and on whose behalf, for the log."""
        return f"{self.client_address} {who}".rstrip()

    @contextmanager
    def incoming(self, limit: int) -> Iterator[Iterator[bytes]]:
        """The request's body, when there is room for it. Raises `Malformed` for one that is not as it should be."""
        length = self._framing()
        if length is not None and length > limit:
            raise Malformed(413, f"the body is larger than {limit} bytes")
        if not self.server.uploads.acquire(timeout=WAIT_SECONDS):
            raise Malformed(503, "too many uploads at once; try again")
        try:
            if self._asked_to_continue:
                self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._paced.allow(self.server.grace, pace=True)
            yield self._noting_the_end(self._chunks() if length is None else self._plain(length))
        except TooLarge:
            raise Malformed(413, f"the body is larger than {limit} bytes") from None
        except Full:
            raise Malformed(503, "too many bytes on their way in at once; try again") from None
        except Error as error:
            raise Malformed(status_of(error), str(error)) from error
        finally:
            self.server.uploads.release()

    def _noting_the_end(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        self._read_whole = True

    def _plain(self, length: int) -> Iterator[bytes]:
        while length:
            chunk = self._reader.read1(min(length, _CHUNK))
            if not chunk:
                raise Malformed(400, "the body is shorter than announced")
            length -= len(chunk)
            yield chunk

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = _CHUNK_SIZE.fullmatch(self._reader.readline(_LINE))
            if size is None:
                raise Malformed(400, "the size of a chunk is no number")
            left = int(size[1], 16)
            if left:
                yield from self._plain(left)
            if self._reader.read(2) != b"\r\n":
                raise Malformed(400, "a chunk does not end where it should, or trailers follow")
            if not left:
                return

    def _hand_out(self, found: Target | None) -> None:
        gateway = self.server.gateway
        try:
            if found is None:
                self._say(Answer(404, "no such file"), keep=True)
            elif self.command == "HEAD":
                size = gateway.size(found)
                self.begin(404 if size is None else 200, "no such file" if size is None else "OK", size or 0)
            else:
                with gateway.read(found) as file:
                    if file is None:
                        self._say(Answer(404, "no such file"), keep=True)
                    else:
                        self._send_file(file)
        except Error as error:
            raise Malformed(status_of(error), str(error)) from error

    def _send_file(self, found: Found) -> None:
        self.send(found, 0, found.size)

    def send(
        self, found: Found, start: int, size: int, status: int = 200, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Answer with `size` bytes of a file from `start` on."""
        self.begin(status, "OK", size, headers)
        self.close_connection, skip, left = True, start, size
        try:
            while skip and (chunk := found.file.read(min(skip, _CHUNK))):
                skip -= len(chunk)
            while left and (chunk := found.file.read(min(left, _CHUNK))):
                self.connection.sendall(chunk)
                left -= len(chunk)
        except Exception as error:  # noqa: BLE001 - a store that stops half-way: the client sees fewer bytes than announced
            _logger.warning("handing out %s broke: %r", self.path, error)
            return
        self.close_connection = left > 0 or self._last

    def begin(
        self, status: int, reason: str, size: int, headers: Sequence[tuple[str, str]] = (), *, keep: bool = True
    ) -> None:
        """Write the head of an answer with `size` bytes of body."""
        keep, self._begun = keep and not self._last, True
        self.close_connection = not keep
        given = {"Content-Type": _PLAIN, "Accept-Ranges": "none"} | dict(headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        head = (
            f"HTTP/1.1 {status} {_phrase(reason)}\r\nContent-Length: {size}\r\n{lines}"
            f"X-Content-Type-Options: nosniff\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self.connection.settimeout(self.server.grace)
        self.connection.sendall(head.encode("ascii"))

    def say(
        self, status: int, reason: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = (), *, keep: bool = True
    ) -> None:
        """A whole answer."""
        self.begin(status, reason, len(body), headers, keep=keep)
        if self.command != "HEAD":
            self.connection.sendall(body)

    def _say(self, answer: Answer, *, keep: bool) -> None:
        headers = [("WWW-Authenticate", 'Bearer realm="mlseal"')] if answer.status == 401 else []
        body = f"{answer.message}\n".encode()
        if self._speaks_s3:
            body, headers = fault(answer.status, answer.message), [("Content-Type", "application/xml")]
        self.say(answer.status, answer.message, b"" if self.command == "HEAD" else body, headers, keep=keep)

    def _refuse(self, status: int, message: str) -> None:
        """Answer, and read what still comes, a little: closing at once would reset the refusal away."""
        self.close_connection = True
        if self._begun:  # there is half an answer on the wire, and nothing to add to it
            return
        with suppress(OSError):
            self._say(Answer(status, message), keep=False)
            if self.server.tls is None:
                self.connection.shutdown(socket.SHUT_WR)
            self._paced.allow(1.0)
            left = 16 * _CHUNK
            while left > 0 and (chunk := self._reader.read1(_CHUNK)):
                left -= len(chunk)
        self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Used by the parser of request line and headers."""
        self._refuse(int(code), message or explain or HTTPStatus(code).phrase)

    def handle_expect_100(self) -> bool:
        self._asked_to_continue = True  # said when the body is wanted
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Nothing is written for each request."""


def _phrase(text: str) -> str:
    """`text` as it may stand in a status line."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)[:200] or "?"
