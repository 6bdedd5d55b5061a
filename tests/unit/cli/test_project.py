"""Which project, which store, which trust root: what a user meets who has two of them, or stands in another folder."""

import json
import shutil

import pytest
from click.testing import CliRunner

from mlseal.cli import main
from mlseal.errors import Misuse, NoEvidence
from mlseal.evidence import beginning, project, trust


def call(*arguments, code=0):
    done = CliRunner().invoke(main, list(map(str, arguments)), prog_name="mlseal")
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def signed(authority, monkeypatch):
    """The project's folder, with a file in it that was signed from a folder below."""
    folder = authority.dir.parent
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "train.csv").write_text("age,sick\n41,1\n")
    (folder / "claim.json").write_text('{"result": "PASSED", "configuration": [], "url": "x"}')
    monkeypatch.chdir(folder / "notebooks")
    done = call("sign", "../train.csv", "--type", "test-result", "--predicate", "../claim.json")
    assert str(authority.dir / "evidence" / "bundles") in done.stdout, "it says where the bundle went"
    return folder


def reasons_of_the_log(folder, *options):
    done = call("gate", folder / "train.csv", "--policy", folder / ".mlseal/policy.yaml", "--json", *options, code=11)
    return [one for one in json.loads(done.stdout)["reasons"] if one["rule"] == "log"]


def test_a_folder_of_the_project_has_the_projects_store(signed):
    assert not (signed / "notebooks" / ".mlseal").exists()
    assert reasons_of_the_log(signed) == []


def test_from_another_directory_there_is_one_reason_and_nothing_to_revoke(signed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (reason,) = reasons_of_the_log(signed)
    assert f"the store {tmp_path}/.mlseal/evidence does not exist" in reason["message"]
    (tmp_path / ".mlseal/evidence").mkdir(parents=True)
    (other,) = reasons_of_the_log(signed)
    assert "holds none of the " in other["message"]
    for one in (reason, other):
        assert "--store DIR" in one["remedy"] and "revoke" not in json.dumps(one)
    assert reasons_of_the_log(signed, "--store", signed / ".mlseal/evidence") == []


def test_a_single_leaf_that_is_missing_is_named(signed, authority):
    assert reasons_of_the_log(signed) == []
    (signed / "claim.json").write_text('{"result": "FAILED", "configuration": [], "url": "y"}')
    evidence_id = json.loads(
        call("sign", "../train.csv", "--type", "test-result", "--predicate", "../claim.json", "--json").stdout
    )["evidenceId"]
    file = authority.store.path(evidence_id)
    shutil.move(file, file.with_suffix(".away"))
    try:
        (reason,) = reasons_of_the_log(signed)
    finally:
        shutil.move(file.with_suffix(".away"), file)
    assert "nobody shows: leaf" in reason["message"]
    assert f"mlseal revoke {evidence_id}" in reason["remedy"]


def test_a_directory_that_everybody_may_write_is_nobodys_project(tmp_path, monkeypatch):
    """Whoever plants ``/tmp/.mlseal`` would else get what is signed in any folder below."""
    (tmp_path / ".mlseal").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert project.home() == tmp_path / ".mlseal"
    tmp_path.chmod(0o1777)
    assert str(project.home()) == ".mlseal"


def test_a_second_init_says_whom_the_user_trusts_now_and_the_way_back(authority, tmp_path, monkeypatch):
    first = trust.default_fingerprint()
    monkeypatch.chdir(tmp_path)
    done = call("init", "--name", "second.mlseal.local", "--state", tmp_path / "state")
    back = f"mlseal trust use {first}"
    assert f"this user now trusts second.mlseal.local instead of demo.mlseal.local; back: {back}" in done.stdout
    second = trust.default_fingerprint()
    try:
        monkeypatch.chdir(authority.dir.parent)
        checks = {one["name"]: one for one in json.loads(call("doctor", "--json").stdout)["checks"]}
        assert (checks["trust of the project"]["state"], checks["trust of the project"]["remedy"]) == ("note", back)
        call("trust", "use", first[:15])
        assert trust.default_fingerprint() == first
        checks = {one["name"] for one in json.loads(call("doctor", "--json").stdout)["checks"]}
        assert "trust of the project" not in checks
        assert "instead of" not in call("init", tmp_path / "x/.mlseal", "--state", tmp_path / "s3", "--json").stdout
    finally:
        trust.use(first)
    assert second != first


def test_a_first_init_replaces_nobody(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "instead of" not in call("init").stdout
    assert project.other_root(trust.resolve()) is None


def test_a_root_that_this_user_never_pinned_is_compared_and_never_taken(new_authority, authority, monkeypatch):
    """A hostile tree brings a root of its own; nothing offers to believe it by one command."""
    foreign = new_authority(start=False, enter=False)
    monkeypatch.chdir(foreign.dir.parent)
    mended = project.switch(project.other_root(trust.resolve()))
    assert "what its operator announced" in mended
    assert "trust use" not in mended and foreign.trust.fingerprint not in mended


def test_a_unique_beginning_of_eight_digits_names_evidence(signed, authority):
    found = json.loads(
        call("sign", "../train.csv", "--type", "test-result", "--predicate", "../claim.json", "--json").stdout
    )["evidenceId"]
    assert found in call("revoke", found[:16] + "…").stdout
    call("approve", "../train.csv", "--evidence", found[:12].upper())
    call("revoke", found[:7], code=2)
    call("revoke", "0" * 64, code=11)


def test_beginnings_of_several_of_none_and_too_short_ones():
    known = ["ab" * 32, "ab" * 31 + "cd", "cd" * 32]
    listed = lambda start: [one for one in known if one.startswith(start)]  # noqa: E731
    assert beginning.full("cdcdcdcd", listed) == "cd" * 32
    assert beginning.full("ab" * 32, listed) == "ab" * 32
    for wrong in ("cdcdcdc", "", "nonsense", "ab" * 33, "%" * 8):
        with pytest.raises(Misuse, match="names no evidence"):
            beginning.full(wrong, listed)
    with pytest.raises(Misuse, match="the beginning of 2 here"):
        beginning.full("abababab", listed)
    with pytest.raises(NoEvidence, match="begins with"):
        beginning.full("01234567", listed)


def test_what_is_no_bundle_and_what_is_no_claim_are_said_with_the_way_out(signed):
    done = call("verify", "../train.csv", "--identity", "x", "--issuer", "y", code=10)
    assert "is no bundle" in done.stderr and "as --subject: mlseal verify BUNDLE --subject PATH" in done.stderr
    for text in ("{", '{"result": "GREAT", "configuration": []}', "[]"):
        (signed / "broken.json").write_text(text)
        done = call("sign", "../train.csv", "--type", "test-result", "--predicate", "../broken.json", code=2)
        assert "docs/predicates/test-result.md" in done.stderr, text
