"""The server behind the guard: what answers is the process that was started here, or nothing is asked."""

import os
import signal
import sys
import tempfile

import httpx
import pytest

from mlseal.errors import ServiceUnavailable
from mlseal.evidence.digest import measure
from mlseal.services.guard import upstream

SERVER = """
import http.server, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Answers).serve_forever()
"""
ELSEWHERE = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", SERVER, *sys.argv[1:]], start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def measured(tmp_path, monkeypatch):
    model, place = tmp_path / "model", tmp_path / "tmp"
    model.mkdir(), place.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield measure(model)
    assert not list(place.iterdir()), "the private copy is gone"


def command(text):
    return (sys.executable, "-c", text, "{model}", "{port}")


def test_a_server_that_ended_answers_for_nobody(measured):
    with upstream.serving(measured, command(SERVER)) as behind:
        assert behind.bound and httpx.get(f"{behind.url}/ping", trust_env=False).status_code == 200
        behind.require()
        os.killpg(behind.server.pid, signal.SIGKILL)
        behind.server.wait(60)
        with pytest.raises(ServiceUnavailable, match="has ended.*got status -9"):
            behind.require()


def test_another_program_on_the_port_is_not_the_server(measured, monkeypatch):
    monkeypatch.setattr(upstream, "STARTING_SECONDS", 3.0)
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        with upstream.serving(measured, command(ELSEWHERE.replace("SERVER", repr(SERVER)))):
            pass


def test_one_that_is_named_is_not_ours():
    assert not upstream.Upstream("http://127.0.0.1:1").bound
    upstream.Upstream("http://127.0.0.1:1").require()
