"""Copies of models do not pile up: gone after a refusal, at the end of a process, and once a killed one is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlseal_mlflow import private

LOAD = """\
import sys, mlflow
from mlflow.exceptions import MlflowException
mlflow.set_tracking_uri(sys.argv[1]); mlflow.set_registry_uri(sys.argv[1])
for _ in range(2):
    try:
        print("payload", mlflow.pyfunc.load_model("attested:/" + sys.argv[2]).predict(None), flush=True)
    except MlflowException as error:
        print("refused", error, flush=True)
if len(sys.argv) > 3:
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Temporary files go here."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def loader(shop, name, place, *more):
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, shop.url, f"{name}@champion", *more],
        env=shop.authority.env | {k: shop.env[k] for k in ("MLSEAL_TRUST", "MLSEAL_STORE")} | {"TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def promoted(shop):
    files = shop.pyfunc("fine")
    name, version, uri = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    return name, uri


def test_nothing_is_left_after_a_load_or_a_refusal(shop, place):
    name, uri = promoted(shop)
    out, _ = loader(shop, name, place).communicate(timeout=120)
    assert out == "payload fine\n" * 2
    assert list(place.iterdir()) == []
    shop.overwrite(uri, "model.pkl", b"other")
    out, _ = loader(shop, name, place).communicate(timeout=120)
    assert out.count("never allowed these bytes") == 2
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_swept_by_age(shop, place, monkeypatch):
    name, _ = promoted(shop)
    process = loader(shop, name, place, "wait")
    assert [process.stdout.readline() for _ in range(2)] == ["payload fine\n"] * 2
    left = sorted(place.iterdir())
    assert len(left) == 2
    for directory in left:
        os.utime(directory, (1, 1))
    assert private.sweep(str(place)) == 0  # old, and in use
    process.send_signal(signal.SIGKILL)
    process.communicate()
    os.utime(left[0])
    assert private.sweep(str(place)) == 1  # the other is too young
    assert list(place.iterdir()) == [left[0]]
    os.utime(left[0], (1, 1))
    monkeypatch.setattr(private, "_swept", set())
    with private.passing() as mine:  # the next start
        assert list(place.iterdir()) == [mine]
    assert list(place.iterdir()) == []


def test_a_process_that_became_another_program_is_still_running(place):
    script = "import os, sys\nfrom mlseal_mlflow import private\nprint(private.lasting(), flush=True)\nos.execvp('cat', ['cat'])\n"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    made = Path(process.stdout.readline().strip())
    os.utime(made, (1, 1))
    assert private.sweep(str(place)) == 0
    process.communicate()
    assert private.sweep(str(place)) == 1


def test_a_forked_child_leaves_its_parents_directories_alone(place):
    script = (
        "import os, sys\nfrom mlseal_mlflow import private\nmade = private.lasting()\n"
        "if os.fork() == 0:\n    sys.exit()\nos.wait()\nprint(made.is_dir())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert list(place.iterdir()) == []


def test_only_what_is_surely_ours_is_swept(place, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    space, keep = private._namespace(), tmp_path / "keep"
    keep.mkdir()
    names = {
        "link": f"{private.PREFIX}{space}-{dead.pid}-7-link",
        "file": f"{private.PREFIX}{space}-{dead.pid}-7-file",
        "foreign": f"{private.PREFIX}{space + 1}-{dead.pid}-7-abc",
        "else": "mlseal-mlflow-notes",
    }
    (place / names["link"]).symlink_to(keep)
    (place / names["file"]).touch()
    for name in ("foreign", "else"):
        (place / names[name]).mkdir()
    lately = time.time() - private.FOREIGN_SECONDS + 60
    for entry in place.iterdir():
        os.utime(entry, (lately, lately), follow_symlinks=False)
    assert private.sweep(str(place)) == 0
    os.utime(place / names["foreign"], (1, 1))
    assert private.sweep(str(place)) == 1
    assert keep.is_dir()
    assert len(list(place.iterdir())) == 3


def test_read_only_copies_can_be_removed_and_links_are_not_followed(place, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    made = private.new()
    (made / "model").mkdir()
    (made / "model" / "file").touch()
    (made / "model" / "link").symlink_to(outside)
    (made / "model").chmod(0o500)
    private.remove(made)
    assert list(place.iterdir()) == []
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_server_leaves_nothing_behind(shop):
    """Its own temporary directory: checks, prompts, verdicts put beside models."""
    place = Path(shop.env["TMPDIR"])
    before = set(place.glob(f"{private.PREFIX}*"))  # of a client that an earlier test of this server killed
    promoted(shop)
    end = time.monotonic() + 60
    while found := set(place.glob(f"{private.PREFIX}*")) - before:
        assert time.monotonic() < end, found
        time.sleep(0.1)
