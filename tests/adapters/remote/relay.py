"""A real S3 service (moto) on loopback, and before it a relay that counts what is asked and lies where it is told to."""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>no</Message></Error>'


@dataclass(frozen=True)
class Lie:
    """What is answered instead. ``cut``: the length is that of the whole body, and half of it comes."""

    status: int = 0
    code: str = ""
    body: Callable[[bytes], bytes] | None = None
    cut: bool = False
    wait: threading.Event | None = None
    drop: bool = False


class Relay(ThreadingHTTPServer):
    """Stands before the S3 service. `lie` is asked for each request: method and path, as they came."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = urllib.parse.urlsplit(behind).netloc
        self.lie: Callable[[str, str], Lie | None] = lambda *_: None
        self.asked: list[tuple[str, str]] = []
        self.heads: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, method: str, part: str = "") -> int:
        return sum(one == method and part in path for one, path in self.asked)


class Handler(BaseHTTPRequestHandler):
    """Passes requests on."""

    protocol_version = "HTTP/1.1"
    server: Relay

    def _pass(self) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.heads.append(dict(self.headers))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        lie = self.server.lie(self.command, self.path) or Lie()
        if lie.wait is not None:
            lie.wait.wait(60)
        if lie.drop:
            self.close_connection = True
            return
        if lie.status:
            self._answer(lie.status, {"Content-Type": "application/xml"}, XML.format(lie.code).encode())
            return
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)
        connection.request(self.command, self.path, sent, dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        heads = {
            key: value
            for key, value in answer.getheaders()
            if key.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding", "etag")
        }
        if self.command == "HEAD":
            heads["Content-Length"] = answer.getheader("Content-Length", "0")
        if lie.body is not None:
            body = lie.body(body)
            heads = {k: v for k, v in heads.items() if not k.lower().startswith(("x-amz-checksum", "content-range"))}
        self._answer(answer.status, heads, body, cut=lie.cut)
        connection.close()

    def _answer(self, status: int, heads: dict[str, str], body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in heads.items():
            self.send_header(key, value)
        if "Content-Length" not in heads:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815 - as http.server calls them

    def log_message(self, *_: object) -> None:
        """Says nothing."""
