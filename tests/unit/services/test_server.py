"""What hostile and broken clients get: one JSON sentence, and nobody else waits for them."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from mlseal.services import routes, server


def exchange(path, data, *, half_close=False, timeout=10):
    """Send raw bytes, read until the other side closes or `timeout`."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.settimeout(timeout)
        plug.connect(str(path))
        try:
            plug.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        if half_close:
            plug.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := plug.recv(65_536):
            answer += chunk
        return answer


def refusal(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    document = json.loads(body)
    status = int(head.split()[1])
    assert set(document) == {"code", "message"}
    assert document["code"] == status
    assert b"Connection: close" in head
    return status


POST = b"POST /api/v1/timestamp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"\r\n", 411),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello", 411),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: +5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (POST + b"Content-Length: 65537\r\n\r\n" + b"x" * 65_537, 413),
        (POST + b"Content-Length: 99999999\r\n\r\n" + b"x" * 500_000, 413),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"DELETE /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /healthz HTTP/3.7\r\n\r\n", 505),
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello tls\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n" + b"A: b\r\n" * 150 + b"\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    ],
    ids=lambda value: value[:40].decode("latin1") if isinstance(value, bytes) else str(value),
)
def test_requests_that_are_none(shared, data, status):
    assert refusal(exchange(shared.socket, data)) == status
    assert shared.call("GET", "/healthz")[0] == 200


def test_body_that_ends_early(shared):
    assert refusal(exchange(shared.socket, POST + b"Content-Length: 100\r\n\r\nhello", half_close=True)) == 400


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/api/v2", "/healthz/", "/issuer", "*", "/%00", "/log/", "http://x/healthz"]
)
def test_paths_that_lead_nowhere(shared, path):
    status, document = shared.call("GET", path)
    assert (status, document["code"]) == (404, 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/timestamp"), ("POST", "/healthz"), ("GET", "/issuer/token"), ("GET", "/api/v2/signingCert")],
)
def test_methods_that_do_not_fit(shared, method, path):
    status, document = shared.call(
        method, path, b"" if method == "POST" else None, {"Content-Length": "0"} if method == "POST" else None
    )
    assert (status, document["code"]) == (405, 405)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', b'{"x": NaN}', b"\xff\xfe", b"[" * 60_000, b'"\\ud800"', b"1" * 5000],
)
def test_json_that_is_none(shared, body):
    for path in (
        "/api/v2/signingCert",
        "/log/log1.lab.mlseal.local/api/v2/log/entries",
        "/issuer/token",
        "/api/v1/timestamp",
    ):
        status, document = shared.call(
            "POST", path, body, {"Content-Type": "application/json", "Authorization": "Bearer x.y.z"}
        )
        assert status in (400, 401), (path, document)
        assert set(document) == {"code", "message"}


def test_keep_alive_and_head(shared):
    connection = shared.connection()
    for _ in range(3):
        assert shared.call("GET", "/healthz", connection=connection)[0] == 200
        assert shared.call("GET", "/nowhere", connection=connection)[0] == 404
    connection.request("HEAD", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0
    connection.close()


def test_clients_that_hang_do_not_block_others(shared):
    hanging = []
    try:
        for number in range(120):
            plug = socket.socket(socket.AF_UNIX)
            plug.connect(shared.socket)
            plug.sendall([b"", b"GET /he", POST + b"Content-Length: 500\r\n\r\n{"][number % 3])
            hanging.append(plug)
        started = time.monotonic()
        assert shared.bundle(77)
        assert time.monotonic() - started < server.REQUEST_SECONDS, "they are waited for so long"
    finally:
        for plug in hanging:
            plug.close()


def test_32_clients_at_once(shared):
    def work(number):
        return [shared.bundle(number * 100 + turn) for turn in range(3)]

    size = shared.size("log")
    with ThreadPoolExecutor(32) as pool:
        bundles = [bundle for some in pool.map(work, range(1000, 1032)) for bundle in some]
    assert shared.size("log") == size + 96
    indexes = {json.loads(b)["verificationMaterial"]["tlogEntries"][0]["logIndex"] for b in bundles}
    assert len(indexes) == 96
    import stock

    outcomes = stock.sigstore_js_many(
        [(b, "https://lab.mlseal.local/roles/producer", "https://lab.mlseal.local/issuer") for b in bundles],
        shared.trusted_root,
    )
    assert not [o for o in outcomes if isinstance(o, stock.Rejected)]


@pytest.fixture
def small(tmp_path):
    """A server with short patience in this process, answering everything with the number of bytes it got."""
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / "s"
    listener.bind(str(path))
    listener.listen(64)
    made = server.Server(
        listener, lambda request: routes.answer(200, len(request.body)) if request.path != "/boom" else 1 / 0,
        request_seconds=0.5, idle_seconds=1.0,
    )  # fmt: skip
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield path, made
    made.shutdown()
    made.server_close()
    thread.join()


def test_slow_clients_get_a_deadline_however_they_drip(small):
    path, _ = small
    with socket.socket(socket.AF_UNIX) as plug:
        plug.settimeout(5)
        plug.connect(str(path))
        started = time.monotonic()
        data = b"GET /x HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 200
        try:
            for byte in data:
                plug.sendall(bytes([byte]))
                time.sleep(0.05)
        except OSError:
            pass
        assert refusal(plug.recv(4096)) == 408
        assert time.monotonic() - started < len(data) * 0.05, "dripping all of it takes so long"


def test_body_that_never_comes(small):
    path, _ = small
    started = time.monotonic()
    assert refusal(exchange(path, b"POST /x HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", timeout=60)) == 408
    assert time.monotonic() - started < server.REQUEST_SECONDS, "the deadline of this server is shorter"


def test_idle_connections_are_closed_silently(small):
    path, made = small
    assert exchange(path, b"") == b""
    assert made.busy == 0


def test_a_fault_says_nothing_about_the_inside(small):
    path, _ = small
    answer = exchange(path, b"GET /boom HTTP/1.1\r\n\r\n", half_close=True)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"ZeroDivision" not in answer
    assert b"Traceback" not in answer


def test_one_peer_cannot_take_every_connection(small, monkeypatch):
    path, made = small
    made.idle_seconds = made.request_seconds = 60  # what is plugged in must stay so, however slow the machine is
    monkeypatch.setattr(server, "MAX_PER_PEER", 5)
    plugs = []
    try:
        for _ in range(5):
            plug = socket.socket(socket.AF_UNIX)
            plug.connect(str(path))
            plugs.append(plug)
        # Nothing is sent: the kernel may drop an answer that it delivers to somebody whose request was never read.
        assert refusal(exchange(path, b"")) == 503
    finally:
        for plug in plugs:
            plug.close()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(ConnectionResetError):  # refused once more, as above
            if exchange(path, b"GET /x HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.05)
    raise AssertionError("connections that ended still count")
