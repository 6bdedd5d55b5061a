"""Strict remotes: useless to a DVC without the plugin, protected with it, and never a directory by mistake."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.buckets import CREDENTIALS, Bucket
from adapters.dvc.people import Person, Scene, fresh
from mlseal_dvc import scheme


@pytest.fixture
def strict(scene: Scene, bucket: Bucket) -> Scene:
    """The scene with a strict remote, and with nothing else that protects it: no marker, no setting."""
    point_at(scene.repo, f"{scheme.NAME}://{bucket.name}/team", bucket.endpoint)
    (scene.repo / ".dvc" / "mlseal.json").unlink()
    scene.owner.git("config", "--local", "--unset-all", "mlseal.dvc")
    scene.owner.env |= CREDENTIALS
    scene.owner.commit("strict")
    return scene


def point_at(repo: Path, url: str, endpoint: str | None = None) -> None:
    lines = ["[core]", "    remote = store", "['remote \"store\"']", f'    url = "{url}"']
    lines += [f"    endpointurl = {endpoint}"] if endpoint else []
    (repo / ".dvc" / "config").write_text("\n".join(lines) + "\n")


def reader(scene: Scene, **kwargs: Any) -> Person:
    person = scene.newcomer(**kwargs)
    person.env |= CREDENTIALS
    return person


def test_push_pull_and_gc_work_with_the_plugin(strict: Scene, bucket: Bucket) -> None:
    data = strict.add("data.csv")
    strict.add("imgs", {"a": fresh(), "b": fresh()})
    assert "signed 2 outputs" in strict.owner.dvc("push").stderr
    assert len(bucket.objects()) == 4
    assert all(key.startswith(("team/files/", "team/attestations/v1/")) for key in bucket.keys())
    evidence = [key for key in bucket.keys() if "/attestations/" in key]
    somebody = reader(strict)
    assert "verified 2 outputs" in somebody.dvc("pull").stderr
    assert (somebody.cwd / "data.csv").read_bytes() == data.read_bytes()
    rows = json.loads(somebody.mlseal("dvc", "verify", "--json").stdout)["outputs"]
    assert [row["ok"] for row in rows] == [True, True]
    # What the workspace no longer uses goes, the evidence stays.
    strict.owner.git("rm", "-q", "imgs.dvc")
    strict.owner.dvc("gc", "-w", "-c", "-f")
    assert len(bucket.objects()) == 1
    assert [key for key in bucket.keys() if "/attestations/" in key] == evidence


def test_dvc_without_the_plugin_fails_every_command(strict: Scene, bucket: Bucket) -> None:
    strict.add("data.csv")
    plain = reader(strict, autoload=False)
    for command in (["push"], ["pull"], ["status"], ["add", "other"], ["checkout"]):
        done = plain.dvc(*command, ok=False)
        assert done.returncode == 251
        assert "Unsupported URL type mlseals3://" in done.stderr
    assert bucket.keys() == []


def test_the_explicit_commands_know_the_scheme_without_the_autoload(strict: Scene, bucket: Bucket) -> None:
    strict.add("data.csv")
    strict.owner.dvc("push")
    plain = reader(strict, autoload=False)
    assert plain.mlseal("dvc", "pull").returncode == 0
    assert (plain.cwd / "data.csv").is_file()


def test_strict_urls_are_read_through_remotes_only(strict: Scene, bucket: Bucket, tmp_path: Path) -> None:
    """As plain S3 they would be read unverified, in a repository or outside of any."""
    bucket.put("team/raw.csv", fresh())
    url = f"{scheme.NAME}://{bucket.name}/team/raw.csv"
    strict.owner.env["AWS_ENDPOINT_URL"] = bucket.endpoint
    commands = [["get-url", url], ["import-url", url], ["import-url", "remote://store/raw.csv"], ["list-url", url]]
    for command in commands:
        done = strict.owner.dvc(*command, ok=False)
        assert "names a remote and nothing else" in done.stderr, command
    assert "names a remote" in strict.owner.dvc("get-url", url, cwd=tmp_path, ok=False).stderr
    assert not (tmp_path / "raw.csv").exists() and not (strict.repo / "raw.csv").exists()
    strict.owner.dvc("get-url", url.replace(scheme.NAME, "s3"))  # who writes s3:// means it
    assert (strict.repo / "raw.csv").exists()


def test_a_strict_remote_is_protected_whatever_else_says_so(strict: Scene, bucket: Bucket) -> None:
    """Nobody named, no marker, no setting, the URL shadowed: still nothing unsigned goes up or comes down."""
    strict.add("data.csv")
    del strict.owner.env["MLSEAL_POLICY"]
    status = strict.owner.mlseal("dvc", "status", "--json", ok=False)
    assert status.returncode == 11, "nobody says who may sign"
    assert json.loads(status.stdout)["protected"] is True
    bucket.client.put_object(Bucket=bucket.name, Key="team/files/md5/ab/" + "c" * 30, Body=b"planted")
    strict.owner.dvc("push")
    somebody = reader(strict)
    for key in [key for key in bucket.keys() if key.endswith(".sigstore.json")]:
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    assert "mlseal" in somebody.dvc("pull", ok=False).stderr
    # Somebody's own configuration puts plain S3 in its place: the committed file still counts.
    local = somebody.cwd / ".dvc" / "config.local"
    local.write_text(f"['remote \"store\"']\n    url = s3://{bucket.name}/team\n")
    done = somebody.dvc("pull", ok=False)
    assert "no provenance of data.csv" in done.stderr
    assert not (somebody.cwd / "data.csv").exists()


def test_a_plain_remote_alone_protects_nothing(scene: Scene) -> None:
    (scene.repo / ".dvc" / "mlseal.json").unlink()
    scene.owner.git("config", "--local", "--unset-all", "mlseal.dvc")
    del scene.owner.env["MLSEAL_POLICY"]
    assert json.loads(scene.owner.mlseal("dvc", "status", "--json").stdout)["protected"] is False


@pytest.mark.parametrize("url", ["mlseal+s3://bucket/p", "mlseals3:///bucket/p"])
def test_a_look_alike_is_an_error_and_no_directory(scene: Scene, url: str) -> None:
    point_at(scene.repo, url)
    before = sorted(os.listdir(scene.repo)), sorted(os.listdir(scene.repo / ".dvc"))
    for command in (["push"], ["status"]):
        done = scene.owner.dvc(*command, ok=False)
        assert done.returncode == 251
        assert "a strict remote is mlseals3://bucket/prefix" in done.stderr
    done = scene.owner.mlseal("dvc", "verify", ok=False)
    assert "a strict remote is mlseals3://bucket/prefix" in done.stderr
    assert (sorted(os.listdir(scene.repo)), sorted(os.listdir(scene.repo / ".dvc"))) == before
    # and it can be mended with DVC's own command
    scene.owner.dvc("remote", "modify", "store", "url", str(scene.remote))
    scene.owner.dvc("status")


@pytest.mark.parametrize(
    "url",
    [
        "/r/.dvc/mlseal+s3:/b/p",
        "mlseals3:///p",
        "/r/.dvc/mlseals3:b/p",
        "/r/mlseal_s3:/b",
        "/r/.dvc/ mlseals3:/b",
        "/r/MLSEAL-S3:/b",
        "/x/mlsela-s3:/b",
        "mlseals3:",
    ],
)
def test_look_alikes_are_seen(url: str) -> None:
    assert scheme.looks_alike(url)


@pytest.mark.parametrize(
    "url",
    ["/data/store", "s3://b/p", "/data/a:b/c", "/home/mlseal/x", "/home/mlseals3/x", "/data/foo:/x", "mlseals3://b/p"],
)
def test_other_places_are_not_look_alikes(url: str) -> None:
    assert scheme.looks_alike(url) is None


def test_the_scheme_is_recognised_in_any_case(strict: Scene, bucket: Bucket) -> None:
    point_at(strict.repo, f"MLSeals3://{bucket.name}/team", bucket.endpoint)
    shutil.rmtree(strict.remote, ignore_errors=True)
    strict.add("data.csv")
    assert "signed 1 outputs" in strict.owner.dvc("push").stderr
    assert len(bucket.objects()) == 1
    assert not strict.remote.exists()
