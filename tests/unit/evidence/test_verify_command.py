"""`mlseal verify` and what was taken back: refused where it can be known, and said where it cannot."""

import json
import time

import pytest

from mlseal.evidence import statement
from mlseal.evidence.digest import measure

RESULT = "https://in-toto.io/attestation/test-result/v0.1"
POLICY = """\
policy: results/1
applies:
  - {{tool: any, action: verify}}
{revokers}require:
  - predicate: test-result
    by: [{{issuer: "{issuer}", san: "{producer}"}}]
"""


@pytest.fixture
def signed(authority, tmp_path, monkeypatch):
    """A file, its evidence and a function that verifies them with the authority's own store."""
    data = tmp_path / "data.csv"
    data.write_text(str(time.time_ns()))
    said = statement.make(measure(data).subjects, RESULT, {"result": "PASSED", "configuration": [], "url": data.name})
    bundle = authority.signer("producer").sign(said)
    bundle.write(tmp_path / "evidence.json")

    def verify(*options):
        expected = ("--identity", authority.san("producer"), "--issuer", authority.issuer)
        if "--policy" in options:
            expected = ()
        if "--store" not in options:
            options = (*options, "--store", str(authority.store.root))
        # A state of its own: a verifier that saw the log before cannot do without it, see test_mutations.
        with monkeypatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
            return authority.call(
                "verify", str(tmp_path / "evidence.json"), "--subject", str(data), *expected, *options
            )

    verify.evidence_id = bundle.evidence_id
    return verify


def take_back(authority, evidence_id, role):
    done = authority.call("revoke", evidence_id, "--role", role, "--store", str(authority.store.root))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ["monitor", "monitor/anna", "producer"])
def test_evidence_taken_back_by_monitor_or_signer_is_refused(authority, signed, role):
    assert json.loads(signed("--json").stdout)["revocationsChecked"] is True
    take_back(authority, signed.evidence_id, role)
    done = signed()
    assert done.returncode == 10, done.stdout
    assert "was withdrawn" in done.stderr


def test_what_somebody_else_takes_back_still_verifies(authority, signed):
    take_back(authority, signed.evidence_id, "evaluator")
    assert signed().returncode == 0


def test_revocation_that_nobody_shows_is_said(authority, signed, tmp_path):
    done = signed("--store", str(tmp_path / "empty"))
    assert done.returncode == 0, done.stderr
    assert "revocations not checked: nobody shows entry" in done.stdout
    assert json.loads(signed("--json", "--store", str(tmp_path / "empty")).stdout)["revocationsChecked"] is False


def policy(authority, tmp_path, revokers):
    listed = f'revokers: [{{issuer: "{authority.issuer}", san: "{authority.san(revokers)}"}}]\n' if revokers else ""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.format(issuer=authority.issuer, producer=authority.san("producer"), revokers=listed))
    return "--policy", str(file)


def test_the_policys_revokers_are_the_ones_heard(authority, signed, tmp_path):
    take_back(authority, signed.evidence_id, "evaluator")
    assert signed(*policy(authority, tmp_path, "evaluator")).returncode == 10
    done = signed(*policy(authority, tmp_path, "monitor"))
    assert done.returncode == 0, done.stderr


def test_a_policy_with_revokers_is_not_content_without_the_log(authority, signed, tmp_path):
    root = str(authority.trusted_root)  # names no service, so the log cannot be read
    done = signed("--trust", root)
    assert done.returncode == 0, done.stderr
    assert "revocations not checked: log" in done.stdout
    done = signed("--trust", root, *policy(authority, tmp_path, "monitor"))
    assert done.returncode == 11, done.stdout
