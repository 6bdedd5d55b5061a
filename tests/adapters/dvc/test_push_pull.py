"""The way that is meant: plain ``dvc push`` signs, somebody else pulls and verifies."""

from __future__ import annotations

import json
from pathlib import Path

from adapters.dvc.people import Scene, fresh, oid_in, statement_in

from mlseal.evidence.digest import measure


def test_plain_push_signs_what_it_uploads(scene: Scene) -> None:
    scene.add("data.csv")
    scene.add("imgs", {"a/1.bin": fresh(), "b.bin": fresh(), "empty": b""})
    done = scene.owner.dvc("push")
    assert "signed 2 outputs, 0 already signed" in done.stderr
    statements = {s["predicate"]["path"]: s for s in map(statement_in, scene.bundles())}
    assert sorted(statements) == ["data.csv", "imgs"]
    for path, said in statements.items():
        assert [s["digest"]["sha256"] for s in said["subject"]] == [
            s.sha256 for s in measure(scene.repo / path).subjects
        ]
        assert said["predicate"]["origin"] == "added"
        assert said["predicate"]["dvc"]["oid"] == oid_in(scene.repo / f"{path}.dvc")
        assert said["predicate"]["git"]["commit"] == scene.owner.git("rev-parse", "HEAD").stdout.strip()
        assert not said["predicate"]["git"]["dirty"]
    manifest = measure(scene.repo / "imgs").manifest
    kept = scene.evidence / "manifests" / manifest.sha256[:2] / f"{manifest.sha256[2:]}.jsonl"
    assert kept.read_bytes() == manifest.to_bytes()
    assert (scene.evidence / "log").is_dir()


def test_second_push_signs_nothing_and_keeps_every_byte(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    before = {path: path.read_bytes() for path in scene.bundles()}
    done = scene.owner.dvc("push")
    assert "signed 0 outputs, 1 already signed" in done.stderr
    assert {path: path.read_bytes() for path in scene.bundles()} == before


def test_another_person_pulls_with_the_public_root_only(scene: Scene) -> None:
    data = scene.add("data.csv")
    scene.add("imgs", {"x": fresh()})
    scene.owner.dvc("push")
    reader = scene.newcomer()
    done = reader.dvc("pull")
    assert "verified 2 outputs" in done.stderr
    assert (reader.cwd / "data.csv").read_bytes() == data.read_bytes()
    assert measure(reader.cwd / "imgs").sha256 == measure(scene.repo / "imgs").sha256
    # A later push: the reader's pinned checkpoint is shown to continue, from the tiles beside the data.
    scene.add("more.csv")
    scene.owner.dvc("push")
    reader.git("pull", "-q")
    reader.dvc("pull")
    rows = json.loads(reader.mlseal("dvc", "verify", "--json").stdout)["outputs"]
    assert {row["path"]: row["ok"] for row in rows} == {"data.csv": True, "imgs": True, "more.csv": True}


def test_explicit_commands_need_no_autoload_and_no_policy(scene: Scene, authority) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    reader = scene.newcomer(autoload=False)
    del reader.env["MLSEAL_POLICY"]
    who = ("--identity", authority.san("producer"), "--issuer", authority.issuer)
    assert reader.mlseal("dvc", "pull", ok=None).returncode == 2, "nobody is named: not initialised"
    assert not (reader.cwd / "data.csv").exists()
    wrong = ("--identity", authority.san("gate"), "--issuer", authority.issuer)
    assert reader.mlseal("dvc", "pull", *wrong, ok=None).returncode in (10, 11)
    assert not (reader.cwd / "data.csv").exists()
    reader.mlseal("dvc", "pull", *who)
    assert (reader.cwd / "data.csv").exists()
    reader.mlseal("dvc", "verify", *who)


def test_names_and_subdirectory(scene: Scene) -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    scene.add(f"sub/{composed}\n.csv")
    scene.add(f"sub/{decomposed}.d", {"n\nl": fresh(), composed: fresh(), decomposed: fresh()})
    scene.owner.dvc("push", cwd=scene.repo / "sub")
    reader = scene.newcomer()
    reader.dvc("pull", cwd=reader.cwd / "sub")
    for name in (f"sub/{composed}\n.csv", f"sub/{decomposed}.d"):
        assert measure(reader.cwd / name).sha256 == measure(scene.repo / name).sha256
    assert len(list((reader.cwd / f"sub/{decomposed}.d").iterdir())) == 3


def test_pipeline_lineage_is_claimed_and_chained(scene: Scene) -> None:
    data = scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cp data.csv out.csv\n    deps: [data.csv]\n    outs: [out.csv]\n"
    )
    scene.owner.dvc("repro", "-q")
    scene.owner.commit()
    scene.owner.dvc("push")
    said = {s["predicate"]["path"]: s["predicate"] for s in map(statement_in, scene.bundles())}
    made = said["out.csv"]
    assert made["dvc"]["command"] == "cp data.csv out.csv"
    assert made["origin"] == "ran"
    (dep,) = made["lineage"]
    assert dep["name"] == "data.csv"
    assert dep["digest"] == {"sha256": measure(data).sha256}
    assert dep["annotations"]["claimed"] is True
    assert any("dvc.lock" in text for text in made["notProven"])


def test_get_import_and_api_verify(scene: Scene, tmp_path: Path) -> None:
    data = scene.add("data.csv")
    scene.add("imgs", {"x": fresh(), "y": fresh()})
    scene.owner.dvc("push")
    reader = scene.newcomer(clone=False)
    reader.cwd = tmp_path / "elsewhere"
    reader.cwd.mkdir()
    reader.dvc("get", str(scene.repo), "imgs", "-o", "got")
    assert measure(reader.cwd / "got").sha256 == measure(scene.repo / "imgs").sha256
    read = f"import dvc.api; print(dvc.api.read('data.csv', repo={str(scene.repo)!r}, rev='main'), end='')"
    assert reader.run(str(reader.python), "-c", read).stdout == data.read_text()
    reader.git("init", "-q")
    reader.dvc("init", "-q")
    reader.dvc("import", "-q", str(scene.repo), "data.csv")
    assert (reader.cwd / "data.csv").read_bytes() == data.read_bytes()


def test_code_only_clone_can_push_code(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    other = scene.newcomer()
    done = other.dvc("push")
    assert "signed 0 outputs" in done.stderr
    # Its git push is checked by evidence, without a byte of data.
    other.mlseal("dvc", "install", "--no-autoload", "--no-marker")
    (other.cwd / "code.py").write_text("1\n")
    other.commit("code")
    done = other.git("push", "-q", "origin", "HEAD:refs/heads/code")
    assert "verified the provenance of 1 outputs" in done.stderr
    assert not (other.cwd / "data.csv").exists()
    assert not list((other.cwd / ".dvc" / "cache").rglob("*"))


def test_gc_leaves_the_evidence(scene: Scene) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    before = scene.bundles()
    assert before
    scene.owner.dvc("gc", "-w", "-c", "-f")
    assert scene.bundles() == before
    scene.newcomer().dvc("pull")
