"""Asking an OPA server: what it is told, and that a broken, slow or false one is never an answer.

Each server here is a socket that says what its test wants; one that evaluates Rego is in tests/adapters/opa.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import Error
from mlseal.policy import opa_answer
from mlseal.policy.document import Document
from mlseal.policy.opa_server import Servers
from mlseal.policy.schema import Opa

SHOWN = Document(b'{"now":"2026-11-23T12:00:00Z"}', {"now": "2026-11-23T12:00:00Z"})
Behaviour = Callable[[socket.socket], None]


class Loopback:
    """A server on this machine whose every connection is given to `behaviour`; keeps what it was sent."""

    def __init__(self, behaviour: Behaviour, context: ssl.SSLContext | None = None) -> None:
        self.behaviour, self.context = behaviour, context
        self.heard: list[bytes] = []
        self.connections = 0
        self.ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError), connection:
                spoken = self.context.wrap_socket(connection, server_side=True) if self.context else connection
                with contextlib.suppress(OSError), spoken:
                    self.heard.append(whole(spoken))
                    self.behaviour(spoken)

    def close(self) -> None:
        self.ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(30)


def whole(connection: socket.socket) -> bytes:
    """One request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536) or b" " * length
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def serving(behaviour: Behaviour, context: ssl.SSLContext | None = None) -> Iterator[Loopback]:
    server = Loopback(behaviour, context)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def reply(body: object = None, status: str = "200 OK", headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps({"result": True} if body is None else body).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(raw)}\r\n{headers}\r\n".encode() + raw


def says(answer: bytes) -> Behaviour:
    return lambda connection: connection.sendall(answer)


def ask(url: str, servers: Servers | None = None, **more: str) -> opa_answer.Said:
    engine = Opa.model_validate({"server": url, "decision": "mlseal/gate/allow", "timeout": "30s", **more})
    return (servers or Servers()).ask(engine, SHOWN)


def refused(url: str, said: str, **more: str) -> Error:
    with pytest.raises(Error) as caught:
        ask(url, **more)
    assert said in str(caught.value)
    assert caught.value.remedy
    assert str(caught.value).isprintable()
    return caught.value


def test_the_question_is_opas_data_api() -> None:
    with serving(says(reply())) as server:
        assert ask(server.url).allow is True
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/data/mlseal/gate/allow?provenance=true&strict-builtin-errors=true HTTP/1.1"
    assert "Content-Type: application/json" in lines
    assert not [line for line in lines if line.startswith("Authorization")]
    assert json.loads(body) == {"input": SHOWN.value}
    assert body == b'{"input":' + SHOWN.raw + b"}"  # the very bytes whose digest the verdict holds


def hangs(connection: socket.socket) -> None:
    connection.settimeout(30)
    connection.recv(1)  # until the other side goes away


def drips(data: bytes) -> Behaviour:
    def one_by_one(connection: socket.socket) -> None:
        for byte in data * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return one_by_one


SLOW = {
    "hanging": hangs,
    "dripping its headers": drips(b"x"),
    "dripping its body": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" "),
    "continuing for ever": drips(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW.keys())
def test_a_slow_server_gets_its_time_and_no_more(behaviour: Behaviour) -> None:
    with serving(behaviour) as server:
        began = time.monotonic()
        refused(server.url, "an answer within 1 s", timeout="1s")
        assert time.monotonic() - began < 20  # the dripping alone would take minutes


