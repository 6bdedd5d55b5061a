"""Where the identity token comes from when no file is named: a projected volume, then what the CI system offers."""

import http.server
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from mlseal.errors import NotInitialised, ServiceUnavailable, Unreadable, UntrustedSigner
from mlseal.evidence import trust
from mlseal.evidence.signing.tokens import source_for

BARE = trust.load(Path(__file__).parents[2] / "golden" / "v0.1" / "trusted_root.json")
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJzaWdzdG9yZSJ9.c2lnbmF0dXJl"


class Actions(http.server.BaseHTTPRequestHandler):
    """What GitHub Actions offers to a job that may ask for tokens."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Authorization"]))
        status, document = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def job(monkeypatch):
    """A job on GitHub Actions, with its token service on this machine."""
    with http.server.HTTPServer(("127.0.0.1", 0), Actions) as server:
        server.asked, server.answer = [], (200, {"value": JWT})
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"http://127.0.0.1:{server.server_port}/token?api=1")
        yield server
        server.shutdown()


def test_token_of_the_ci_system_is_asked_for_with_our_audience(job):
    assert source_for("producer", BARE)() == JWT
    assert job.asked == [("/token?api=1&audience=sigstore", "bearer secret")]


@pytest.mark.parametrize("answer", [(500, {}), (200, {"other": 1}), (200, [])])
def test_ci_system_that_gives_no_token_is_a_refusal(job, answer):
    job.answer = answer
    with pytest.raises(UntrustedSigner, match="ambient credential"):
        source_for("producer", BARE)()


def test_job_that_may_not_ask_is_told_so(job, monkeypatch):
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    with pytest.raises(UntrustedSigner, match="permissions"):
        source_for("producer", BARE)()


def test_ci_system_that_hangs_ends_at_the_deadline(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        started = time.monotonic()
        with pytest.raises(ServiceUnavailable, match=r"within 0\.5 s"):
            source_for("producer", BARE, deadline=0.5)()
        assert time.monotonic() - started < 10


def test_without_any_the_ways_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no buildkite-agent, no circleci
    with pytest.raises(NotInitialised, match="--token-file"):
        source_for("producer", BARE)()


def test_projected_token_goes_before_the_ci_systems_and_is_read_each_time(job, monkeypatch, tmp_path):
    file = tmp_path / "oidc-token"
    monkeypatch.setenv("MLSEAL_PROJECTED_TOKEN", str(file))
    assert source_for("producer", BARE)() == JWT, "an absent volume is none"
    file.write_text("pro.jec.ted\n")
    source = source_for("producer", BARE)
    assert source() == "pro.jec.ted"
    file.write_text("ro.ta.ted")
    assert source() == "ro.ta.ted"
    file.write_text("not a token")
    with pytest.raises(Unreadable, match="holds no JWT"):
        source()
    assert len(job.asked) == 1


def test_a_named_file_goes_before_the_projected_one(monkeypatch, tmp_path):
    for name in ("named", "environment", "projected"):
        (tmp_path / name).write_text(f"{name}.b.c")
    monkeypatch.setenv("MLSEAL_PROJECTED_TOKEN", str(tmp_path / "projected"))
    monkeypatch.setenv("MLSEAL_TOKEN_FILE", str(tmp_path / "environment"))
    assert source_for("producer", BARE, token_file=tmp_path / "named")() == "named.b.c"
    assert source_for("producer", BARE)() == "environment.b.c"
