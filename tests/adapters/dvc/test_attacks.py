"""Somebody else can write the remote, or send commits. Each attack asserts what is in the workspace afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from adapters.dvc.people import COLLIDING, Person, Scene, fresh, oid_in, replace
from mlseal_dvc.governing import rules_of
from mlseal_dvc.session import Session

from mlseal.errors import Unchecked
from mlseal.policy.load import parse


def quarantined(person: Person) -> list[Path]:
    return sorted((person.cwd / ".dvc" / "tmp" / "mlseal" / "quarantine").glob("*"))


def cached(person: Person, oid: str) -> bool:
    return (person.cwd / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]).exists()


def refused(person: Person, *command: str) -> str:
    done = person.dvc(*command, ok=False)
    assert "Traceback" not in done.stderr
    assert "mlseal: " in done.stderr, done.stderr
    return done.stderr


def test_swapped_object(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    replace(scene.object_of("data.csv.dvc"), b"other bytes")
    reader = scene.newcomer()
    assert "these bytes are not the signed ones" in refused(reader, "pull")
    assert not (reader.cwd / "data.csv").exists()
    assert not cached(reader, oid_in(reader.cwd / "data.csv.dvc"))
    (kept,) = quarantined(reader)
    assert kept.read_bytes() == b"other bytes"
    assert scene.object_of("data.csv.dvc").read_bytes() == b"other bytes", "the reader changed nothing on the remote"


def test_md5_collision(scene: Scene) -> None:
    suffix = fresh()
    scene.add("data.bin", COLLIDING[0] + suffix)
    scene.owner.dvc("push")
    replace(scene.object_of("data.bin.dvc"), COLLIDING[1] + suffix)
    reader = scene.newcomer()
    reader.dvc("remote", "modify", "--local", "store", "verify", "true")  # DVC's own check: MD5, so it passes
    refused(reader, "pull")
    assert not (reader.cwd / "data.bin").exists()
    assert len(quarantined(reader)) == 1


def test_adding_a_collision_loses_nothing(scene: Scene) -> None:
    """DVC itself would put the first content in the place of the second, and say that all is well."""
    suffix = fresh()
    one, two = (content + suffix for content in COLLIDING)
    scene.add("one.bin", one)
    (scene.repo / "imgs").mkdir()
    for place, target in (("two.bin", "two.bin"), ("imgs/two", "imgs")):
        (scene.repo / place).write_bytes(two)
        assert "has the MD5 of other content" in refused(scene.owner, "add", target)
        assert (scene.repo / place).read_bytes() == two
        assert not (scene.repo / f"{target}.dvc").exists()
    (scene.repo / "imgs" / "two").unlink()
    for name, content in zip("ab", COLLIDING, strict=True):
        (scene.repo / "imgs" / name).write_bytes(content + suffix + b"more")
    assert "has the MD5 of other content" in refused(scene.owner, "add", "imgs")
    (scene.repo / "imgs" / "b").write_bytes((scene.repo / "imgs" / "a").read_bytes())  # the same twice is no collision
    scene.owner.dvc("add", "imgs")
    (scene.repo / "copy.bin").write_bytes(one)
    scene.owner.dvc("add", "copy.bin")


def test_directory_object_swapped(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh(), "c": fresh()})
    scene.owner.dvc("push")
    tree = scene.object_of("imgs.dvc")
    rows = json.loads(tree.read_text())
    swapped = [rows[0] | {"relpath": "b"}, rows[1] | {"relpath": "a"}, rows[2]]
    for forged in (rows[:2], [*rows, rows[0] | {"relpath": "d"}], swapped):
        replace(tree, json.dumps(forged).encode())
        reader = scene.newcomer(f"reader-{len(forged)}-{forged[0]['relpath']}")
        refused(reader, "pull")
        assert not (reader.cwd / "imgs").exists()
        assert quarantined(reader)


def test_file_in_directory_swapped_and_the_rest_kept(scene: Scene) -> None:
    scene.add("imgs", {"a": fresh(), "b": fresh()})
    good = scene.add("good.csv")
    scene.owner.dvc("push")
    rows = json.loads(scene.object_of("imgs.dvc").read_text())
    replace(scene.remote / "files" / "md5" / rows[0]["md5"][:2] / rows[0]["md5"][2:], b"poison")
    reader = scene.newcomer()
    assert "imgs/a" in refused(reader, "pull")
    assert not (reader.cwd / "imgs").exists()
    reader.dvc("pull", "good.csv.dvc")
    assert (reader.cwd / "good.csv").read_bytes() == good.read_bytes()


def test_poisoned_cache_is_not_checked_out_and_not_uploaded(scene: Scene, tmp_path: Path) -> None:
    data = scene.add("data.csv")
    scene.owner.dvc("push")
    oid = oid_in(scene.repo / "data.csv.dvc")
    data.unlink()
    replace(scene.repo / ".dvc/cache/files/md5" / oid[:2] / oid[2:], b"poison")
    shutil.rmtree(scene.remote / "files")
    refused(scene.owner, "push")
    assert not scene.objects(), "nothing was uploaded"
    refused(scene.owner, "checkout")
    assert not data.exists()
    assert len(quarantined(scene.owner)) == 1


def test_no_evidence_manifest_missing_or_evidence_of_something_else(scene: Scene) -> None:
    scene.add("one.csv")
    scene.add("two.csv")
    scene.add("dir", {"x": fresh()})
    scene.owner.dvc("push")
    reader = scene.newcomer()
    slots = {json_path(bundle): bundle for bundle in scene.bundles()}
    kept = slots["one.csv"].read_bytes()

    slots["one.csv"].write_bytes(slots["two.csv"].read_bytes())  # replay of another output's evidence
    assert "is about something else" in refused(reader, "pull", "one.csv.dvc")
    document = json.loads(kept)  # an edited predicate
    import base64

    said = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    said["predicate"]["origin"] = "ran"
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    slots["one.csv"].write_text(json.dumps(document))
    refused(reader, "pull", "one.csv.dvc")
    slots["one.csv"].write_bytes(kept[: len(kept) // 2])  # cut short
    refused(reader, "pull", "one.csv.dvc")
    slots["one.csv"].unlink()  # missing
    assert "no provenance of one.csv" in refused(reader, "pull", "one.csv.dvc")
    for manifest in scene.evidence.glob("manifests/*/*"):
        manifest.unlink()
    assert "manifest" in refused(reader, "pull", "dir.dvc")
    assert not any((reader.cwd / name).exists() for name in ("one.csv", "dir"))
    reader.dvc("pull", "two.csv.dvc")
    slots["one.csv"].write_bytes(kept)
    reader.dvc("pull", "one.csv.dvc")


def json_path(bundle: Path) -> str:
    from adapters.dvc.people import statement_in

    return str(statement_in(bundle)["predicate"]["path"])


def test_older_version_under_the_new_pointer(scene: Scene) -> None:
    """Rollback: the remote answers for the new version with the old bytes and the old evidence."""
    data = scene.add("data.csv")
    scene.owner.dvc("push")
    old_object, (old_bundle,) = scene.object_of("data.csv.dvc"), scene.bundles()
    data.unlink()
    scene.add("data.csv")
    scene.owner.dvc("push")
    (new_bundle,) = [b for b in scene.bundles() if b != old_bundle]
    replace(scene.object_of("data.csv.dvc"), old_object.read_bytes())
    new_bundle.write_bytes(old_bundle.read_bytes())
    reader = scene.newcomer()
    refused(reader, "pull")
    assert not (reader.cwd / "data.csv").exists()


def test_signed_by_somebody_else_of_the_same_authority(scene: Scene, authority) -> None:
    scene.add("data.csv")
    scene.policy.write_text(scene.policy.read_text().replace(authority.san("producer"), authority.san("evaluator")))
    done = scene.owner.mlseal("dvc", "push", "--role", "producer", ok=False)
    assert done.returncode == 10, done.stderr
    assert not scene.objects()
    scene.owner.git("commit", "-q", "--allow-empty", "-m", "another statement")
    scene.owner.mlseal("dvc", "push", "--role", "evaluator")
    scene.policy.write_text(scene.policy.read_text().replace(authority.san("evaluator"), authority.san("producer")))
    reader = scene.newcomer()
    refused(reader, "pull")
    assert not (reader.cwd / "data.csv").exists()


def test_get_import_and_api_refuse(scene: Scene, tmp_path: Path) -> None:
    scene.add("data.csv")
    scene.add("imgs", {"x": fresh(), "y": fresh()})
    scene.owner.dvc("push")
    replace(scene.object_of("data.csv.dvc"), b"poison")
    rows = json.loads(scene.object_of("imgs.dvc").read_text())
    replace(scene.remote / "files" / "md5" / rows[0]["md5"][:2] / rows[0]["md5"][2:], b"poison")
    shutil.rmtree(scene.repo / ".dvc" / "cache")
    for name in ("data.csv", "imgs"):
        shutil.rmtree(scene.repo / name) if (scene.repo / name).is_dir() else (scene.repo / name).unlink()
    reader = scene.newcomer(clone=False)
    reader.cwd = tmp_path / "elsewhere"
    reader.cwd.mkdir()
    for target in ("data.csv", "imgs"):
        reader.dvc("get", str(scene.repo), target, "-o", "got", ok=False)
        assert not [p for p in (reader.cwd / "got").rglob("*") if p.is_file() and p.read_bytes() == b"poison"]
        assert not (reader.cwd / "got").is_file()
    read = f"import dvc.api; dvc.api.read('data.csv', repo={str(scene.repo)!r}, rev='main')"
    assert "not the signed ones" in reader.run(str(reader.python), "-c", read, ok=False).stderr
    reader.git("init", "-q")
    reader.dvc("init", "-q")
    reader.dvc("import", "-q", str(scene.repo), "data.csv", ok=False)
    assert not (reader.cwd / "data.csv").exists()


def test_deleting_the_marker_frees_nothing(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    replace(scene.object_of("data.csv.dvc"), b"poison")
    (scene.repo / ".dvc" / "mlseal.json").unlink()
    scene.owner.commit("unprotect")
    reader = scene.newcomer()
    refused(reader, "pull")  # the policy demands it
    assert not (reader.cwd / "data.csv").exists()
    del scene.owner.env["MLSEAL_POLICY"]
    shutil.rmtree(scene.repo / ".dvc" / "cache")
    (scene.repo / "data.csv").unlink()
    refused(scene.owner, "pull")  # this clone's git configuration demands it
    assert not (scene.repo / "data.csv").exists()


def test_a_closed_window_stops_a_push_and_a_coming_rule_permits_none(scene: Scene) -> None:
    scene.add("data.csv")
    text = scene.policy.read_text()
    window = "freeze: [{tool: dvc, action: push, from: 2026-01-01T00:00:00Z, until: 2099-01-01T00:00:00Z, owner: o, reason: audit}]"
    scene.policy.write_text(f"{text}\n{window}\n")
    assert "frozen until 2099-01-01T00:00:00Z: audit" in refused(scene.owner, "push")
    assert not scene.objects()
    coming = parse(text.replace("by:", 'effectiveOn: "2099-01-01T00:00:00Z"\n    by:', 1).encode())
    with pytest.raises(Unchecked, match="in force yet"):
        rules_of([coming], Session())
    assert len(rules_of([parse(text.encode())], Session())) == 1


def test_a_policy_that_asks_opa_is_not_half_judged(scene: Scene) -> None:
    """Whoever checks some of a policy's rules must not let pass what the others would stop."""
    scene.add("data.csv")
    text = scene.policy.read_text()
    scene.policy.write_text(text + '\nopa: [{server: "http://127.0.0.1:1", decision: a/allow}]\n')
    assert "asks an OPA server, which DVC's adapter does not" in refused(scene.owner, "push")
    assert not scene.objects()
    scene.policy.write_text(text)
    scene.owner.dvc("push")
    assert scene.objects()


