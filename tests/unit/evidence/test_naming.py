"""Names as commitments: what they hide, what they keep apart, and where the salt lies."""

import hashlib
import os
import stat
import threading
import unicodedata

import pytest

from mlseal.errors import Misuse, Refusal, Unchecked
from mlseal.evidence import naming, oms, salts, statement
from mlseal.evidence.digest import Subject, measure
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.evidence.salts import Salts

SALT = bytes(range(32))
RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PASSED = {"result": "PASSED", "configuration": []}


def test_a_commitment_is_the_hmac_of_domain_kind_and_name():
    import hmac

    expected = hmac.new(SALT, b"mlseal names v1\0path\0a/b.dcm", hashlib.sha256).hexdigest()
    assert Naming(SALT).of("path", "a/b.dcm") == f"name:hmac-sha256:{expected}"
    assert naming.is_commitment(Naming(SALT).of("path", "x"))
    assert not naming.is_commitment("x")
    assert PLAIN.of("path", "a/b.dcm") == "a/b.dcm"


def test_names_kinds_and_salts_that_differ_never_share_a_commitment():
    smile = "café"
    names = [
        "a",
        "a\0",
        "path\0a",
        unicodedata.normalize("NFC", smile),
        unicodedata.normalize("NFD", smile),
        os.fsdecode(b"\xff"),
        os.fsdecode(b"\xed\xb3\xbf"),
        "",
    ]
    made = [Naming(salt).of(kind, name) for salt in (SALT, bytes(32)) for kind in naming.KINDS for name in names]
    ids = [Naming(salt).salt_id for salt in (SALT, bytes(32))]
    assert len({*made, *ids}) == len(made) + 2


def test_the_salt_shows_nowhere():
    assert SALT.hex() not in repr(Naming(SALT)) + str(vars(Naming)) and str(SALT) not in repr(Naming(SALT))


@pytest.mark.parametrize("salt", [b"", b"x" * 31, b"x" * 33])
def test_a_salt_of_another_length_is_refused(salt):
    with pytest.raises(Misuse, match="length"):
        Naming(salt)


def test_the_manifest_suffix_stays_readable():
    named = Naming(SALT)
    assert named.subject("d#manifest") == named.subject("d") + "#manifest"
    assert naming.is_commitment(named.subject("d#manifest"))


@pytest.fixture
def committed(home, monkeypatch, tmp_path):
    monkeypatch.setenv("MLSEAL_NAMES", "committed")
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    monkeypatch.chdir(project)
    return project


def test_statements_hide_names_and_keep_digests(committed):
    folder = committed / "patients-smith"
    folder.mkdir()
    (folder / "x.dcm").write_bytes(b"1")
    measured = measure(folder)
    made = statement.make(measured.subjects, RESULT, PASSED)
    assert b"smith" not in made.payload
    assert [s.sha256 for s in made.subjects] == [s.sha256 for s in measured.subjects]
    assert made.subjects[1].name == made.subjects[0].name + "#manifest"
    assert statement.make(measured.subjects, RESULT, PASSED) == made, "the same salt the next time"
    assert b"smith" in statement.make(measured.subjects, RESULT, PASSED, names=PLAIN).payload


def test_without_the_setting_names_stand_as_they_are(home, tmp_path):
    assert b"smith" in statement.make([Subject("smith", "0" * 64)], RESULT, PASSED).payload
    assert not salts.every()


def test_an_oms_signature_keeps_the_names_that_stock_verifiers_compare(committed):
    (committed / "m").mkdir()
    (committed / "m" / "weights.bin").write_bytes(b"1")
    assert b"weights.bin" in oms.make(measure(committed / "m")).payload


def test_a_misspelt_wish_stops(committed, monkeypatch):
    monkeypatch.setenv("MLSEAL_NAMES", "comitted")
    with pytest.raises(Misuse, match="plain or committed"):
        statement.make([Subject("smith", "0" * 64)], RESULT, PASSED)


def test_projects_have_salts_of_their_own_wherever_one_stands_in_them(committed, monkeypatch, tmp_path):
    first = naming.in_force()
    (committed / "deep").mkdir()
    monkeypatch.chdir(committed / "deep")
    assert naming.in_force() == first
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert naming.in_force() != first
    assert len(salts.every()) == 2


def test_the_salt_is_private_and_lies_outside_of_the_tree(committed, home):
    naming.in_force()
    (file,) = [p for p in home.path.rglob("*.salt")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == stat.S_IMODE(file.parent.parent.stat().st_mode) == 0o700
    assert not list(committed.rglob("*.salt"))
    file.chmod(0o640)
    with pytest.raises(Refusal, match="others may read"):
        naming.in_force()


@pytest.mark.parametrize("data", [b"", b"00\n", b"0" * 64, b"g" * 64 + b"\n", b"0" * 66 + b"\n"])
def test_a_file_that_is_no_salt_is_not_used(committed, home, data):
    naming.in_force()
    (file,) = [p for p in home.path.rglob("*.salt")]
    file.write_bytes(data)
    with pytest.raises(Unchecked, match="holds no salt"):
        naming.in_force()


def test_many_at_once_use_one_salt(home):
    found, ready = [], threading.Barrier(8)

    def make():
        ready.wait()
        found.append(Salts("x").create())

    threads = [threading.Thread(target=make) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 8 and len(set(found)) == 1


def test_the_newest_salt_is_the_one_in_use(home):
    kept = Salts("x")
    first, second = kept.create(), salts.new()
    kept.keep(second)
    kept.keep(second)
    assert kept.kept() == [first, second] and kept.create() == second


def test_after_forgetting_nothing_is_told_and_a_new_salt_begins(committed):
    before = naming.in_force()
    assert salts.of_project().forget() == 1
    assert not salts.every()
    after = naming.in_force()
    assert after.of("path", "x") != before.of("path", "x")
    Salts("another").create()
    assert salts.forget_every() == 2 and not salts.every()


def test_reveal_and_forget_on_the_command_line(committed, home):
    target = committed / "data" / "0231_smith.dcm"
    target.parent.mkdir()
    target.write_bytes(b"1")
    said = naming.in_force().of("path", "data/0231_smith.dcm")
    as_subject = naming.in_force().subject("data") + "#manifest"

    def run(*command):
        return home.run("names", *command, cwd=committed)

    assert run("reveal", said).stdout == "path: data/0231_smith.dcm\n"
    assert run("reveal", said, "--in", "data").stdout == "path: data/0231_smith.dcm\n", "as seen from the root above"
    assert run("reveal", as_subject).stdout == "subject: data\n"
    (committed / "m.jsonl").write_bytes(measure(committed / "data").manifest.to_bytes())
    in_manifest = naming.in_force().of("subject", "0231_smith.dcm")
    assert run("reveal", in_manifest, "--in", "m.jsonl").stdout == "subject: 0231_smith.dcm\n"
    other = run("reveal", Naming(bytes(32)).of("path", "data/0231_smith.dcm"))
    assert other.returncode == 11 and "no name in" in other.stderr
    assert run("reveal", "smith").returncode == 2
    assert run("forget").stdout == "erased 1 salts\n"
    gone = run("reveal", said)
    assert gone.returncode == 11 and "no salt" in gone.stderr
