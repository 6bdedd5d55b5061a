"""Outputs on remotes of their own, sources in subdirectories, and what a check opens for somebody else's commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapters.dvc.people import Person, Scene, fresh, oid_in, replace

OPENING = """
import contextlib, json, sys
from dvc.repo import Repo
settings = json.loads(sys.argv[1])
remote = Repo(".", config={"core": {"remote": "evil"}, "remote": {"evil": settings}}).cloud.get_remote()
with contextlib.suppress(Exception):
    remote.fs.exists(remote.path)
"""


def on_second(scene: Scene, name: str) -> Path:
    """Track `name` with ``remote: second``; the directory of that remote."""
    second = scene.remote.parent / "second"
    scene.owner.dvc("remote", "add", "-q", "second", str(second))
    scene.add(name)
    pointer = scene.repo / f"{name}.dvc"
    document = yaml.safe_load(pointer.read_text())
    document["outs"][0]["remote"] = "second"
    pointer.write_text(yaml.safe_dump(document))
    scene.owner.commit("on a remote of its own")
    return second


def consumer(scene: Scene, tmp_path: Path) -> Person:
    person = scene.newcomer("consumer", clone=False)
    person.cwd = tmp_path / "consumer"
    person.cwd.mkdir()
    person.git("init", "-q")
    person.dvc("init", "-q")
    person.mlseal("dvc", "install", "--no-autoload", "--no-hook")
    person.commit("begin")
    return person


def forget(person: Person) -> None:
    """Neither objects nor copies of evidence: as a new clone on a new machine."""
    shutil.rmtree(person.cwd / ".dvc" / "cache", ignore_errors=True)
    for kept in Path(person.env["HOME"]).rglob("dvc/attestations"):
        shutil.rmtree(kept)


def checked(person: Person, ok: bool) -> list[dict[str, Any]]:
    done = person.mlseal("dvc", "verify", "--rev", "HEAD", "--json", ok=ok)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["outputs"]
    return rows


@pytest.mark.slow
def test_evidence_follows_an_output_to_its_own_remote(scene: Scene, tmp_path: Path) -> None:
    second = on_second(scene, "data.csv")
    scene.add("other.csv")
    assert "signed 2 outputs" in scene.owner.dvc("push").stderr
    assert len(scene.bundles()) == len(list(second.rglob("*.sigstore.json"))) == 1
    reader = scene.newcomer()
    assert "verified 2 outputs" in reader.dvc("pull").stderr
    forget(reader)
    rows = json.loads(reader.mlseal("dvc", "verify", "--json").stdout)["outputs"]
    assert [row["ok"] for row in rows] == [True, True]

    # Whoever imports it, asks the same remote, at the import and ever after.
    other = consumer(scene, tmp_path)
    other.dvc("import", "-q", str(scene.repo), "data.csv", "-o", "theirs.csv")
    other.commit("import")
    forget(other)
    (row,) = checked(other, ok=True)
    assert row["objectsCompared"] == 1
    (standing,) = json.loads(other.mlseal("dvc", "status", "--json").stdout)["outputs"]
    assert standing["state"] == "signed", standing
    forget(other)
    (other.cwd / "theirs.csv").unlink()
    shutil.move(scene.repo / ".dvc" / "cache", tmp_path / "away")
    (scene.repo / "data.csv").unlink()
    other.dvc("pull")
    assert (other.cwd / "theirs.csv").exists()

    # Swapped there: neither a check nor a pull takes it.
    oid = oid_in(scene.repo / "data.csv.dvc")
    replace(second / "files" / "md5" / oid[:2] / oid[2:], b"other bytes")
    forget(other)
    (other.cwd / "theirs.csv").unlink()
    assert "not the signed ones" in checked(other, ok=False)[0]["error"]["message"]
    other.dvc("pull", ok=False)
    assert not (other.cwd / "theirs.csv").exists()


@pytest.mark.slow
def test_a_dvc_repository_in_a_subdirectory_and_an_import_from_it(scene: Scene, tmp_path: Path) -> None:
    """The git root is no DVC repository: paths in statements begin there all the same."""
    project = scene.repo / "project"
    scene.owner.git("rm", "-r", "-q", "--cached", ".dvc", ".dvcignore")
    shutil.rmtree(scene.repo / ".dvc")
    project.mkdir()
    scene.owner.cwd = project
    scene.owner.dvc("init", "-q", "--subdir")
    scene.owner.dvc("remote", "add", "-q", "-d", "store", str(scene.remote))
    scene.owner.mlseal("dvc", "install", "--no-autoload", "--no-hook")
    data = scene.add("project/data.csv")
    scene.add("project/in/imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    reader = scene.newcomer()
    reader.cwd = reader.cwd / "project"
    assert "verified 2 outputs" in reader.dvc("pull").stderr
    rows = {row["path"]: row["ok"] for row in checked(reader, ok=True)}
    assert rows == {"project/data.csv": True, "project/in/imgs": True}

    other = consumer(scene, tmp_path)
    other.dvc("import", "-q", str(scene.repo), "project/data.csv")
    other.commit("import")
    forget(other)
    assert checked(other, ok=True)[0]["objectsCompared"] == 1
    forget(other)
    (other.cwd / "data.csv").unlink()
    other.dvc("pull")
    assert (other.cwd / "data.csv").read_bytes() == data.read_bytes()


def test_a_checked_commit_chooses_no_program_that_runs(scene: Scene, tmp_path: Path) -> None:
    """A request adds an import whose settings name a program for credentials; CI must not run it to look."""
    scene.add("data.csv")
    scene.owner.dvc("push")
    other = consumer(scene, tmp_path)
    other.dvc("import", "-q", str(scene.repo), "data.csv")
    proof, credentials = tmp_path / "ran", tmp_path / "credentials"
    credentials.write_text(f"[default]\ncredential_process = touch {proof}\n")
    pointer = other.cwd / "data.csv.dvc"
    document = yaml.safe_load(pointer.read_text())
    settings = {"url": "s3://bucket/team", "endpointurl": "http://127.0.0.1:9", "credentialpath": str(credentials)}
    document["deps"][0]["repo"] |= {"config": {"core": {"remote": "evil"}, "remote": {"evil": settings}}}
    pointer.write_text(yaml.safe_dump(document))
    other.commit("a request")
    other.env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}
    forget(other)
    (row,) = checked(other, ok=False)
    assert "not opened for a commit that is only being checked" in row["error"]["message"]
    assert "credentialpath of remote evil" in row["error"]["got"]
    assert not proof.exists()
    # The danger is real: whoever opens that remote runs it.
    other.run(str(other.python), "-c", OPENING, json.dumps(settings))
    assert proof.exists()


@pytest.mark.parametrize(
    ("url", "settings", "what"),
    [
        ("webdavs://host/x", {"bearer_token_command": "id"}, "webdavs:// of remote evil"),
        ("ssh://host/x", {}, "ssh:// of remote evil"),
        ("gs://bucket/x", {"endpointurl": "http://127.0.0.1:9"}, "endpointurl of remote evil"),
        ("https://host/x", {"auth": "basic", "ask_password": True}, "ask_password of remote evil"),
    ],
)
def test_settings_that_are_not_harmless(
    tmp_path: Path, url: str, settings: dict[str, Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlseal_dvc import sources

    from mlseal.errors import Unchecked

    class Repo:
        config = {"core": {"remote": "evil"}, "remote": {"evil": {"url": url, "verify": False, **settings}}}

    class Imported:
        path = "data.csv"

    with pytest.raises(Unchecked, match="only being checked") as stopped:
        sources._require_harmless(Repo(), None, Imported(), "https://user:secret@host/repo")  # type: ignore[arg-type]
    assert what in str(stopped.value)
    assert "secret" not in str(stopped.value)


def test_a_url_that_git_gives_to_a_program(scene: Scene, tmp_path: Path) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    other = consumer(scene, tmp_path)
    other.dvc("import", "-q", str(scene.repo), "data.csv")
    pointer = other.cwd / "data.csv.dvc"
    pointer.write_text(pointer.read_text().replace(str(scene.repo), f"ext::touch {tmp_path / 'ran'}"))
    other.commit("a request")
    forget(other)
    assert "hands to another program" in checked(other, ok=False)[0]["error"]["got"]
    assert not (tmp_path / "ran").exists()