def test_marker_alone_protects_and_names_nobody(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    reader = scene.newcomer()
    del reader.env["MLSEAL_POLICY"]
    assert "nobody is named who may sign" in refused(reader, "pull")
    assert not (reader.cwd / "data.csv").exists()


def test_run_cache_of_a_remote_is_ignored(scene: Scene) -> None:
    """Edited run-cache entries would let ``repro --pull`` write the attacker's output and bless it in dvc.lock."""
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cp data.csv out.csv\n    deps: [data.csv]\n    outs: [out.csv]\n"
    )
    scene.owner.dvc("repro", "-q")
    scene.owner.commit()
    assert "run cache is not signed" in refused(scene.owner, "push", "--run-cache")
    assert scene.bundles() == scene.objects() == [], "refused before anything is signed"
    scene.owner.dvc("push")
    shutil.copytree(scene.repo / ".dvc/cache/runs", scene.remote / "runs")
    poison = b"poison"
    import hashlib

    oid = hashlib.md5(poison).hexdigest()
    target = scene.remote / "files/md5" / oid[:2] / oid[2:]
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(poison)
    (entry,) = [p for p in (scene.remote / "runs").rglob("*") if p.is_file()]
    text = entry.read_text()
    entry.chmod(0o644)
    lock = (scene.repo / "dvc.lock").read_text()
    real = [line.split()[-1] for line in lock.splitlines() if "md5:" in line][-1]
    entry.write_text(text.replace(real, oid))
    (scene.repo / "dvc.lock").unlink()
    scene.owner.commit("forget the lock")
    reader = scene.newcomer()
    reader.dvc("pull", "data.csv.dvc")
    done = reader.dvc("repro", "--pull")
    assert "run cache is ignored" in done.stderr
    assert (reader.cwd / "out.csv").read_bytes() == (reader.cwd / "data.csv").read_bytes()


def test_unsigned_objects_pass_no_other_way(scene: Scene) -> None:
    scene.add("data.csv")
    code = "from dvc.repo import Repo\nr = Repo()\nr.cloud.push([o.hash_info for o in r.index.outs])\n"
    done = scene.owner.run(str(scene.owner.python), "-c", code, ok=False)
    assert "nobody signed this object" in done.stderr
    assert not scene.objects()
