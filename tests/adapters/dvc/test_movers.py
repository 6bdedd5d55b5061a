"""Every command that moves data: signed before upload, verified before use. The table in docs/dvc.md names these tests."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from adapters.dvc.people import Person, Scene, fresh, oid_in, policy_text, statement_in

from mlseal.evidence.digest import measure

PIPELINE = "stages:\n  copy:\n    cmd: cp data.csv out.csv\n    deps: [data.csv]\n    outs: [out.csv]\n"
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "dvc.md"


def cached(person: Person) -> list[Path]:
    return [path for path in (person.cwd / ".dvc" / "cache").rglob("*") if path.is_file() and "runs" not in path.parts]


def staged(person: Person) -> list[Path]:
    return [path for path in (person.cwd / ".dvc/tmp/mlseal/staging").rglob("*") if path.is_file()]


def temporary(scene: Scene) -> list[Path]:
    return list(scene.remote.rglob("*.tmp"))


def said_of(scene: Scene, path: str) -> dict:
    found = [statement_in(bundle)["predicate"] for bundle in scene.bundles()]
    return next(predicate for predicate in found if predicate["path"] == path)


def consumer(scene: Scene, tmp_path: Path, name: str = "consumer") -> Person:
    """Somebody else's protected repository on the same machine."""
    person = scene.newcomer(name, clone=False)
    person.cwd = tmp_path / name
    person.cwd.mkdir()
    person.git("init", "-q")
    person.dvc("init", "-q")
    person.mlseal("dvc", "install", "--no-autoload", "--no-hook")
    person.commit("begin")
    return person


# --to-remote


def test_to_remote_is_signed_first_and_leaves_nothing_here(scene: Scene, tmp_path: Path) -> None:
    outside, directory = tmp_path / "outside.csv", tmp_path / "outside"
    outside.write_bytes(fresh())
    directory.mkdir()
    for name in ("a", "b"):
        (directory / name).write_bytes(fresh())
    scene.owner.dvc("add", str(outside), "--to-remote", "-o", "in.csv")
    scene.owner.dvc("import-url", str(directory), "far", "--to-remote")
    assert cached(scene.owner) == staged(scene.owner) == temporary(scene) == []
    assert said_of(scene, "in.csv")["origin"] == "added"
    far = said_of(scene, "far")
    assert far["origin"] == "imported"
    assert far["lineage"][0]["name"].endswith("outside")
    scene.owner.commit("pointers")
    reader = scene.newcomer()
    reader.dvc("pull")
    assert (reader.cwd / "in.csv").read_bytes() == outside.read_bytes()
    assert measure(reader.cwd / "far").sha256 == measure(directory).sha256

    (directory / "a").write_bytes(fresh())
    scene.owner.dvc("update", "far.dvc", "--to-remote")
    assert cached(scene.owner) == staged(scene.owner) == temporary(scene) == []
    scene.owner.commit("update")
    reader.git("pull", "-q")
    reader.dvc("pull")
    assert measure(reader.cwd / "far").sha256 == measure(directory).sha256


