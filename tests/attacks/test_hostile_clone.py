"""A clone that brings its own authority, policy and evidence is judged by the reader's trust, never by its own."""

import shutil
import subprocess
import sys

import pytest

from mlseal.evidence import statement
from mlseal.evidence.digest import measure

RESULT = "https://in-toto.io/attestation/test-result/v0.1"


@pytest.fixture
def clone(new_authority, authority, tmp_path, monkeypatch):
    """A directory by an attacker who runs an authority of the same name and signed everything with it."""
    attacker = new_authority(enter=False)
    directory = tmp_path / "clone"
    directory.mkdir()
    model = directory / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(b"evil")
    said = statement.make(measure(model).subjects, RESULT, {"result": "PASSED", "configuration": []})
    with monkeypatch.context() as patch:
        for key, value in attacker.env.items():
            patch.setenv(key, value)
        bundle = attacker.signer("producer").sign(said)
    shutil.copytree(attacker.dir, directory / ".mlseal")
    bundle.write(directory / "evidence.sigstore.json")
    return directory


def test_its_bundle_is_refused_under_the_readers_trust(authority, clone):
    done = authority.run(
        "verify",
        "evidence.sigstore.json",
        "--subject",
        "model",
        "--identity",
        authority.san("producer"),
        "--issuer",
        authority.issuer,
        cwd=clone,
    )
    assert done.returncode == 10, done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_bundle_verifies_only_for_those_who_chose_that_root(authority, clone):
    done = authority.run(
        "verify",
        "evidence.sigstore.json",
        "--subject",
        "model",
        "--identity",
        authority.san("producer"),
        "--issuer",
        authority.issuer,
        "--trust",
        ".mlseal/trust_config.json",
        cwd=clone,
    )
    assert done.returncode == 0, done.stderr


def test_its_evidence_allows_nothing_even_by_its_own_policy(authority, clone):
    done = authority.run("gate", "model", "--policy", ".mlseal/policy.yaml", cwd=clone)
    assert done.returncode in (10, 11), done.stdout
    assert not list((authority.dir / "evidence").rglob("*.sigstore.json"))


def test_its_history_does_not_pass_an_audit_under_the_readers_trust(authority, clone):
    assert authority.run("audit", ".mlseal", cwd=clone).returncode == 11


def test_its_root_is_not_pinned_with_another_fingerprint(authority, clone):
    before = sorted(p.name for p in (authority.home.path / ".config" / "mlseal" / "trust").iterdir())
    done = authority.run("trust", "add", ".mlseal/trust_config.json", "--fingerprint", "sha256:" + "0" * 64, cwd=clone)
    assert done.returncode == 10
    assert sorted(p.name for p in (authority.home.path / ".config" / "mlseal" / "trust").iterdir()) == before


def test_a_person_without_any_trust_is_not_given_the_clones(make_home, clone, authority):
    stranger = make_home("stranger")
    done = stranger.run(
        "verify",
        "evidence.sigstore.json",
        "--subject",
        "model",
        "--identity",
        authority.san("producer"),
        "--issuer",
        authority.issuer,
        cwd=clone,
    )
    assert done.returncode == 2
    assert "no trust root is configured" in done.stderr


def test_a_package_named_mlseal_in_the_clone_is_not_what_starts_as_service(new_authority, clone):
    asleep = new_authority(start=False)
    (clone / "mlseal").mkdir()
    (clone / "mlseal" / "__init__.py").write_text("raise SystemExit('hostile code ran')")
    (clone / "mlseal" / "__main__.py").write_text("open('hostile', 'w')")
    program = "import mlseal.evidence.signing as s; print(s.signer_for('producer').identity().san)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=clone, env=asleep.env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == asleep.san("producer"), done.stderr
    assert not (clone / "hostile").exists()
    found = subprocess.run(["pgrep", "-f", f"serve --state {asleep.state}"], capture_output=True, text=True, check=True)
    for pid in found.stdout.split():
        import os

        os.kill(int(pid), 15)
