"""Cloud-versioned remotes: files under their own paths in a bucket that keeps every version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapters.dvc.buckets import CREDENTIALS, Bucket
from adapters.dvc.people import Person, Scene, fresh

EVIDENCE = "team/.dvc/attestations/v1/"


@pytest.fixture
def versioned(scene: Scene, bucket: Bucket) -> Callable[[str], Scene]:
    """The scene with a remote of the given mode in a bucket with versions."""

    def make(mode: str) -> Scene:
        bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Enabled"})
        lines = ["[core]", "    remote = store", "['remote \"store\"']", f"    url = s3://{bucket.name}/team"]
        lines += [f"    endpointurl = {bucket.endpoint}", f"    {mode} = true"]
        (scene.repo / ".dvc" / "config").write_text("\n".join(lines) + "\n")
        scene.owner.env |= CREDENTIALS
        return scene

    return make


def pushed(scene: Scene) -> tuple[Path, Path]:
    """A file and a directory, pushed; the pointers that the push rewrote committed."""
    data, imgs = scene.add("data.csv"), scene.add("imgs", {"a": fresh(), "in/b": fresh()})
    assert "signed 2 outputs" in scene.owner.dvc("push").stderr
    scene.owner.commit("pushed")
    return data, imgs


def reader(scene: Scene, name: str = "reader") -> Person:
    person = scene.newcomer(name)
    person.env |= CREDENTIALS
    return person


def document(person: Person | Scene, name: str) -> dict[str, Any]:
    base = person.repo if isinstance(person, Scene) else person.cwd
    return yaml.safe_load((base / f"{name}.dvc").read_text())["outs"][0]


def rewrite(scene: Scene, name: str, out: dict[str, Any]) -> None:
    (scene.repo / f"{name}.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    scene.owner.commit(f"{name} rewritten")


def overwritten(bucket: Bucket, key: str, data: bytes) -> dict[str, str]:
    """Put a new version of an object; what DVC would record of it."""
    put = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data)
    return {"etag": put["ETag"].strip('"'), "version_id": put["VersionId"]}


def verified(person: Person, *arguments: str, ok: bool = True) -> dict[str, dict[str, Any]]:
    rows = json.loads(person.mlseal("dvc", "verify", "--json", *arguments, ok=ok).stdout)["outputs"]
    return {row["path"]: row for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["version_aware", "worktree"])
def test_push_signs_and_everybody_verifies(versioned: Callable[[str], Scene], bucket: Bucket, mode: str) -> None:
    scene = versioned(mode)
    data, imgs = pushed(scene)
    assert "version_id" in document(scene, "data.csv")["cloud"]["store"]
    stored = [key for key in bucket.keys() if not key.startswith(EVIDENCE)]
    assert stored == ["team/data.csv", "team/imgs/a", "team/imgs/in/b"]
    assert sum(key.endswith(".sigstore.json") for key in bucket.keys()) == 2
    # The rewritten pointers mean the same data: nothing is signed again.
    assert "signed 0 outputs, 2 already signed" in scene.owner.dvc("push").stderr
    somebody = reader(scene)
    # The commits before the push record no versions; what they mean is checked where the later one says it lies.
    rows = verified(somebody, "--rev", "HEAD", "--since", "HEAD~3")
    assert {path: (row["ok"], row["objectsCompared"]) for path, row in rows.items()} == {
        "data.csv": (True, 1),
        "imgs": (True, 3),
    }
    done = somebody.dvc("pull")
    assert "verified 2 outputs after fetch" in done.stderr
    assert "verified 2 outputs before checkout" in done.stderr
    assert (somebody.cwd / "data.csv").read_bytes() == data.read_bytes()
    assert (somebody.cwd / "imgs" / "in" / "b").read_bytes() == (imgs / "in" / "b").read_bytes()
    assert all(row["state"] == "signed" for row in status(somebody))
    (somebody.cwd / "imgs" / "a").unlink()
    somebody.dvc("checkout")
    assert (somebody.cwd / "imgs" / "a").exists()


def status(person: Person, ok: bool | None = True) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = json.loads(person.mlseal("dvc", "status", "--json", ok=ok).stdout)["outputs"]
    return outputs


@pytest.mark.slow
def test_a_version_put_over_the_signed_one_changes_nothing(
    versioned: Callable[[str], Scene], bucket: Bucket, tmp_path: Path
) -> None:
    scene = versioned("version_aware")
    data, _ = pushed(scene)
    planted = overwritten(bucket, "team/data.csv", b"planted")
    overwritten(bucket, "team/imgs/a", b"planted")
    somebody = reader(scene)
    somebody.dvc("pull")
    assert (somebody.cwd / "data.csv").read_bytes() == data.read_bytes()
    # The pointer names the planted version instead, with its own ETag: DVC takes it for the recorded MD5.
    out = document(scene, "data.csv")
    out["cloud"]["store"] = planted
    rewrite(scene, "data.csv", out)
    row = verified(reader(scene, "ci"), "--rev", "HEAD", "--since", "HEAD~1", ok=False)["data.csv"]
    assert "not the signed ones" in row["error"]["message"]
    victim = reader(scene, "victim")
    assert "not the signed ones" in victim.dvc("pull", ok=False).stderr
    assert not (victim.cwd / "data.csv").exists()
    shutil.rmtree(scene.repo / ".dvc" / "cache")  # which get would read before the remote
    victim.dvc("get", str(scene.repo), "data.csv", "-o", str(tmp_path / "got"), ok=False)
    assert not (tmp_path / "got").exists()


@pytest.mark.slow
def test_versions_exchanged_in_a_directory(versioned: Callable[[str], Scene], bucket: Bucket) -> None:
    scene = versioned("version_aware")
    pushed(scene)
    out = document(scene, "imgs")
    out["files"][0]["cloud"]["store"] = overwritten(bucket, "team/imgs/a", b"planted")
    rewrite(scene, "imgs", out)
    row = verified(reader(scene, "ci"), "--rev", "HEAD", ok=False)["imgs"]
    assert "not the signed ones" in row["error"]["message"]
    victim = reader(scene)
    victim.dvc("pull", ok=False)
    assert not (victim.cwd / "imgs").exists()
    # Another list of files has another object id, about which there is no evidence.
    out["files"] = out["files"][1:]
    rewrite(scene, "imgs", out)
    late = reader(scene, "late")
    assert "no provenance of imgs" in late.dvc("pull", ok=False).stderr
    assert not (late.cwd / "imgs").exists()


def test_a_deleted_version_stops(versioned: Callable[[str], Scene], bucket: Bucket) -> None:
    scene = versioned("version_aware")
    pushed(scene)
    version = document(scene, "data.csv")["cloud"]["store"]["version_id"]
    bucket.client.delete_object(Bucket=bucket.name, Key="team/data.csv", VersionId=version)
    overwritten(bucket, "team/data.csv", b"planted")
    somebody = reader(scene)
    assert "neither here nor on the remote" in verified(somebody, ok=False)["data.csv"]["error"]["message"]
    somebody.dvc("pull", ok=False)
    assert not (somebody.cwd / "data.csv").exists()
    states = {row["path"]: row["state"] for row in status(somebody, ok=False)}
    assert states == {"data.csv": "not on remote", "imgs": "signed"}


@pytest.mark.slow
def test_only_signed_bytes_are_uploaded(versioned: Callable[[str], Scene], bucket: Bucket, authority: Any) -> None:
    scene = versioned("version_aware")
    scene.add("data.csv")
    # Without a signature nothing goes up, whichever way.
    done = scene.owner.dvc("push", ok=False, MLSEAL_TRUST=str(scene.repo / "nowhere"))
    assert "mlseal: " in done.stderr
    assert bucket.keys() == []
    scene.owner.dvc("push")
    scene.owner.commit("pushed")
    # Signed, then changed in the cache: the seal of the next push stops it.
    oid = document(scene, "data.csv")["md5"]
    cached = scene.repo / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]
    out = document(scene, "data.csv")
    del out["cloud"]
    rewrite(scene, "data.csv", out)
    bucket.delete("team/data.csv")
    cached.chmod(0o644)
    cached.write_bytes(b"poisoned")
    cached.chmod(0o444)
    assert "not what was signed" in scene.owner.dvc("push", ok=False).stderr
    assert "team/data.csv" not in bucket.keys()


def test_not_pushed_yet_is_told(versioned: Callable[[str], Scene]) -> None:
    scene = versioned("version_aware")
    scene.add("data.csv")
    scene.owner.dvc("push")
    scene.owner.git("checkout", "-q", "--", "data.csv.dvc")  # the pointer that the push rewrote is not committed
    row = verified(reader(scene), "--rev", "HEAD", ok=False)["data.csv"]
    assert "is not recorded" in row["error"]["message"]
    assert "commit the .dvc file" in row["error"]["remedy"]


def test_update_of_a_worktree_takes_nothing_unsigned(versioned: Callable[[str], Scene], bucket: Bucket) -> None:
    scene = versioned("worktree")
    data, _ = pushed(scene)
    before = data.read_bytes()
    overwritten(bucket, "team/data.csv", b"planted")
    assert "dvc update would take" in scene.owner.dvc("update", "data.csv.dvc", ok=False).stderr
    assert data.read_bytes() == before


def test_outputs_cannot_lie_where_evidence_does(versioned: Callable[[str], Scene], bucket: Bucket) -> None:
    scene = versioned("worktree")
    inside = scene.repo / ".dvc" / "attestations" / "v1" / "x"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(fresh())
    scene.owner.dvc("add", str(inside), ok=False)
    # An output of that name outside of .dvc is an output like every other.
    scene.add("attestations/v1/x")
    scene.owner.dvc("push")
    assert "team/attestations/v1/x" in bucket.keys()
    assert "gc" not in scene.owner.dvc("gc", "-w", "-c", "-f", ok=None).stdout
    assert any(key.startswith(EVIDENCE) for key in bucket.keys())