def test_to_remote_without_a_signature_uploads_nothing(scene: Scene, tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_bytes(fresh())
    done = scene.owner.dvc(
        "add", str(outside), "--to-remote", "-o", "in.csv", ok=False, MLSEAL_POLICY=str(_nobody(tmp_path))
    )
    assert "mlseal: " in done.stderr
    assert [p for p in scene.remote.rglob("*") if p.is_file()] == []
    assert cached(scene.owner) == staged(scene.owner) == []
    assert not (scene.repo / "in.csv.dvc").exists()


def _nobody(tmp_path: Path) -> Path:
    path = tmp_path / "nobody.yaml"
    path.write_text(policy_text("https://elsewhere.example", "https://elsewhere.example/nobody"))
    return path


def test_to_remote_larger_than_the_disk_is_refused_before_it_begins(scene: Scene, tmp_path: Path) -> None:
    huge = tmp_path / "huge.bin"
    with huge.open("wb") as file:
        file.truncate(shutil.disk_usage(tmp_path).total * 2)  # sparse
    done = scene.owner.dvc("add", str(huge), "--to-remote", "-o", "in.bin", ok=False)
    assert "too large to be staged" in done.stderr
    assert [p for p in scene.remote.rglob("*") if p.is_file()] == staged(scene.owner) == []


def test_a_disk_that_fills_up_while_staging_is_told(tmp_path: Path) -> None:
    from mlseal_dvc import staging

    from mlseal.errors import Unreadable

    with pytest.raises(Unreadable, match="disk is full"), staging._room_told(tmp_path):
        raise OSError(errno.ENOSPC, "no space left")
    with pytest.raises(FileNotFoundError), staging._room_told(tmp_path):
        raise FileNotFoundError


# run cache


def test_a_stage_runs_rather_than_restore_what_nobody_signed(scene: Scene) -> None:
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.owner.dvc("repro", "-q")
    (scene.repo / "out.csv").unlink()
    (scene.repo / "dvc.lock").unlink()
    done = scene.owner.dvc("repro")
    assert "stage copy runs: what the cache holds for it is not used" in done.stderr
    scene.owner.commit("run")
    scene.owner.dvc("push")
    assert said_of(scene, "out.csv")["origin"] == "ran"

    (scene.repo / "out.csv").unlink()  # signed now, for this command and these dependencies: restored
    (scene.repo / "dvc.lock").unlink()
    done = scene.owner.dvc("repro")
    assert "stage copy runs" not in done.stderr
    assert "is cached - skipping run" in done.stdout
    assert _noted(scene) == {"run-cache"}


def _noted(scene: Scene) -> set[str]:
    notes = (scene.repo / ".dvc/tmp/mlseal/origins").glob("*")
    return {json.loads(note.read_bytes())["origin"] for note in notes}


def test_signed_output_of_other_inputs_is_not_restored(scene: Scene) -> None:
    """An edited entry names an older output of the stage, which is signed: for other dependencies."""
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("one")
    scene.owner.dvc("push")
    old = _locked(scene)
    (scene.repo / "data.csv").unlink()
    scene.add("data.csv")
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("two")
    scene.owner.dvc("push")
    new = _locked(scene)
    for entry in (scene.repo / ".dvc/cache/runs").rglob("*"):
        if entry.is_file() and new in entry.read_text():
            head, _, tail = entry.read_text().rpartition(new)
            entry.chmod(0o644)
            entry.write_text(head + old + tail)
    (scene.repo / "out.csv").unlink()
    (scene.repo / "dvc.lock").unlink()
    done = scene.owner.dvc("repro")
    assert "signed for another command or other dependencies" in done.stderr
    assert (scene.repo / "out.csv").read_bytes() == (scene.repo / "data.csv").read_bytes()


def _locked(scene: Scene) -> str:
    return re.findall(r"md5: ([0-9a-f]{32})", (scene.repo / "dvc.lock").read_text())[-1]


def test_committed_by_hand_is_refused_by_a_policy_about_origin(scene: Scene, authority) -> None:
    rule = "    when: [{id: built, message: \"made by a run\", check: \"p.origin == 'ran' || p.origin == 'added'\"}]\n"
    scene.policy.write_text(policy_text(authority.issuer, authority.san("producer"), rule))
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.owner.dvc("repro", "-q")
    (scene.repo / "out.csv").unlink()
    (scene.repo / "out.csv").write_bytes(fresh())
    scene.owner.dvc("commit", "-q", "-f")
    scene.owner.commit("laundered")
    assert "made by a run" in scene.owner.dvc("push", ok=False).stderr
    assert scene.objects() == []
    scene.owner.dvc("repro", "-q", "-f")
    scene.owner.commit("run")
    scene.owner.dvc("push")
    assert said_of(scene, "out.csv")["origin"] == "ran"


# imports


def test_imports_are_judged_as_their_source(scene: Scene, authority, tmp_path: Path) -> None:
    """Who may sign is the policy's word about the source's URL and path, also where the source is marked by nobody."""
    data = scene.add("data.csv")
    scene.owner.dvc("push")
    (scene.repo / ".dvc" / "mlseal.json").unlink()
    scene.owner.commit("not marked any more")
    other = consumer(scene, tmp_path)
    policy = Path(other.env["MLSEAL_POLICY"])
    signer = policy_text(authority.issuer, authority.san("producer"))
    for_source = signer.replace('action: "*"', f'action: "*", repository: "{scene.repo}", output: "data.csv"')
    nobody = policy_text(authority.issuer, authority.san("gate"))
    policy.write_text(nobody.replace('action: "*"', f'action: "*", repository: "{scene.repo}"'))
    assert "mlseal: " in other.dvc("import", str(scene.repo), "data.csv", "-o", "theirs.csv", ok=False).stderr
    assert not (other.cwd / "theirs.csv").exists()
    policy.write_text(for_source)
    other.dvc("import", str(scene.repo), "data.csv", "-o", "theirs.csv")
    assert (other.cwd / "theirs.csv").read_bytes() == data.read_bytes()
    other.commit("import")
    other.env["MLSEAL_STATE_DIR"] = str(tmp_path / "forgetful")  # no copies of evidence: asked at the source again
    other.run(str(other.python), "-m", "mlseal", "trust", "add", str(scene.policy.parent / "x"), ok=None)
    shutil.rmtree(other.cwd / ".dvc" / "cache")
    (other.cwd / "theirs.csv").unlink()
    other.dvc("pull")
    assert (other.cwd / "theirs.csv").read_bytes() == data.read_bytes()


def test_update_verifies_the_new_version(scene: Scene, tmp_path: Path) -> None:
    scene.add("data.csv")
    scene.owner.dvc("push")
    other = consumer(scene, tmp_path)
    other.dvc("import", "-q", str(scene.repo), "data.csv")
    before = (other.cwd / "data.csv").read_bytes()
    (scene.repo / "data.csv").unlink()
    new = scene.add("data.csv")
    assert "mlseal: " in other.dvc("update", "data.csv.dvc", ok=False).stderr, "nobody signed the new version yet"
    assert not (other.cwd / "data.csv").exists() or (other.cwd / "data.csv").read_bytes() == before
    scene.owner.dvc("push")
    other.dvc("update", "data.csv.dvc")
    assert (other.cwd / "data.csv").read_bytes() == new.read_bytes()


def test_source_without_evidence_needs_the_policys_word(scene: Scene, authority, tmp_path: Path) -> None:
    unsigned = scene.newcomer("unsigned", autoload=False, clone=False)
    unsigned.cwd = tmp_path / "unsigned"
    unsigned.cwd.mkdir()
    unsigned.git("init", "-q")
    unsigned.dvc("init", "-q")
    (unsigned.cwd / "plain.csv").write_bytes(fresh())
    (unsigned.cwd / "code.py").write_text("1\n")
    unsigned.dvc("add", "-q", "plain.csv")
    unsigned.commit("begin")
    other = consumer(scene, tmp_path)
    assert "no provenance" in other.dvc("import", str(unsigned.cwd), "plain.csv", ok=False).stderr
    assert "in the git of" in other.dvc("import", str(unsigned.cwd), "code.py", ok=False).stderr
    assert not (other.cwd / "plain.csv").exists()
    listed = 'ungoverned: [{tool: dvc, action: import, repository: "%s", owner: ada, until: %s}]\n'
    policy = policy_text(authority.issuer, authority.san("producer"))
    scene.policy.write_text(policy + listed % (unsigned.cwd, "2000-01-01T00:00:00Z"))
    assert "no provenance" in other.dvc("import", str(unsigned.cwd), "plain.csv", ok=False).stderr, "it has ended"
    scene.policy.write_text(policy + listed % (unsigned.cwd, "2999-01-01T00:00:00Z"))
    done = other.dvc("import", str(unsigned.cwd), "plain.csv")
    assert "by decision of ada until 2999" in done.stderr
    (other.cwd / "plain.csv").unlink()
    other.dvc("checkout")
    assert (other.cwd / "plain.csv").read_bytes() == (unsigned.cwd / "plain.csv").read_bytes()


def test_lineage_names_the_evidence_of_the_source(scene: Scene, tmp_path: Path) -> None:
    data = scene.add("data.csv")
    scene.owner.dvc("push")
    (bundle,) = scene.bundles()
    evidence = json.loads(scene.owner.mlseal("dvc", "evidence", "data.csv", "--json").stdout)["evidenceId"]
    maker = scene.newcomer("maker", clone=False)
    maker.cwd, maker.env = tmp_path / "maker", scene.owner.env | {"DVC_SITE_CACHE_DIR": str(tmp_path / "dvc-maker")}
    maker.cwd.mkdir()
    maker.git("init", "-q")
    maker.dvc("init", "-q")
    maker.mlseal("dvc", "install", "--no-autoload", "--no-hook")
    maker.dvc("remote", "add", "-q", "-d", "own", str(tmp_path / "own"))
    maker.dvc("import", "-q", str(scene.repo), "data.csv")
    (maker.cwd / "dvc.yaml").write_text(PIPELINE)
    maker.dvc("repro", "-q")
    maker.commit("made")
    maker.dvc("push")
    made = [statement_in(b)["predicate"] for b in (tmp_path / "own").rglob("*.sigstore.json")]
    (dep,) = next(p for p in made if p["path"] == "out.csv")["lineage"]
    assert dep["digest"] == {"sha256": measure(data).sha256}
    assert dep["annotations"]["evidence"] == f"sha256:{evidence}"
    assert bundle.exists()


# experiments, remotes and revisions


def test_experiments(scene: Scene) -> None:
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(PIPELINE.replace("cp data.csv", "cp -f data.csv"))
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("run")
    scene.owner.dvc("push")
    (scene.repo / "dvc.yaml").write_text(
        "stages:\n  copy:\n    cmd: cat data.csv data.csv > out.csv\n    deps: [data.csv]\n    outs: [out.csv]\n"
    )
    scene.owner.dvc("exp", "run", "-q", "-n", "here")
    scene.owner.git("reset", "-q", "--hard")
    scene.owner.dvc("checkout")
    applied = scene.owner.dvc("exp", "apply", "here", ok=None)
    assert applied.returncode != 0, "nobody signed the experiment's output yet"
    assert "no provenance of out.csv" in applied.stderr
    scene.owner.git("reset", "-q", "--hard")
    bare = scene.repo.parent / "bare.git"
    scene.owner.git("init", "-q", "--bare", str(bare))
    scene.owner.git("push", "-q", str(bare), "HEAD:refs/heads/main", MLSEAL_HOOK="")
    scene.owner.git("remote", "add", "origin", str(bare))
    assert "signed 1 outputs" in scene.owner.dvc("exp", "push", "origin", "here").stderr
    scene.owner.dvc("exp", "apply", "here")
    assert (scene.repo / "out.csv").read_bytes() == (scene.repo / "data.csv").read_bytes() * 2

    reader = scene.newcomer()
    reader.git("remote", "set-url", "origin", str(bare))
    done = reader.dvc("exp", "pull", "origin", "here")
    assert "verified" in done.stderr
    reader.dvc("exp", "apply", "here")
    assert (reader.cwd / "out.csv").read_bytes() == (scene.repo / "out.csv").read_bytes()


def test_experiments_in_a_directory_of_their_own(scene: Scene) -> None:
    scene.add("data.csv")
    (scene.repo / "dvc.yaml").write_text(PIPELINE)
    scene.owner.dvc("repro", "-q")
    scene.owner.commit("run")
    scene.owner.dvc("push")
    scene.owner.dvc("exp", "run", "-f", "--temp", "-n", "aside")
    assert "aside" in scene.owner.dvc("exp", "list", "--name-only").stdout


def test_named_remote_targets_and_every_commit(scene: Scene) -> None:
    other = scene.remote.parent / "second"
    scene.owner.dvc("remote", "add", "-q", "second", str(other))
    one = scene.add("one.csv").read_bytes()
    (scene.repo / "one.csv").unlink()
    scene.add("one.csv")
    scene.add("two.csv")
    scene.owner.git("tag", "now")
    scene.owner.dvc("push", "-r", "second", "two.csv.dvc")
    assert len(list(other.rglob("*.sigstore.json"))) == 1
    assert scene.bundles() == []
    assert "signed 2 outputs, 1 already signed" in scene.owner.dvc("push", "--all-commits").stderr
    assert "signed 0 outputs" in scene.owner.dvc("push", "-aT").stderr
    reader = scene.newcomer()
    reader.dvc("fetch", "--all-commits")
    reader.dvc("pull", "-r", "second", "two.csv.dvc")
    assert one in {path.read_bytes() for path in cached(reader)}


@pytest.mark.parametrize("option", ["-a", "-T"])
def test_branches_and_tags_each_alone(scene: Scene, option: str) -> None:
    """A version that only a branch (or only a tag) still has is signed and sent with that option, and with it alone."""
    first = scene.add("one.csv").read_bytes()
    scene.owner.git(*({"-a": ("branch", "then"), "-T": ("tag", "then")}[option]))
    (scene.repo / "one.csv").unlink()
    scene.add("one.csv")
    assert "signed 1 outputs" in scene.owner.dvc("push").stderr
    assert "signed 1 outputs, 1 already signed" in scene.owner.dvc("push", option).stderr
    reader = scene.newcomer()
    reader.git("fetch", "-q", "origin", "then:then") if option == "-a" else reader.git("fetch", "-q", "--tags")
    reader.dvc("fetch", option)
    assert first in {path.read_bytes() for path in cached(reader)}


# DVC's memory of hashes


def test_rows_that_another_user_planted_are_not_believed(scene: Scene, request: pytest.FixtureRequest) -> None:
    """The row says that the new file still is the old version; DVC would put the old bytes in its place."""
    site = Path(tempfile.mkdtemp(dir="/var/tmp"))  # in others' reach, as DVC's own is; pytest's directories are not
    request.addfinalizer(lambda: shutil.rmtree(site, ignore_errors=True))
    site.chmod(0o777)
    scene.owner.env["DVC_SITE_CACHE_DIR"] = str(site)
    data = scene.add("data.csv")
    old, oid = data.read_bytes(), oid_in(scene.repo / "data.csv.dvc")
    scene.owner.dvc("push")
    new = fresh()
    data.unlink()
    data.write_bytes(new)
    _plant(site, Path(scene.owner.env["MLSEAL_STATE_DIR"]) / "dvc" / "site", data, oid)
    scene.owner.dvc("add", "-q", "data.csv")
    assert oid_in(scene.repo / "data.csv.dvc") != oid
    assert data.read_bytes() == new != old
    scene.owner.commit("new")
    scene.owner.dvc("push")
    assert said_of_oid(scene, oid_in(scene.repo / "data.csv.dvc"))["path"] == "data.csv"


def said_of_oid(scene: Scene, oid: str) -> dict:
    found = [statement_in(bundle)["predicate"] for bundle in scene.bundles()]
    return next(predicate for predicate in found if predicate["dvc"]["oid"] == oid)


def _plant(site: Path, used: Path, path: Path, oid: str) -> None:
    """Write a row into every DVC state below `site` as DVC would: `path` has the MD5 `oid`."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.state import State
    from dvc_objects.fs.local import localfs

    names = os.listdir(used)
    assert names, "DVC was given a private directory"
    for name in names:
        directory = site / "repo" / name  # where DVC itself would look
        state = State(root_dir=str(path.parent), tmp_dir=str(directory))
        state.save(str(path), localfs, HashInfo("md5", oid))
        assert state.get(str(path), localfs)[1].value == oid
        state.close()


@pytest.mark.parametrize(
    ("mode", "above", "answer"), [(0o777, 0o755, True), (0o1777, 0o755, False), (0o700, 0o755, False)]
)
def test_exposed_directories(tmp_path: Path, mode: int, above: int, answer: bool) -> None:
    from mlseal_dvc import statedir

    base = Path("/var/tmp") if os.getuid() == 0 else tmp_path
    inner = base / f"mlseal-test-{tmp_path.name}"
    inner.mkdir()
    try:
        inner.chmod(mode)
        assert statedir.exposed(inner / "repo" / "x") is answer
    finally:
        inner.rmdir()
    assert not statedir.exposed(tmp_path / "never made")


# the table


def commands() -> set[str]:
    """Every command of the installed DVC, as its own parser knows them."""
    from dvc.cli.parser import get_main_parser

    def below(parser, name: str):
        inner = [action for action in parser._actions if isinstance(action.choices, dict)]
        if not inner:
            yield name
        for action in inner:
            first = {id(sub): word for word, sub in reversed(action.choices.items())}  # aliases come after
            for word in first.values():
                yield from below(action.choices[word], f"{name} {word}".strip())

    return set(below(get_main_parser(), ""))


def listed() -> dict[str, str]:
    """Commands in the documented table, and the tests named beside them."""
    text = DOCUMENT.read_text().split("## Every command")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {name: row[-1] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def test_every_command_of_dvc_is_in_the_table() -> None:
    assert commands() - listed().keys() == set(), "new in this DVC: find out whether they move data"
    assert listed().keys() - commands() == set(), "not in this DVC"


def test_the_table_names_tests_that_exist() -> None:
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for command, tests in listed().items():
        for name in re.findall(r"`(test_\w+)`", tests):
            assert f"def {name}(" in written, (command, name)
