"""HTTP with one deadline for everything: connect, send, wait and read, over TCP, TLS or a unix socket.

Stock Sigstore clients wait for a log without limit (sigstore-python 4.5.1 sets no timeout there), so a hung service
hangs the pipeline. Here the clock starts with the request, and a service that sends a byte a second does not stretch
it, neither in the headers nor in the body: each read gets only what is left of the time. Looking up a host's name is
the one step that cannot be cut short. ``http+unix://%2Frun%2Fmlseal%2Fsock/prefix`` names a unix socket, as Docker's
clients write it.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from mlseal.errors import Misuse, ServiceUnavailable

MAX_RESPONSE = 8 * 1024 * 1024


@dataclass(frozen=True)
class Response:
    """Status and body of an answer."""

    status: int
    body: bytes


class _Line:
    """A connected socket as `http.client` uses one, on which every send and every read ends at `end`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.end = 0.0

    def limit(self) -> None:
        """Give the next call on the socket what is left of the time. Raises `TimeoutError` when nothing is."""
        self._sock.settimeout(_left(self.end))

    def sendall(self, data: bytes) -> None:
        self.limit()
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self, self._sock.makefile("rb", buffering=0)))

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        self.close()  # of a thread that ended, or of one whose `Connection` went away in another


class _Reads(io.RawIOBase):
    """The reading side of a `_Line`: one `recv` each, as long as there is time."""

    def __init__(self, line: _Line, raw: io.RawIOBase) -> None:
        self._line, self._raw = line, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._line.limit()
        return cast("int | None", self._raw.readinto(buffer))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Http(http.client.HTTPConnection):
    """A connection to the service at `base`, over whatever its URL names."""

    def __init__(self, base: str, ca_file: str | None) -> None:
        parts = urlsplit(base)
        self._base, self._tls, self._ca_file = base, parts.scheme == "https", ca_file
        self.end = 0.0
        self._line: _Line | None = None
        if self._tls:
            self.default_port = 443
        host = "localhost" if socket_path(base) else str(parts.hostname)
        port = self.default_port if parts.port is None else parts.port  # else the end of an IPv6 address becomes one
        super().__init__(host, port)

    def until(self, end: float) -> None:
        """Let the next request end at `end` (monotonic)."""
        self.end = end
        if self._line is not None:
            self._line.end = end

    def connect(self) -> None:
        self.sock = self._line = _Line(self._connected())
        self._line.end = self.end

    def _connected(self) -> socket.socket:
        if (path := socket_path(self._base)) is not None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            return _tried(sock, path, self.end)
        failed: OSError = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM):
            try:
                sock = _tried(socket.socket(family, kind, protocol), address, self.end)
            except OSError as error:
                failed = error
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._secured(sock) if self._tls else sock
        raise failed

    def _secured(self, sock: socket.socket) -> socket.socket:
        try:
            context = ssl.create_default_context(cafile=self._ca_file or os.environ.get("MLSEAL_TLS_CA") or None)
            sock.settimeout(_left(self.end))
            return context.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise


def _tried(sock: socket.socket, address: Any, end: float) -> socket.socket:
    try:
        sock.settimeout(_left(end))
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline passed")
    return left


def socket_path(url: str) -> str | None:
    """The unix socket that `url` names, or None for TCP."""
    parts = urlsplit(url)
    return unquote(parts.netloc) if parts.scheme == "http+unix" else None


class Connection:
    """A kept-alive connection to one service; one per thread.

    Args:
        base: URL that every path is appended to.
        deadline: seconds for one request, everything included.
        ca_file: whose certificates count, instead of ``$MLSEAL_TLS_CA`` and the machine's.
        most: bytes of an answer, beyond which it is none.
    """

    def __init__(self, base: str, deadline: float, *, ca_file: str | None = None, most: int = MAX_RESPONSE) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https", "http+unix") or not parts.netloc:
            raise Misuse("not a service URL", got=base[:120], expected="https://…, http://127.0.0.1… or http+unix://…")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Misuse("plain http would send the token in the clear", got=base[:120], expected="https://…")
        self.base, self.deadline = base, deadline
        self._ca_file, self._most = ca_file, most
        self._prefix = parts.path.rstrip("/")
        self._local = threading.local()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        """Send and read the whole answer, whatever its status. Raises `ServiceUnavailable` at the deadline.

        A kept-alive connection that the service closed meanwhile is opened once more; that is safe because nothing of
        the answer had arrived, and the log is idempotent.
        """
        end = time.monotonic() + self.deadline
        reused = getattr(self._local, "connection", None) is not None
        try:
            return self._once(method, path, body, headers or {}, end)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self._drop()
            if not reused:
                raise self._unavailable(error) from error
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._unavailable(error) from error
        try:
            return self._once(method, path, body, headers or {}, end)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._unavailable(error) from error

    def __del__(self) -> None:
        self._drop()

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str], end: float) -> Response:
        connection: _Http = getattr(self._local, "connection", None) or _Http(self.base, self._ca_file)
        self._local.connection = connection
        connection.until(end)
        connection.request(method, self._prefix + path, body=body, headers=headers)
        response = connection.getresponse()
        try:
            body = self._body(response)
        except BaseException:
            response.close()  # it holds the socket open
            raise
        if response.will_close:
            self._drop()
        return Response(response.status, body)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        chunks, size = [], 0
        while chunk := response.read1(1 << 16):
            size += len(chunk)
            if size > self._most:
                raise OSError(f"answer over {self._most} bytes")
            chunks.append(chunk)
        response.read()  # empty by now; tells http.client that the connection is free again
        return b"".join(chunks)

    def _drop(self) -> None:
        connection = getattr(getattr(self, "_local", None), "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        told = str(error) or type(error).__name__
        return ServiceUnavailable(
            f"the service at {unquote(self.base)} did not answer",
            got=told if told.isprintable() else ascii(told)[:200],  # it may quote what the service sent
            expected=f"an answer within {self.deadline:g} s",
            remedy="check that it runs ('mlseal serve') and that this user may reach it",
        )