BROKEN = {
    "closing at once": (lambda connection: connection.close(), "did not answer"),
    "speaking another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "did not answer"),
    "writing on the terminal": (says(b"\x1b[2JALLOWED\r\n"), "did not answer"),
    "answering without end": (says(reply(b" " * (opa_answer.LARGEST + 1))), f"over {opa_answer.LARGEST} bytes"),
    "cutting itself off": (says(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"result": tr'), "not strict JSON"),
    "failing": (says(reply({"code": "internal_error"}, "500 Internal Server Error")), "status 500, internal_error"),
    "asking who asks": (says(reply({"code": "unauthorized"}, "401 Unauthorized")), "status 401, unauthorized"),
    "of another revision": (
        says(reply({"result": True, "provenance": {"bundles": {"gate": {"revision": "r2"}}}})),
        "another revision",
    ),
}


@pytest.mark.parametrize(("behaviour", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_server_is_no_answer(behaviour: Behaviour, said: str) -> None:
    with serving(behaviour) as server:
        refused(server.url, said, revision="r1")


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        refused(f"http://127.0.0.1:{taken.getsockname()[1]}", "did not answer")


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..example"])
def test_a_name_that_no_host_can_have(name: str) -> None:
    refused(f"https://{name}", "did not answer")


def test_a_redirect_is_not_followed() -> None:
    with serving(says(reply())) as lax:
        there = says(reply(b"", "307 Temporary Redirect", f"Location: {lax.url}/v1/data/mlseal/gate/allow\r\n"))
        with serving(there) as server:
            refused(server.url, "redirects")
        assert lax.connections == 0


def test_a_server_that_failed_is_not_asked_again_in_the_same_judgement() -> None:
    with serving(lambda connection: connection.close()) as server:
        servers = Servers()
        for _ in range(3):
            with pytest.raises(Error, match="did not answer"):
                ask(server.url, servers)
        assert server.connections == 1
        with pytest.raises(Error, match="did not answer"):  # a later judgement asks anew
            ask(server.url)
        assert server.connections == 2


def test_a_proxy_of_the_environment_is_not_asked() -> None:
    with serving(says(reply({"result": True}))) as proxy, serving(says(reply({"result": False}))) as server:
        with environment(http_proxy=proxy.url, HTTP_PROXY=proxy.url, ALL_PROXY=proxy.url, no_proxy=""):
            assert ask(server.url).allow is False
        assert proxy.connections == 0


def certificate(folder: Path, name: str = "ca") -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 4, True, *[False] * 3), critical=True)  # Python 3.13 is strict
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / f"{name}.pem", folder / f"{name}.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, secret)
    return file, context


def known(folder: Path, servers: Any) -> str:
    file = folder / "opa.json"
    file.write_text(servers if isinstance(servers, str) else json.dumps({"servers": servers}))
    return str(file)


def test_a_certificate_counts_only_from_the_authority_that_is_listed(tmp_path: Path) -> None:
    own, context = certificate(tmp_path)
    foreign, _ = certificate(tmp_path, "foreign")
    with serving(says(reply()), context) as server:
        refused(server.url, "certificate verify failed")
        for listed, allowed in ((own, True), (foreign, False)):
            with environment(MLSEAL_OPA=known(tmp_path, {server.url: {"caFile": str(listed)}})):
                if allowed:
                    assert ask(server.url).allow is True
                else:
                    refused(server.url, "certificate verify failed")
        assert len([request for request in server.heard if request]) == 1  # the others heard no question


def test_the_token_goes_to_the_server_it_is_listed_for_and_no_other(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one-word.of~trust==\n")
    with serving(says(reply())) as server, serving(says(reply())) as other:
        with environment(MLSEAL_OPA=known(tmp_path, {server.url: {"tokenFile": str(token)}})):
            ask(server.url)
            ask(other.url)
            token.write_text("rotated")
            ask(server.url)
        assert b"Authorization: Bearer one-word.of~trust==\r\n" in server.heard[0]
        assert b"Authorization: Bearer rotated\r\n" in server.heard[1]
        assert b"Authorization" not in other.heard[0]


def test_a_token_that_cannot_be_sent_stops_before_the_question(tmp_path: Path) -> None:
    token = tmp_path / "token"
    with serving(says(reply())) as server:
        with environment(MLSEAL_OPA=known(tmp_path, {server.url: {"tokenFile": str(token)}})):
            refused(server.url, "cannot read the token for OPA")
            for text in ("", "two words", "a\r\nX-Admin: yes", "ü"):
                token.write_text(text)
                refused(server.url, "holds no bearer token")
        assert server.connections == 0


WRONG_FILES = {
    "no JSON": "servers:",
    "twice": '{"servers": {}, "servers": {}}',
    "no servers": "{}",
    "more": '{"servers": {}, "proxy": "http://x"}',
    "a list": '{"servers": []}',
    "a text": '{"servers": {"http://127.0.0.1:1": "token"}}',
    "a misspelt member": '{"servers": {"http://127.0.0.1:1": {"cafile": "/ca.pem"}}}',
    "a path of the tree": '{"servers": {"http://127.0.0.1:1": {"caFile": "ca.pem"}}}',
}


@pytest.mark.parametrize("text", WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_a_file_about_servers_that_is_not_understood_stops(tmp_path: Path, text: str) -> None:
    with serving(says(reply())) as server:
        with environment(MLSEAL_OPA=known(tmp_path, text)):
            refused(server.url, "opa.json")
        with environment(MLSEAL_OPA=str(tmp_path / "absent.json")):
            refused(server.url, "cannot read what is known of OPA servers")
        assert server.connections == 0


def test_the_file_of_this_user_is_read(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("mine")
    with serving(says(reply())) as server, environment(MLSEAL_CONFIG_DIR=str(tmp_path)):
        known(tmp_path, {server.url: {"tokenFile": str(token)}})
        ask(server.url)
        assert b"Authorization: Bearer mine\r\n" in server.heard[0]
