"""Whoever connects and says nothing does not keep a place; whoever asks properly does, for as long as it takes."""

import asyncio
import socket
import threading

import pytest
import uvicorn


async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(monkeypatch):
    from mlseal.services.guard import heads

    monkeypatch.setattr(heads, "SECONDS", 1.0)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=heads.Heads, ws="none", lifespan="off", log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(60)


def connected(port):
    return socket.create_connection(("127.0.0.1", port), 60)


@pytest.mark.parametrize("said", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nhost: x\r\n"])
def test_half_a_head_is_not_waited_for(port, said):
    with connected(port) as caller:
        caller.sendall(said)
        assert caller.recv(100) == b""


def test_bytes_now_and_then_buy_no_time(port):
    with connected(port) as caller:
        caller.settimeout(0.2)
        for _ in range(300):
            try:
                caller.sendall(b"x")
                assert caller.recv(100) in (b"",)
                break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("it was waited for")


def test_a_slow_body_and_a_second_request_are_served(port):
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
    with connected(port) as caller:
        for _ in range(2):
            caller.sendall(head + b"a")
            with connected(port) as silent:
                assert silent.recv(1) == b"", "a deadline passed while the body was due"
            caller.sendall(b"b")
            answer = b""
            while not answer.endswith(b"ab"):
                answer += caller.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")
        caller.sendall(b"POST /")
        assert caller.recv(100) == b"", "and the next head is due again"
