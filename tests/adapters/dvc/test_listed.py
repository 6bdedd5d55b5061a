"""Directories whose files are listed in the ``.dvc`` file itself, as cloud-versioned remotes leave them."""

from __future__ import annotations

import json

import yaml
from adapters.dvc.people import Scene, fresh, oid_in, replace


def listed(scene: Scene, name: str) -> None:
    """Rewrite a directory's pointer as DVC does for versioned remotes: rows in place of the directory object's id."""
    pointer = scene.repo / f"{name}.dvc"
    document = yaml.safe_load(pointer.read_text())
    rows = json.loads(scene.object_of(f"{name}.dvc").read_bytes())
    document["outs"] = [{"path": name, "hash": "md5", "files": rows}]
    pointer.write_text(yaml.safe_dump(document))


def test_a_list_of_files_is_held_against_evidence_like_a_directory_object(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    oid = oid_in(scene.repo / "imgs.dvc")
    listed(scene, "imgs")
    scene.owner.commit("the same, listed")
    reader = scene.newcomer()
    done = reader.dvc("pull")
    assert "verified 1 outputs before checkout" in done.stderr
    assert (reader.cwd / "imgs" / "a").exists()
    assert oid in reader.mlseal("dvc", "verify", "--json").stdout


def test_a_listed_directory_nobody_signed_does_not_reach_the_workspace(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    a, b = json.loads(scene.object_of("imgs.dvc").read_bytes())
    pointer = scene.repo / "imgs.dvc"
    rows = [a | {"md5": b["md5"]}, b]  # objects that are on the remote, under names that nobody signed
    pointer.write_text(yaml.safe_dump({"outs": [{"path": "imgs", "hash": "md5", "files": rows}]}))
    scene.owner.commit("names exchanged")
    reader = scene.newcomer()
    reader.dvc("pull", ok=False)
    assert not (reader.cwd / "imgs").exists()
    reader.dvc("checkout", ok=False)
    assert not (reader.cwd / "imgs").exists()


def test_a_swapped_object_of_a_listed_directory(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    first = json.loads(scene.object_of("imgs.dvc").read_bytes())[0]["md5"]
    listed(scene, "imgs")
    scene.owner.commit("the same, listed")
    replace(scene.remote / "files" / "md5" / first[:2] / first[2:], b"other bytes")
    reader = scene.newcomer()
    done = reader.dvc("pull", ok=False)
    assert "not the signed ones" in done.stderr
    assert not (reader.cwd / "imgs").exists()


def test_a_poisoned_cache_without_directory_object(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    scene.owner.dvc("push")
    rows = json.loads(scene.object_of("imgs.dvc").read_bytes())
    listed(scene, "imgs")
    scene.owner.commit("the same, listed")
    reader = scene.newcomer()
    for row in rows:
        path = reader.cwd / ".dvc" / "cache" / "files" / "md5" / row["md5"][:2] / row["md5"][2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"planted")
        path.chmod(0o444)
    reader.dvc("checkout", ok=False)
    assert not (reader.cwd / "imgs").exists()
