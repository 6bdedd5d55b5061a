"""The guard as callers meet it: the real application, a real server behind it, and what must not get through between."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from mlseal.errors import Error
from mlseal.services.guard.app import Guard, make
from mlseal.services.guard.callers import Callers
from mlseal.services.guard.output import Output
from mlseal.services.guard.rates import Rates
from mlseal.services.guard.settings import IdentityPart, LimitsPart, Settings
from mlseal.services.guard.signature import Column, Signature
from mlseal.services.guard.standing import Closed, Standing, Undecided
from mlseal.services.guard.upstream import Upstream

ROW = json.dumps({"instances": [{"age": 41, "note": "fine"}]}).encode()
JSON = ("content-type", "application/json")
SECRETS = {"got": "evidence 0123abcd at /run/user/7/mlseal.sock", "remedy": "ask https://oidc.cluster-a.example"}


class Switch(Standing):
    """A judgement that the test turns; how judgements are made is tested elsewhere."""

    def __init__(self) -> None:
        self.shut: Error | None = None

    def require(self) -> None:
        if self.shut is not None:
            raise self.shut


@dataclass
class Behind:
    """A model server that answers as the test says and keeps what it was sent."""

    url: str = ""
    seen: list[dict[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Callable[[], Iterator[bytes]] = lambda: iter([b'{"predictions": ["low risk"]}'])


@pytest.fixture
def behind() -> Iterator[Behind]:
    one = Behind()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            one.seen.append(dict(self.headers.items()))
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            for name, value in one.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in one.pieces():
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass  # the guard had enough

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    one.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield one
    server.shutdown()
    server.server_close()


@pytest.fixture
def guard(behind: Behind) -> Guard:
    return _guard(behind, IdentityPart(anonymous=True))


def _guard(behind: Behind, identity: IdentityPart, place: Path = Path(), **limits: object) -> Guard:
    settings = Settings(guard="desk/1", identity=identity, limits=LimitsPart(**limits))
    columns = Signature((Column("age", "long", True), Column("note", "string", False)))
    callers, rates = Callers(identity, place), Rates(settings.limits)
    parts = (callers, rates, columns, None, Output("mask"), Upstream(behind.url))
    return Guard(settings, ("desk", "0" * 64), Switch(), *parts)


def _ask(guard: Guard, *requests: dict) -> list[httpx.Response]:
    """The answers to `requests`, one after the other, by the application as it runs."""

    async def _all() -> list[httpx.Response]:
        app = make(guard)
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app):
            async with httpx.AsyncClient(transport=transport, base_url="http://guard", trust_env=False) as client:
                plain = {"method": "POST", "url": "/invocations", "content": ROW, "headers": [JSON]}
                return [await client.send(client.build_request(**plain | request)) for request in requests]

    return asyncio.run(asyncio.wait_for(_all(), 120))


def _token(header: dict, claims: dict) -> tuple[str, str]:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims))
    return "authorization", f"Bearer {'.'.join(parts)}.AAAA"


@pytest.fixture
def known(behind: Behind, tmp_path: Path) -> Guard:
    """One that wants tokens of a cluster."""
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    entry = {"issuer": "https://oidc.cluster-a.example", "audience": "desk", "san": "kubernetes"}
    entry["jwks"] = str(tmp_path / "jwks.json")
    (tmp_path / "issuers.json").write_text(json.dumps({"issuers": [entry]}))
    return _guard(behind, IdentityPart(providers="issuers.json"), tmp_path)


def test_an_ordinary_request_passes(guard: Guard, behind: Behind) -> None:
    (answer,) = _ask(guard, {})
    assert (answer.status_code, answer.json()) == (200, {"predictions": ["low risk"]})
    assert len(behind.seen) == 1 and behind.seen[0]["accept-encoding"] == "identity"


def test_what_is_withdrawn_while_the_body_comes_does_not_reach_the_model(guard: Guard, behind: Behind) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield ROW[:5]
        guard.standing.shut = Closed("withdrawn")
        yield ROW[5:]

    (answer,) = _ask(guard, {"content": slowly()})
    assert (answer.status_code, answer.json()["error"]) == (403, "Closed")
    assert not behind.seen


def test_what_is_withdrawn_while_the_model_works_does_not_answer(guard: Guard, behind: Behind) -> None:
    def late() -> Iterator[bytes]:
        yield b'{"predictions": '
        guard.standing.shut = Undecided("the log is gone")
        yield b'["low risk"]}'

    behind.pieces = late
    (answer,) = _ask(guard, {})
    assert (answer.status_code, answer.json()["error"]) == (503, "Undecided")
    assert b"low risk" not in answer.content and len(behind.seen) == 1


def test_an_answer_that_drips_is_late(behind: Behind) -> None:
    """Each piece comes in time; the whole does not."""
    over = threading.Event()

    def drip() -> Iterator[bytes]:
        yield b'{"predictions": ['
        for _ in range(40):
            over.wait(0.25)
            yield b" "
        yield b"]}"

    behind.pieces = drip
    (answer,) = _ask(_guard(behind, IdentityPart(anonymous=True), seconds=1.5), {})
    over.set()
    assert (answer.status_code, answer.json()["error"]) == (502, "BadUpstream")


def test_no_cookie_of_one_answer_goes_out_with_another_request(guard: Guard, behind: Behind) -> None:
    behind.headers = {"Set-Cookie": "who=first; Path=/"}
    answers = _ask(guard, {}, {})
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(behind.seen) == 2 and not any("cookie" in map(str.lower, seen) for seen in behind.seen)
    assert "set-cookie" not in answers[0].headers


def test_an_answer_in_other_bytes_than_asked_for_is_none(guard: Guard, behind: Behind) -> None:
    behind.headers = {"Content-Encoding": "gzip"}
    behind.pieces = lambda: iter([gzip.compress(b'{"predictions": ["low risk"]}')])
    (answer,) = _ask(guard, {})
    assert answer.status_code == 502 and "compressed" in answer.json()["message"]


@pytest.mark.parametrize("path", ["/invocations/", "/ping/", "/posture/"])
def test_nobody_is_sent_where_the_request_says(guard: Guard, path: str) -> None:
    (answer,) = _ask(guard, {"url": path, "headers": [JSON, ("host", "evil.example")]})
    assert answer.status_code == 404 and "location" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        [JSON, ("content-type", "text/csv")],
        [JSON, JSON],
        [JSON, ("authorization", "Bearer a.b.c"), ("authorization", "Bearer d.e.f")],
        [JSON, ("content-length", str(len(ROW))), ("transfer-encoding", "chunked")],
        [JSON, ("content-length", str(len(ROW))), ("content-length", "3")],
    ],
)
@pytest.mark.parametrize("path", ["/invocations", "/posture"])
def test_headers_with_two_meanings_are_refused(guard: Guard, behind: Behind, headers: list, path: str) -> None:
    method = "POST" if path == "/invocations" else "GET"
    (answer,) = _ask(guard, {"headers": headers, "url": path, "method": method})
    assert (answer.status_code, answer.json()["error"]) == (400, "BadFraming")
    assert answer.headers["connection"] == "close" and not behind.seen


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"alg": "\ud800"}, {"iss": "x"}),
        ({"alg": "ES256"}, {"iss": "\ud800evil"}),
        ({"alg": "ES256"}, {"iss": "other"}),
    ],
)
def test_a_stranger_is_told_nothing(known: Guard, behind: Behind, caplog, header: dict, claims: dict) -> None:
    """Half a surrogate pair is JSON, and no answer in UTF-8 could repeat it."""
    (answer,) = _ask(known, {"headers": [JSON, _token(header, claims)]})
    assert (answer.status_code, answer.json()["error"]) == (401, "Unidentified")
    assert "cluster-a" not in answer.text and "evil" not in answer.text and not behind.seen


@pytest.mark.parametrize("kind", [Closed, Undecided])
@pytest.mark.parametrize("path", ["/invocations", "/ping"])
def test_why_the_guard_is_closed_stands_in_its_log_alone(known: Guard, caplog, kind, path: str) -> None:
    known.standing.shut = kind(f"{kind.__name__} {path}", **SECRETS)
    method = "GET" if path == "/ping" else "POST"
    first, again = _ask(known, {"url": path, "method": method}, {"url": path, "method": method})
    assert first.status_code == again.status_code == kind.http_status
    assert first.json()["error"] == kind.__name__ and first.json()["message"]
    for secret in ("0123abcd", "mlseal.sock", "cluster-a"):
        assert secret not in first.text
    told = [record for record in caplog.records if record.name == "mlseal.guard"]
    assert len(told) == 1 and "0123abcd" in told[0].getMessage()


def test_an_error_can_be_said_in_utf8_whatever_it_found() -> None:
    error = Error("a \ud800 key", got="\udcff", expected="\ud800", remedy="leave \udfff out")
    told = json.dumps(error.to_dict(), ensure_ascii=False).encode() + str(error).encode()
    assert told.count(rb"\ud800") >= 2


def test_a_caller_who_is_known_is_told_what_was_wrong(guard: Guard) -> None:
    (answer,) = _ask(guard, {"content": b'{"instances": [{"age": "old"}]}'})
    assert (answer.status_code, answer.json()["expected"]) == (400, "long")


def test_a_fault_of_the_guard_is_an_error_and_no_way_through(guard: Guard, behind: Behind, monkeypatch, caplog) -> None:
    monkeypatch.setattr(guard, "signature", None)
    (answer,) = _ask(guard, {})
    assert (answer.status_code, answer.json()["error"]) == (500, "Fault")
    assert not behind.seen and "app.py" in caplog.text


@pytest.mark.parametrize(
    ("size", "on_the_loop"), [(100, [True, True]), (5000, [True, False]), (100_000, [False, False])]
)
def test_long_bodies_and_answers_are_not_read_on_the_event_loop(behind: Behind, size: int, on_the_loop: list) -> None:
    one, loop, threads = _guard(behind, IdentityPart(anonymous=True)), [], []

    class Watched(Output):
        def filtered(self, answer, longest=0):
            threads.append(threading.get_ident())
            return answer, 0

    class Columns(Signature):
        def require(self, rows):
            threads.append(threading.get_ident())

    one.output, one.signature = Watched("off"), Columns(one.signature.columns)
    behind.pieces = lambda: iter([json.dumps(["x" * size]).encode()])
    body = json.dumps({"instances": [{"age": 41, "note": "x" * size}]}).encode()

    async def content() -> AsyncIterator[bytes]:
        loop.append(threading.get_ident())
        yield body

    (answer,) = _ask(one, {"content": content()})
    assert answer.status_code == 200
    assert [thread == loop[0] for thread in threads] == on_the_loop
