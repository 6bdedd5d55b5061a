"""A gateway inside the test's process, a signed push to feed it with, and a client that says exactly what it is told."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from adapters.dvc.people import COLLIDING
from mlseal_dvc.gateway import Gateway, open_gateway
from mlseal_dvc.gateway_admission import Admission
from mlseal_dvc.gateway_http import GatewayServer
from mlseal_dvc.gateway_ledger import Ledger
from mlseal_dvc.gateway_spool import Limits
from mlseal_dvc.session import Session

from mlseal.evidence.identity import Identity

SUFFIX = b"one of two files with this MD5\n"


@dataclass
class Push:
    """What a signed push left in a directory remote, and where it was made."""

    remote: Path
    issuer: str
    san: str
    trust: Path

    def names(self, kind: str) -> list[str]:
        """Names below the remote that begin with `kind`, in the order in which a push sends them."""
        found = [p.relative_to(self.remote).as_posix() for p in self.remote.rglob("*") if p.is_file()]
        return sorted((name for name in found if name.startswith(kind)), key=lambda n: (n.endswith("checkpoint"), n))

    def data(self, name: str) -> bytes:
        return (self.remote / name).read_bytes()

    @property
    def manifests(self) -> list[str]:
        return self.names("attestations/v1/manifests/")

    @property
    def log(self) -> list[str]:
        return self.names("attestations/v1/log/")

    @property
    def bundles(self) -> list[str]:
        return self.names("attestations/v1/bundles/")

    @property
    def objects(self) -> list[str]:
        return sorted(self.names("files/md5/"), key=lambda name: name.endswith(".dir"))


@dataclass
class Gate:
    """A running gateway and a client of it."""

    server: GatewayServer
    gateway: Gateway
    admission: Admission
    ledger: Ledger
    state: Path
    replies: list[tuple[int, str]] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        return self.server.socket.getsockname()[:2]

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        try:
            connection.request(
                method, path, body=body, headers=headers, encode_chunked=headers.get("Transfer-Encoding") == "chunked"
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def put(self, name: str, data: bytes, *, chunked: bool = False) -> int:
        if chunked:
            pieces = (data[i : i + 7] for i in range(0, len(data), 7))
            status, body = self.call("POST", f"/{name}", pieces, **{"Transfer-Encoding": "chunked"})
        else:
            status, body = self.call("PUT", f"/{name}", data)
        self.replies.append((status, body.decode(errors="replace")))
        return status

    def get(self, name: str) -> bytes | None:
        status, body = self.call("GET", f"/{name}")
        return body if status == 200 else None

    @property
    def said(self) -> str:
        return self.replies[-1][1]

    def send(self, push: Push, names: list[str]) -> list[int]:
        return [self.put(name, push.data(name)) for name in names]

    def send_evidence(self, push: Push) -> None:
        assert set(self.send(push, [*push.manifests, *push.log, *push.bundles])) <= {200, 201}, self.replies

    def raw(self, *parts: bytes, wait: float = 10.0) -> bytes:
        """Send bytes as they are, and give back all that comes until the end."""
        with socket.create_connection(self.address, timeout=wait) as connection:
            got = b""
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(65536):
                got += chunk
        return got

    def reasons(self) -> list[dict[str, Any]]:
        return [json.loads(p.read_text()) for p in sorted((self.state / "quarantine").glob("*.json"))]

    def kept(self) -> list[bytes]:
        return [p.read_bytes() for p in sorted((self.state / "quarantine").iterdir()) if p.suffix != ".json"]

    def stop(self) -> None:
        if self.server.socket.fileno() < 0:
            return
        self.server.shutdown()
        self.server.server_close()
        self.ledger.close()


def start(
    upstream: Any,
    state: Path,
    push: Push,
    *,
    san: str | None = None,
    policy: Path | None = None,
    limits: Limits | None = None,
    grace: float = 10.0,
    callers: Any = None,
    bucket: str | None = None,
    tls: ssl.SSLContext | None = None,
    **options: bool,
) -> Gate:
    """A gateway in front of `upstream` that admits what the signer of `push` signs, or `san` instead."""
    from mlseal.evidence import trust

    state.mkdir(parents=True, exist_ok=True)
    signers = (Identity(push.issuer, san or push.san),) if policy is None else ()
    session = Session(identities=signers, policy=str(policy) if policy else None, forced=True)
    ledger = Ledger(state / "ledger.db")
    admission = Admission(trust.load(push.trust), session, upstream, ledger)
    gateway = open_gateway(upstream, admission, ledger, state, limits or Limits(), **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = GatewayServer(listener, gateway, callers=callers, bucket=bucket, tls=tls, head_seconds=5, grace=grace)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return Gate(server, gateway, admission, ledger, state)


def stored(store: Path) -> list[str]:
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file())


def file_of(push: Push) -> str:
    md5 = hashlib.md5(COLLIDING[0] + SUFFIX).hexdigest()
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def directory_of(push: Push) -> str:
    return next(name for name in push.objects if name.endswith(".dir"))


class WebStore(ThreadingHTTPServer):
    """An HTTP server that keeps what is PUT, until it is told to fail."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keeps)
        self.files: dict[str, bytes] = {}
        self.failing: set[str] = set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return "http://{}:{}/store".format(*self.server_address[:2])


class _Keeps(BaseHTTPRequestHandler):
    server: WebStore
    protocol_version = "HTTP/1.1"

    def _say(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        if self.command in self.server.failing:
            return self._say(500)
        data = self.server.files.get(self.path)
        return self._say(404) if data is None else self._say(200, data)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "PUT" in self.server.failing:
            return self._say(500)
        if self.headers.get("If-None-Match") == "*" and self.path in self.server.files:
            return self._say(412)
        self.server.files[self.path] = body
        return self._say(201)

    def log_message(self, *_: Any) -> None:
        pass
