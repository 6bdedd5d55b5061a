"""An owner's data policy governs what a push hands on: the data themselves, and what was made from them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from adapters.dvc.people import Scene, fresh

from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_policy
from mlseal.evidence.store import Store

PIPELINE = """stages:
  one:
    cmd: cat data.csv data.csv > twice.csv
    deps: [data.csv]
    outs: [twice.csv]
  two:
    cmd: cat twice.csv twice.csv > made.bin
    deps: [twice.csv]
    outs: [made.bin: {type: model}]
"""


@pytest.fixture
def made(scene: Scene, authority: Any) -> Scene:
    """A scene with data, something made from them, and something made from that; nothing pushed."""
    scene.owner.env["MLSEAL_STORE"] = str(authority.store.root)
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("made")
    return scene


def govern(authority: Any, path: Path, store: Store | None = None, **fields: Any) -> Any:
    """The owner signs what may be done with the data at `path`."""
    claim = {
        "purposes": ["research"],
        "expires": "2999-01-01T00:00:00Z",
        "notProven": ["copies"],
        "nonce": secrets.token_hex(16),
    }
    signer = authority.signer("owner", **({"store": store} if store else {}))
    return signer.sign(statement.make(measure(path).subjects, data_policy.URI, claim | fields))


def untouched(scene: Scene) -> bool:
    return scene.bundles() == scene.objects() == []


def test_a_push_states_a_purpose_that_the_owner_allows(made: Scene, authority: Any) -> None:
    scene, owner = made, made.owner
    govern(authority, scene.repo / "data.csv")
    done = owner.dvc("push", "data.csv.dvc", ok=False)
    assert "allows some purposes only, and none is stated" in done.stderr
    assert "MLSEAL_PURPOSE" in done.stderr
    done = owner.dvc("push", "made.bin", ok=False)
    assert "none is stated" in done.stderr, "made from what was made from the data"
    done = owner.mlseal("dvc", "push", "--purpose", "training", ok=False)
    assert done.returncode == 10
    assert "does not allow this purpose" in done.stderr
    done = owner.dvc("push", ok=False, MLSEAL_PURPOSE="because")
    assert "this is no purpose" in done.stderr
    assert untouched(scene)

    other = scene.add("other.csv")
    owner.dvc("push", "other.csv.dvc")
    assert len(scene.objects()) == 1, f"nobody governs {other}"
    before = set(authority.store.ids())
    owner.dvc("push", MLSEAL_PURPOSE="research")
    assert len(scene.objects()) == 4
    verdicts = [authority.store.get(new).statement for new in set(authority.store.ids()) - before]
    asked = [said for said in verdicts if "verification_summary" in said.predicate_type]
    assert len(asked) == 3
    assert "none is stated" in owner.dvc("push", ok=False).stderr, "signed before; handed on again all the same"


def test_what_may_not_be_put_out_is_not_pushed(made: Scene, authority: Any) -> None:
    scene, owner = made, made.owner
    govern(authority, scene.repo / "data.csv", noExport=["dataset"])
    for target in ("data.csv.dvc", "twice.csv"):
        done = owner.dvc("push", target, ok=False, MLSEAL_PURPOSE="research")
        assert "lets no dataset be made of the data" in done.stderr, target
    assert untouched(scene)
    owner.dvc("push", "made.bin", MLSEAL_PURPOSE="research")  # says that it is a model
    assert len(scene.objects()) == 1


@pytest.mark.slow
def test_an_owners_evidence_that_nobody_shows_stops_the_push(made: Scene, authority: Any, tmp_path: Path) -> None:
    bundle = govern(authority, made.repo / "data.csv", Store(tmp_path / "elsewhere"))
    done = made.owner.dvc("push", ok=False)
    assert "that nobody shows: it may be a data policy" in done.stderr
    assert untouched(made)
    authority.store.put(bundle)
    assert "none is stated" in made.owner.dvc("push", ok=False).stderr
    made.owner.dvc("push", MLSEAL_PURPOSE="research")


@pytest.mark.slow
def test_lineage_that_leads_nowhere_is_not_passed_over(made: Scene, authority: Any) -> None:
    govern(authority, made.repo / "data.csv")
    for lost in (made.repo / ".dvc/cache/files").rglob("*"):
        if lost.is_file() and lost.read_bytes() == (made.repo / "data.csv").read_bytes():
            lost.chmod(0o644)
            lost.unlink()
    done = made.owner.dvc("push", "made.bin", ok=False, MLSEAL_PURPOSE="research")
    assert "cannot be told whether made.bin was made from data with a data policy" in done.stderr
    assert untouched(made)


@pytest.mark.slow
def test_part_of_a_governed_directory_counts(scene: Scene, authority: Any) -> None:
    scene.owner.env["MLSEAL_STORE"] = str(authority.store.root)
    scene.add("all", {"a": fresh(), "b": fresh()})
    (scene.repo / "dvc.yaml").write_text("stages: {s: {cmd: cp all/a a.csv, deps: [all/a], outs: [a.csv]}}\n")
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("part")
    govern(authority, scene.repo / "all")
    assert "none is stated" in scene.owner.dvc("push", "a.csv", ok=False).stderr
    scene.owner.dvc("push", MLSEAL_PURPOSE="research")
