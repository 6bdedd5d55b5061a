"""Pushes that break off: killed, the disk full, the remote gone, two people at once. Nothing is lost or half there."""

from __future__ import annotations

import hashlib
import io
import re
import resource
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.gates import WebStore, _Keeps
from adapters.dvc.people import Person, Scene, fresh, policy_text, statement_in
from adapters.dvc.test_failures import evidence_covers_data

# Kills this process, as SIGKILL would, right before the first file of a kind is put in place; then DVC's command.
KILLER = """
import os, sys
kind = sys.argv[1]
def killing(real):
    def put(source, target, *args, **kwargs):
        if kind in os.fspath(target):
            os.kill(os.getpid(), 9)
        return real(source, target, *args, **kwargs)
    return put
os.replace, os.rename, os.link = killing(os.replace), killing(os.rename), killing(os.link)
from dvc.cli import main
sys.exit(main(sys.argv[2:]))
"""


def files(remote: Path) -> list[Path]:
    return [path for path in remote.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "command"), [("staging", "add"), ("/bundles/", "import-url"), ("remote/files/md5", "add")]
)
def test_killed_on_the_way_to_the_remote(scene: Scene, tmp_path: Path, kind: str, command: str) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_bytes(fresh())
    call = [command, str(outside), *(["-o", "in.csv"] if command == "add" else ["in.csv"]), "--to-remote"]
    done = scene.owner.run(str(scene.owner.python), "-c", KILLER, kind, *call, ok=None)
    assert done.returncode == -9, done.stderr
    assert outside.exists()
    assert not (scene.repo / "in.csv.dvc").exists()
    assert evidence_covers_data(scene)
    scene.owner.dvc(*call)
    assert [p for p in (scene.repo / ".dvc/tmp/mlseal/staging").rglob("*") if p.is_file()] == []
    scene.owner.commit("in")
    reader = scene.newcomer()
    reader.dvc("pull")
    assert (reader.cwd / "in.csv").read_bytes() == outside.read_bytes()


