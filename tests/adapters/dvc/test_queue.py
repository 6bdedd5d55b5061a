"""Experiments that wait in DVC's queue: its workers are protected, and what they make has the right origin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from adapters.dvc.people import Person, Scene, fresh, replace, statement_in
from mlseal_dvc import origin, queued
from mlseal_dvc.pointers import Dependency, Pointer

BOUND = 300  # seconds that an experiment may take; DVC itself would wait for ever
PARAMETERS = "z: 1\na: 2\n"
PIPELINE = """stages:
  copy:
    cmd: cp data.csv out.csv && echo $MLSEAL_POLICY > seen.txt && cat params.yaml >> out.csv
    deps: [data.csv]
    params: [z, a]
    outs: [out.csv]
    metrics: [{seen.txt: {cache: false}}]
"""


def workers(person: Person) -> list[Path]:
    return list((person.cwd / ".dvc/tmp/exps/celery").glob("dvc-exp-worker-*.pid"))


def run_all(person: Person) -> str:
    """``dvc exp run --run-all``; what it and the workers wrote. The workers, which linger, are stopped."""
    command = [str(person.python), "-m", "dvc", "exp", "run", "--run-all"]
    process = subprocess.Popen(
        command, cwd=person.cwd, env=person.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=BOUND)
    except subprocess.TimeoutExpired:
        process.kill()
        said = "the queue did not end: " + process.communicate()[0]
    finally:
        for pidfile in workers(person):
            try:
                os.kill(int(pidfile.read_text()), signal.SIGTERM)
            except ProcessLookupError:
                continue
    logs = (person.cwd / ".dvc/tmp/exps").rglob("*.out")
    return said + "".join(log.read_text(errors="replace") for log in logs)


@pytest.fixture
def piped(scene: Scene, tmp_path: Path) -> Scene:
    """A scene with a pipeline that ran, and with another DVC, which is not protected, first on the path."""
    other = tmp_path / "bin"
    other.mkdir()
    (other / "dvc").write_text(f"#!/bin/sh\ntouch '{tmp_path}/wrong-dvc'\nexit 1\n")
    (other / "dvc").chmod(0o755)
    scene.owner.env["PATH"] = f"{other}{os.pathsep}{scene.owner.env['PATH']}"
    (scene.repo / "params.yaml").write_text(PARAMETERS)
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.add("data.csv")
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("ran")
    scene.owner.dvc("push")
    return scene


@pytest.mark.slow
def test_queued_experiments_are_protected_and_signed(piped: Scene, tmp_path: Path) -> None:
    scene, owner = piped, piped.owner
    bare = tmp_path / "bare.git"
    owner.git("init", "-q", "--bare", str(bare))
    owner.git("remote", "add", "origin", str(bare))
    owner.git("push", "-q", "origin", "HEAD:refs/heads/main")
    old = oid_in_lock(scene)
    owner.dvc("exp", "run", "-q", "--temp", "-S", "z=7", "-n", "aside")
    for entry in (scene.repo / ".dvc/cache/runs").rglob("*"):
        if entry.is_file() and old not in entry.read_text():
            poison(entry, old)  # signed, but not for z = 7
    owner.dvc("exp", "run", "-q", "--queue", "-S", "z=5", "-n", "five")
    owner.dvc("exp", "run", "-q", "--queue", "-S", "z=7", "-n", "seven")
    said = run_all(owner)
    assert not (tmp_path / "wrong-dvc").exists(), "a worker is this interpreter's DVC"
    assert "stage copy runs: what the cache holds for it is not used" in said
    shown = [owner.git("show", f"{ref(owner, name)}:dvc.lock").stdout for name in ("aside", "seven")]
    assert shown[0] == shown[1], "made again, not restored"
    seen = owner.git("show", f"{ref(owner, 'five')}:seen.txt").stdout.strip()
    assert seen == str(scene.policy), "the worker has the environment of whoever started it"

    before = set(scene.bundles())
    assert "signed 1 outputs" in owner.dvc("exp", "push", "origin", "five").stderr
    (new,) = set(scene.bundles()) - before
    predicate = statement_in(new)["predicate"]
    assert predicate["origin"] == "ran"
    oid = predicate["dvc"]["oid"]
    reader = scene.newcomer()
    reader.git("remote", "set-url", "origin", str(bare))
    reader.dvc("fetch")
    there = scene.remote / "files/md5" / oid[:2] / oid[2:]
    good = there.read_bytes()
    replace(there, fresh())
    assert "not the signed ones" in reader.dvc("exp", "pull", "origin", "five", ok=False).stderr
    replace(there, good)
    reader.dvc("exp", "pull", "-f", "origin", "five")
    here = reader.cwd / ".dvc/cache/files/md5" / oid[:2] / oid[2:]
    replace(here, fresh())
    assert "not the signed ones" in reader.dvc("exp", "apply", "five", ok=False).stderr
    assert not (reader.cwd / "out.csv").exists()
    reader.git("reset", "-q", "--hard")
    reader.dvc("exp", "pull", "-f", "origin", "five")
    reader.dvc("exp", "apply", "five")
    assert (reader.cwd / "out.csv").read_bytes() == good


def oid_in_lock(scene: Scene) -> str:
    return re.findall(r"md5: ([0-9a-f]{32})", (scene.repo / "dvc.lock").read_text())[-1]


def poison(entry: Path, oid: str) -> None:
    head, _, tail = entry.read_text().rpartition("md5: ")
    replace(entry, f"{head}md5: {oid}{tail[32:]}".encode())


def ref(person: Person, name: str) -> str:
    listed = person.git("for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    return next(found for found in listed if found.endswith(f"/{name}"))


def test_only_the_bare_name_of_dvc_is_replaced() -> None:
    assert queued.here(["dvc", "exp", "exec-run"])[-2:] == ["exp", "exec-run"]
    assert queued.here(["dvc", "exp"])[0] == sys.executable
    for command in (["/opt/dvc", "exp"], ["env", "dvc"], []):
        assert queued.here(command) == command


def test_the_same_bytes_from_other_inputs_have_another_origin(tmp_path: Path) -> None:
    def made_from(oid: str) -> Pointer:
        inputs = (Dependency("in", "md5", oid),)
        return Pointer("out", ("out",), "md5", "0" * 32, str, None, None, "s", "c", False, False, inputs, lambda: True)

    origin.note(tmp_path / "notes", made_from("1"), "ran")
    assert origin.of(made_from("1"), tmp_path / "notes") == "ran"
    assert origin.of(made_from("2"), tmp_path / "notes") == "unknown"
