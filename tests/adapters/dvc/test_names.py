"""Committed names of files: nobody without the salt learns or guesses one, and nothing is compared less for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.people import Person, Scene, fresh, oid_in, policy_text, statement_in
from mlseal_dvc import names
from mlseal_dvc.places import DirectoryPlace, RemotePlace

from mlseal.errors import Unchecked
from mlseal.evidence.bundle import Bundle, unbase64
from mlseal.evidence.naming import Naming

MARK = "smith"
PIPELINE = "stages:\n  {0}:\n    cmd: cp {0}-0231.csv {0}-out.csv\n    deps: [{0}-0231.csv]\n    outs: [{0}-out.csv]\n"


def commit_names(person: Person, *extra: str) -> None:
    person.mlseal("dvc", "install", "--no-autoload", "--no-hook", "--names", "committed", *extra)


def marked_data(scene: Scene) -> list[str]:
    """A file, a directory and a pipeline, whose files, folders, stage and command are marked; their paths."""
    scene.add(f"{MARK}-0231.csv")
    scene.add(f"{MARK}-folder", {f"{MARK}/{MARK}.dcm": fresh(), "b": fresh()})
    (scene.repo / "dvc.yaml").write_text(PIPELINE.format(MARK))
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("pipeline")
    return [f"{MARK}-0231.csv", f"{MARK}-folder", f"{MARK}-out.csv"]


def left_on(remote: Path) -> tuple[list[str], bytes]:
    """Names, and decoded contents, of the evidence on a remote.

    Manifests are left out: they lie beside the data, and are as private as the data and DVC's own directory objects.
    """
    files = [p for p in sorted((remote / "attestations").rglob("*")) if p.is_file() and "manifests" not in p.parts]
    contents = [p.read_bytes() for p in files]
    for path in files:
        if path.name.endswith(".sigstore.json"):
            bundle = Bundle.read(path)
            material = bundle.document["verificationMaterial"]
            contents += [bundle.statement.payload, unbase64(material["certificate"]["rawBytes"], "certificate")]
            contents += [unbase64(entry["canonicalizedBody"], "entry") for entry in material["tlogEntries"]]
    return [str(p.relative_to(remote)) for p in files], b"\n".join(contents)


def salt_file(scene: Scene) -> Path:
    return scene.evidence / "names.salt"


def salt(scene: Scene) -> Naming:
    return Naming(bytes.fromhex(salt_file(scene).read_text()))


def committed_bundle(scene: Scene, path: str) -> Path:
    said = salt(scene).of("path", path)
    (found,) = [b for b in scene.bundles() if statement_in(b)["predicate"]["path"] == said]
    return found


def stopped(person: Person, *command: str, code: int | None = None) -> str:
    done = person.mlseal("dvc", *command, ok=False)
    assert "Traceback" not in done.stderr
    assert code is None or done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["committed", "plain"])
def test_no_name_leaves_with_the_evidence(scene: Scene, mode: str) -> None:
    """Plain names must be found by the same search: else it would prove nothing."""
    if mode == "committed":
        commit_names(scene.owner)
        scene.owner.commit("marker")
    paths = marked_data(scene)
    scene.owner.dvc("push")
    places, contents = left_on(scene.remote)
    guesses = [hashlib.sha256(path.encode()).hexdigest()[:32] for path in paths]
    found = {
        "in a path": any(MARK in place for place in places),
        "in a bundle": MARK.encode() in contents,
        "guessed": any(guess in place or guess.encode() in contents for guess in guesses for place in places),
    }
    assert found == {"in a path": False, "in a bundle": mode == "plain", "guessed": mode == "plain"}
    reader = scene.newcomer()  # the public root and a policy, nothing else
    reader.dvc("pull")
    assert (reader.cwd / paths[2]).read_bytes() == (scene.repo / paths[0]).read_bytes()
    rows = json.loads(reader.mlseal("dvc", "verify", "--rev", "HEAD", "--json").stdout)["outputs"]
    assert sorted(row["path"] for row in rows) == sorted(paths)


def test_lineage_and_reveal_work_for_whoever_has_the_data(scene: Scene) -> None:
    commit_names(scene.owner)
    marked_data(scene)
    scene.owner.dvc("push")
    reader = scene.newcomer()
    reader.dvc("pull")
    out = statement_in(committed_bundle(scene, f"{MARK}-out.csv"))
    (dependency,) = out["predicate"]["lineage"]
    source = statement_in(committed_bundle(scene, f"{MARK}-0231.csv"))
    assert dependency["name"] == source["predicate"]["path"], "who reads evidence can follow it from output to output"
    assert dependency["digest"] == source["subject"][0]["digest"]
    told = reader.mlseal("names", "reveal", source["predicate"]["path"]).stdout
    assert told == f"path: {MARK}-0231.csv\n"
    (kept,) = [p for p in Path(reader.env["HOME"]).rglob("*.salt")]
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.read_bytes() == salt_file(scene).read_bytes()


def test_attacks_on_names_and_salt(scene: Scene) -> None:
    """Somebody can write the remote. Nothing gets through, and with everything restored the data come."""
    commit_names(scene.owner)
    scene.add("one.csv")
    content = fresh()
    scene.add("two.csv", content)
    scene.add("same.csv", content)  # the same bytes, so that only the name tells them apart
    scene.owner.dvc("push")
    one, two = committed_bundle(scene, "one.csv"), committed_bundle(scene, "two.csv")
    same = committed_bundle(scene, "same.csv")
    good = {path: path.read_bytes() for path in (one, two, same, salt_file(scene))}

    same.write_bytes(good[two])  # replay: right object, right signer, another path
    assert "is about something else" in stopped(scene.newcomer("replay"), "pull", "same.csv.dvc", code=10)
    one.write_bytes(good[two])
    assert "something else" in stopped(scene.newcomer("other"), "pull", "one.csv.dvc", code=10)
    one.write_bytes(good[one])
    same.write_bytes(good[same])
    sentence = "committed with a salt that is not here"
    for name, data in (("swapped", b"0" * 64 + b"\n"), ("short", b"00\n"), ("empty", b""), ("word", b"forgotten\n")):
        salt_file(scene).write_bytes(data)
        reader = scene.newcomer(name)
        assert sentence in stopped(reader, "pull", code=11), name
        assert not (reader.cwd / "one.csv").exists()
    salt_file(scene).unlink()
    assert sentence in stopped(scene.newcomer("deleted"), "pull", code=11)
    plain_slot = one.parent.with_name(hashlib.sha256(b"one.csv").hexdigest()[:32])
    shutil.copytree(one.parent, plain_slot)  # found under the plain name, and still not compared by it
    reader = scene.newcomer("moved")
    assert sentence in stopped(reader, "pull", "one.csv.dvc", code=11)
    salt_file(scene).write_bytes(good[salt_file(scene)])
    reader.dvc("pull")
    assert (reader.cwd / "one.csv").exists()


def test_a_salt_that_was_seen_survives_its_deletion_and_needs_no_network(scene: Scene, tmp_path: Path) -> None:
    commit_names(scene.owner)
    scene.add("data.csv")
    scene.owner.dvc("push")
    before = salt_file(scene).read_bytes()
    reader = scene.newcomer()
    reader.dvc("pull")
    scene.remote.rename(tmp_path / "away")
    (reader.cwd / "data.csv").unlink()
    reader.dvc("checkout")
    assert (reader.cwd / "data.csv").exists()
    (tmp_path / "away").rename(scene.remote)
    salt_file(scene).unlink()
    scene.owner.dvc("push")
    assert salt_file(scene).read_bytes() == before, "the next push puts it back"


def test_an_older_plain_history_stays_and_the_stricter_wish_wins(scene: Scene) -> None:
    scene.add("old.csv")
    scene.owner.dvc("push")
    (plain,) = scene.bundles()
    scene.owner.mlseal("dvc", "sign", "--names", "committed")
    scene.owner.env["MLSEAL_NAMES"] = "committed"
    scene.add("new.csv")
    scene.owner.dvc("push")
    del scene.owner.env["MLSEAL_NAMES"]
    assert statement_in(plain)["predicate"]["path"] == "old.csv", "what was pushed before is left alone"
    committed_bundle(scene, "old.csv")
    committed_bundle(scene, "new.csv").unlink()
    scene.add("later.csv")
    scene.owner.dvc("push")  # nothing said: the remote has a salt
    committed_bundle(scene, "later.csv")
    committed_bundle(scene, "old.csv").unlink()
    reader = scene.newcomer()
    reader.dvc("pull", "old.csv.dvc", "later.csv.dvc")  # old.csv by its plain evidence
    scene.owner.env["MLSEAL_NAMES"] = "plain"
    scene.add("said.csv")
    scene.owner.dvc("push")
    committed_bundle(scene, "said.csv")
    scene.add("public.csv")
    scene.owner.mlseal("dvc", "push", "--names", "plain")
    assert "public.csv" in [statement_in(b)["predicate"]["path"] for b in scene.bundles()]
    scene.newcomer("last").dvc("pull")


def test_a_clone_commits_names_because_the_marker_says_so(scene: Scene) -> None:
    commit_names(scene.owner)
    scene.owner.commit("marker")
    scene.owner.git("config", "--unset", "mlseal.names")
    scene.add("data.csv")
    scene.owner.dvc("push")
    committed_bundle(scene, "data.csv")
    marker = scene.repo / ".dvc" / "mlseal.json"
    assert json.loads(marker.read_text()) == {"protected": True, "names": "committed"}
    scene.owner.mlseal("dvc", "install", "--no-autoload", "--no-hook")
    assert "committed" in marker.read_text(), "installing again does not undo it"
    scene.owner.mlseal("dvc", "install", "--no-autoload", "--no-hook", "--names", "plain")
    assert "committed" not in marker.read_text()


def test_forgotten_names_cannot_be_checked_until_signed_anew(scene: Scene) -> None:
    commit_names(scene.owner)
    scene.add("data.csv")
    scene.owner.dvc("push")
    old = salt(scene)
    scene.owner.mlseal("dvc", "forget-names")
    assert salt_file(scene).read_bytes() == b"forgotten\n"
    assert "committed with a salt that is not here" in stopped(scene.owner, "verify", code=11)
    gone = scene.owner.mlseal("names", "reveal", old.of("path", "data.csv"), ok=False)
    assert gone.returncode == 11
    scene.owner.dvc("push")
    assert salt(scene) != old
    scene.owner.mlseal("dvc", "verify")
    reader = scene.newcomer()
    reader.dvc("pull")
    assert (reader.cwd / "data.csv").exists()


def test_what_was_withdrawn_stays_withdrawn_when_its_names_are_forgotten(
    scene: Scene, authority: Any, tmp_path: Path
) -> None:
    revokers = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san("monitor")}"}}]\n'
    scene.owner.env["MLSEAL_STORE"] = str(tmp_path / "store")
    scene.owner.mlseal("revoke", "--snapshot")
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), revokers))
    commit_names(scene.owner)
    data = scene.add("data.csv").read_bytes()
    scene.add("other.csv")
    scene.owner.dvc("push")
    evidence = json.loads(scene.owner.mlseal("dvc", "evidence", "data.csv", "--json").stdout)["evidenceId"]
    scene.owner.mlseal("revoke", evidence, "--reason", "withdrawn")
    scene.owner.mlseal("dvc", "forget-names")
    scene.add("again.csv", data)  # the same bytes elsewhere: nobody can tell any more that they are another's
    before = scene.bundles()
    for target in ("data.csv.dvc", "again.csv.dvc"):
        assert "was withdrawn" in scene.owner.dvc("push", target, ok=False).stderr
        assert scene.bundles() == before
    shutil.rmtree(tmp_path / "owner-state" / "dvc" / "attestations")
    for bundle in scene.bundles():
        bundle.unlink()
    assert "was withdrawn" in scene.owner.dvc("push", "data.csv.dvc", ok=False).stderr, "the store has it"
    scene.owner.dvc("push", "other.csv.dvc")
    assert len(scene.bundles()) == 1, "what nobody withdrew is signed anew"


def test_the_pre_push_hook_checks_committed_names(scene: Scene, tmp_path: Path) -> None:
    upstream = tmp_path / "upstream.git"
    scene.owner.git("init", "-q", "--bare", str(upstream))
    scene.owner.git("remote", "add", "origin", str(upstream))
    scene.owner.mlseal("dvc", "install", "--no-autoload", "--names", "committed")
    scene.add("data.csv")
    assert "no provenance" in scene.owner.git("push", "-q", "origin", "main", ok=False).stderr
    scene.owner.dvc("push")
    scene.owner.git("push", "-q", "origin", "main")
    other = scene.newcomer("colleague")
    other.git("push", "-q", str(upstream), "HEAD:again")  # no hook there; the check itself, as CI runs it:
    other.mlseal("dvc", "verify", "--rev", "HEAD")


def test_imported_names_are_compared_with_the_salt_of_their_source(scene: Scene, tmp_path: Path) -> None:
    commit_names(scene.owner)
    scene.add("data.csv")
    scene.owner.dvc("push")
    reader = scene.newcomer(clone=False)
    reader.cwd = tmp_path / "elsewhere"
    reader.cwd.mkdir()
    reader.git("init", "-q")
    reader.dvc("init", "-q")
    reader.dvc("import", "-q", str(scene.repo), "data.csv", "-o", "mine.csv")
    assert oid_in(reader.cwd / "mine.csv.dvc") == oid_in(scene.repo / "data.csv.dvc")
    (reader.cwd / "mine.csv").unlink()
    reader.dvc("checkout")
    assert (reader.cwd / "mine.csv").exists()


def places(root: Path) -> list:
    from dvc.fs import LocalFileSystem

    return [DirectoryPlace(root / "a"), RemotePlace(LocalFileSystem(), str(root / "b"))]


def test_places_create_once_and_list_what_is_below(tmp_path: Path) -> None:
    for place in places(tmp_path):
        place.create("names.salt", b"1")
        place.create("names.salt", b"2")
        assert place.read("names.salt") == b"1"
        place.write("bundles/md5/x/y/z", b"")
        assert place.names("bundles/md5/x") == ["bundles/md5/x/y/z"]
        assert place.names("bundles/md5/none") == []
        assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["bundles", "names.salt"]


def test_pushes_at_once_agree_on_the_salt_or_stop(home, tmp_path: Path) -> None:
    place = DirectoryPlace(tmp_path / "remote")
    found, ready = [], threading.Barrier(6)

    def push() -> None:
        ready.wait()
        found.append(names.established(place))

    threads = [threading.Thread(target=push) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 6 and set(found) == {names.on(place)}
    names.require_still(place, [None, found[0].salt_id])
    place.write("names.salt", b"0" * 64 + b"\n")  # what a remote without exclusive writes may end with
    with pytest.raises(Unchecked, match="changed while this push ran"):
        names.require_still(place, [found[0].salt_id])
    names.require_still(place, [None])
