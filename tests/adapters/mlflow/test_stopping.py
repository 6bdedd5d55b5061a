"""Refusals are signed after the answer: a server that is told to stop finishes them, one that is killed does at start."""

from __future__ import annotations

import http.server
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlseal_mlflow import serving

from mlseal.errors import ServiceUnavailable
from mlseal.evidence.audit import audit
from mlseal.evidence.tiles import service_tiles

MANY = 24


def refuse(shop, name, version):
    """Refusals that differ, all at once, so that most of them still wait to be signed."""

    def ask(number):
        return shop.post("registered-models/alias", name=name, alias=f"way-{number}", version=version).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(MANY))) == {403}


def waiting(shop):
    return list(shop.authority.home.path.glob(".local/state/mlseal/unpublished/*/*.json"))


def audited(shop):
    trust = shop.authority.trust
    return audit(trust, shop.authority.store, service_tiles(trust))


def refusals(shop, files):
    archive = shop.archive()
    archive.refresh()
    found = archive.candidates([shop.measured(files).sha256], ["slsa-vsa"])
    return {bundle.statement.predicate["mlseal"]["action"]["alias"] for bundle in found}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--gunicorn-opts", "--timeout 120")], ids=["uvicorn", "gunicorn"])
def test_a_server_told_to_stop_signs_its_refusals_first(new_shop, arguments):
    shop = new_shop(arguments=arguments)
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    before = len(list(shop.authority.store.ids()))
    refuse(shop, name, version)
    signed = len(list(shop.authority.store.ids())) - before
    shop.stop()
    assert signed < MANY, "nothing waited: this showed nothing"
    assert refusals(shop, files) == {f"way-{number}" for number in range(MANY)}
    assert audited(shop).passed
    assert waiting(shop) == []


@pytest.mark.slow
def test_a_server_that_was_killed_publishes_at_its_next_start(new_shop):
    shop = new_shop(workers=1)
    for _ in range(5):  # until one is hit between signing and storing
        name, version, _ = shop.model()
        refuse(shop, name, version)
        end = time.monotonic() + 5
        while not waiting(shop) and time.monotonic() < end:
            time.sleep(0.001)
        os.killpg(shop.server.process.pid, signal.SIGKILL)
        shop.server.process.wait()
        hit = waiting(shop)
        shop.start()
        assert waiting(shop) == []
        report = audited(shop)
        assert report.passed, report.findings
        if hit:
            break
    assert hit


def test_a_server_on_another_servers_port_is_not_taken_for_it(tmp_path):
    """A port that was free is taken by the time that it is listened on: somebody else answers there."""

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        threading.Thread(target=foreign.serve_forever, daemon=True).start()
        with pytest.raises(ServiceUnavailable, match="mlflow server ended"):
            serving.start(
                tmp_path,
                registry=f"sqlite:///{tmp_path}/registry.db",
                port=foreign.server_address[1],
                log=tmp_path / "log",
            )
        foreign.shutdown()
