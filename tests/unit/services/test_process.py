"""One process for each authority: started when needed, alone, gone when idle, and nothing lost when it is killed."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mlseal.errors import ServiceUnavailable
from mlseal.services import process

NAME = "lab.mlseal.local"


def serve(lab, *args):
    return subprocess.Popen(
        [sys.executable, "-m", "mlseal", "serve", "--state", str(lab.state), *args], env=lab.env, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def fill(lab, acknowledged, stop):
    """Append until told to stop or the service is gone; remember what was acknowledged."""
    try:
        certificate, key = lab.leaf(lab.token())
        connection = lab.connection()
        while not stop.is_set():
            digest = os.urandom(32)
            signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
            request = lab.entry_request(digest, signature, certificate)
            status, entry = lab.append(request, connection=connection)
            assert status == 201
            acknowledged[digest] = request, entry["logIndex"]
    except (OSError, http.client.HTTPException):
        pass


def test_prints_nothing_and_ends_cleanly(lab):
    lab.create()
    running = lab.start()
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=20)
    lab.process = None
    assert (running.returncode, out, err) == (0, b"", b"")
    assert not Path(lab.socket).exists()


def test_starters_racing_leave_one_service(lab):
    lab.create()
    racing = [serve(lab, "--idle", "60") for _ in range(4)]
    try:
        lab.wait_until_up()
        end = time.monotonic() + 20
        while sum(p.poll() is None for p in racing) > 1 and time.monotonic() < end:
            time.sleep(0.05)
        alive = [p for p in racing if p.poll() is None]
        assert len(alive) == 1
        assert [p.returncode for p in racing if p.poll() is not None] == [0, 0, 0]
        assert lab.bundle()
    finally:
        for p in racing:
            p.terminate()
            p.communicate(timeout=20)


def test_start_on_demand(lab, monkeypatch):
    lab.create()
    for name in ("HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, lab.env[name])
    pid = process.start(lab.state, idle=30)
    assert pid
    try:
        assert process.start(lab.state) is None
        assert lab.bundle()
    finally:
        os.kill(pid, signal.SIGTERM)
        process._started[-1].wait(20)


def test_start_says_why_it_did_not(lab, monkeypatch):
    lab.create()
    (lab.state / "keys" / "1" / "log.pem").unlink()
    for name in ("HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, lab.env[name])
    with pytest.raises(ServiceUnavailable, match="did not start.*exit status 11.*mlseal serve"):
        process.start(lab.state)


@pytest.mark.parametrize("leftover", ["socket", "file"])
def test_what_a_dead_process_left_is_replaced(lab, leftover):
    lab.create()
    if leftover == "socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(lab.socket)
    else:
        Path(lab.socket).write_text("x")
    lab.start()
    assert lab.bundle()


def test_ends_when_idle_and_comes_back(lab):
    lab.create()
    running = lab.start("--idle", "0.5")
    assert running.wait(20) == 0
    assert not Path(lab.socket).exists()
    lab.start()
    assert lab.bundle()


def test_does_not_end_under_a_request_or_a_visitor(lab):
    lab.create()
    running = lab.start("--idle", "1")
    for _ in range(8):
        time.sleep(0.3)
        assert lab.call("GET", "/healthz")[0] == 200
    assert running.poll() is None


def test_ends_when_its_state_is_removed(lab):
    import shutil

    lab.create()
    running = lab.start()
    shutil.rmtree(lab.state)
    assert running.wait(20) == 0


def test_killed_while_appending_nothing_acknowledged_is_lost(lab):
    lab.create()
    acknowledged = {}
    for _ in range(4):
        running = lab.start()
        stop = threading.Event()
        writers = [threading.Thread(target=fill, args=(lab, acknowledged, stop)) for _ in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(0.6)
        running.kill()
        stop.set()
        for writer in writers:
            writer.join(20)
        lab.stop()
    lab.start()
    assert len(acknowledged) > 20
    for request, index in acknowledged.values():
        status, entry = lab.append(request)
        assert (status, entry["logIndex"]) == (409, index)
    assert lab.size("log") >= len(acknowledged)
    assert lab.size("ct") > 0


def test_long_paths_get_a_short_socket(lab):
    lab.state = lab.root / ("d" * 60) / ("e" * 60) / "state"
    lab.create()
    assert len(lab.socket) < 100
    lab.start()
    assert lab.bundle()
    lab.stop()
    assert not Path(lab.socket).parent.exists()
    lab.start()
    assert lab.call("GET", "/healthz")[0] == 200


def test_full_disk_while_running_is_told_and_survived(lab):
    """The log cannot grow any more: the caller hears so, nothing is acknowledged, and room makes it work again."""
    import resource

    lab.create()
    running = lab.start()
    lab.bundle(1)
    size = lab.size("log")
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    status, document, _ = lab.certificate(lab.token())
    assert (status, document["code"]) == (503, 503)
    assert lab.size("log") == size
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert lab.bundle(2)
    assert lab.size("log") == size + 1