@pytest.mark.slow
def test_two_people_push_at_once(scene: Scene, authority: Any) -> None:
    """The same output, and one of their own each: everything is there, and signed by whoever pushed it."""
    sans = [authority.san("producer"), authority.san("gate")]
    both = ", ".join(f'{{issuer: "{authority.issuer}", san: "{san}"}}' for san in sans)
    scene.policy.write_text(
        policy_text(authority.issuer, sans[0]).replace(f"by: [{both.split(', {')[0]}]", f"by: [{both}]")
    )
    assert sans[1] in scene.policy.read_text()
    shared = fresh()
    scene.add("shared.csv", shared)
    colleague = scene.newcomer("colleague")
    own = {"DVC_SITE_CACHE_DIR": colleague.env["DVC_SITE_CACHE_DIR"], "MLSEAL_STATE_DIR": str(colleague.cwd) + "-state"}
    colleague.env = scene.owner.env | own
    for person, name in ((scene.owner, "mine.csv"), (colleague, "theirs.csv")):
        (person.cwd / name).write_bytes(fresh())
        (person.cwd / "shared.csv").write_bytes(shared)
        person.dvc("add", "-q", name, "shared.csv")
        person.commit(name)
    running = [
        subprocess.Popen(
            [str(person.python), "-m", "mlseal", "dvc", "push", "--role", role],
            cwd=person.cwd,
            env=person.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for person, role in ((scene.owner, "producer"), (colleague, "gate"))
    ]
    for process in running:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert len(scene.objects()) == 3
    assert evidence_covers_data(scene)
    for person in (scene.owner, colleague):
        assert "signed 0 outputs, 2 already signed" in person.dvc("push").stderr
    reader = scene.newcomer()
    reader.dvc("pull")
    assert (reader.cwd / "shared.csv").read_bytes() == shared


class _Vanishes(_Keeps):
    """Answers until a body of a kind has been kept, and then not at all; one body after the other."""

    server: Any

    def handle_one_request(self) -> None:
        self.close_connection = True
        if not self.server.gone:
            super().handle_one_request()

    def do_PUT(self) -> None:
        kept = self.rfile
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._whole()
            self.headers["Content-Length"] = str(len(body))
            self.rfile = io.BytesIO(body)
        try:
            with self.server.turn:
                if not self.server.gone:
                    super().do_PUT()
                    self.server.gone = bool(self.server.after) and self.server.after in self.path
        finally:
            self.rfile = kept

    do_POST = do_PUT

    def _whole(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


class Vanishing(WebStore):
    """Goes away after the first file of a kind was put."""

    def __init__(self, after: str) -> None:
        self.after, self.gone, self.turn = after, False, threading.Lock()
        super().__init__()
        self.RequestHandlerClass = _Vanishes

    def come_back(self) -> None:
        self.after, self.gone = "", False


@pytest.mark.slow
@pytest.mark.parametrize("after", ["/manifests/", "/bundles/", "/files/md5/"])
def test_a_remote_that_vanishes_while_it_is_pushed_to(scene: Scene, after: str) -> None:
    store = Vanishing(after)
    try:
        (scene.repo / ".dvc" / "config").write_text(
            f"[core]\n    remote = web\n['remote \"web\"']\n    url = {store.url}\n    method = PUT\n"
        )
        scene.owner.commit("web")
        scene.add("imgs", {"a": fresh(), "b": fresh()})
        done = scene.owner.dvc("push", ok=False)
        assert "Traceback" not in done.stderr
        kept = {name: data for name, data in store.files.items() if "/files/md5/" in name}
        bundles = [name for name in store.files if "/bundles/" in name]
        assert bundles or not kept, "data are never there without evidence"
        store.come_back()
        scene.owner.dvc("push")
        data = {name: body for name, body in store.files.items() if "/files/md5/" in name}
        assert len(data) == 3
        for name, body in data.items():
            assert "".join(name.split("/")[-2:]).removesuffix(".dir") == hashlib.md5(body).hexdigest()
        reader = scene.newcomer()
        reader.dvc("pull")
        assert (reader.cwd / "imgs/a").read_bytes() == (scene.repo / "imgs/a").read_bytes()
    finally:
        store.shutdown()
        store.server_close()


def limited(person: Person, size: int, *command: str) -> subprocess.CompletedProcess[str]:
    """DVC's command where no file may grow beyond `size` bytes, as on a full disk: real errors from real writes."""
    return subprocess.run(
        [str(person.python), "-m", "dvc", *command],
        cwd=person.cwd,
        env=person.env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),  # noqa: PLW1509 - one thread here
    )


@pytest.mark.slow
def test_a_full_disk(scene: Scene, tmp_path: Path) -> None:
    large = fresh() * 40_000
    scene.add("data.bin", large)
    limit = len(large) // 2
    done = limited(scene.owner, limit, "push")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not scene.object_of("data.bin.dvc").exists(), "whole or not at all"
    assert evidence_covers_data(scene)
    assert (scene.repo / "data.bin").read_bytes() == large
    outside = tmp_path / "outside.bin"
    outside.write_bytes(large)
    before = files(scene.remote)
    done = limited(scene.owner, limit, "add", str(outside), "--to-remote", "-o", "in.bin")
    assert "the disk is full, so nothing was signed or uploaded" in done.stderr
    assert files(scene.remote) == before
    assert not (scene.repo / "in.bin.dvc").exists()
    scene.owner.dvc("push")
    (bundle,) = scene.bundles()
    assert statement_in(bundle)["subject"][0]["digest"]["sha256"] == hashlib.sha256(large).hexdigest()
    reader = scene.newcomer()
    done = limited(reader, limit, "pull")
    assert done.returncode != 0
    assert not (reader.cwd / "data.bin").exists() or re.search("failed", done.stderr)
    reader.dvc("pull")
    assert (reader.cwd / "data.bin").read_bytes() == large
