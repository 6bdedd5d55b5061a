"""HTTP with one deadline for everything: connect, send, wait and read, over TCP, TLS or a unix socket.

Stock Sigstore clients wait for a log without limit (sigstore-python 4.5.1 sets no timeout there), so a hung service
hangs the pipeline. Here the clock starts with the request, and a service that sends a byte a second does not stretch
it. ``http+unix://%2Frun%2Fmlseal%2Fsock/prefix`` names a unix socket, as Docker's clients write it.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mlseal.errors import Misuse, ServiceUnavailable

MAX_RESPONSE = 8 * 1024 * 1024


@dataclass(frozen=True)
class Response:
    """Status and body of an answer."""

    status: int
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def socket_path(url: str) -> str | None:
    """The unix socket that `url` names, or None for TCP."""
    parts = urlsplit(url)
    return unquote(parts.netloc) if parts.scheme == "http+unix" else None


class Connection:
    """A kept-alive connection to one service; one per thread.

    Args:
        base: URL that every path is appended to.
        deadline: seconds for one request, everything included.
    """

    def __init__(self, base: str, deadline: float) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https", "http+unix") or not parts.netloc:
            raise Misuse("not a service URL", got=base[:120], expected="https://…, http://127.0.0.1… or http+unix://…")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise Misuse("plain http would send the token in the clear", got=base[:120], expected="https://…")
        self.base, self.deadline = base, deadline
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
        connection = self._connection(end)
        connection.request(method, self._prefix + path, body=body, headers=headers)
        self._limit(connection, end)
        response = connection.getresponse()
        chunks, size = [], 0
        while chunk := response.read1(1 << 16):
            size += len(chunk)
            if size > MAX_RESPONSE:
                raise OSError(f"answer over {MAX_RESPONSE} bytes")
            chunks.append(chunk)
            self._limit(connection, end)
        response.read()  # empty by now; tells http.client that the connection is free again
        if response.will_close:
            self._drop()
        return Response(response.status, b"".join(chunks))

    def _connection(self, end: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._open(max(end - time.monotonic(), 0.001))
            self._local.connection = connection
        self._limit(connection, end)
        return connection

    def _open(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.base)
        if (path := socket_path(self.base)) is not None:
            return _UnixConnection(path, timeout)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=os.environ.get("MLSEAL_TLS_CA") or None)
            return http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=context)
        return http.client.HTTPConnection(parts.netloc, timeout=timeout)

    @staticmethod
    def _limit(connection: http.client.HTTPConnection, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline passed")
        connection.timeout = left
        if connection.sock is not None:
            connection.sock.settimeout(left)

    def _drop(self) -> None:
        connection = getattr(getattr(self, "_local", None), "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        return ServiceUnavailable(
            f"the service at {unquote(self.base)} did not answer",
            got=str(error) or type(error).__name__,
            expected=f"an answer within {self.deadline:g} s",
            remedy="check that it runs ('mlseal serve') and that this user may reach it",
        )
