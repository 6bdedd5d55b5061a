"""The main job runs as its README says, and everything that it signed passes verifiers that are not ours."""

import re
from pathlib import Path

import pytest

from mlseal.evidence.store import Store
from tests.examples.job import claims, run, statements
from tests.stock import Accepted, sigstore_js_many, sigstore_python

pytestmark = pytest.mark.slow


def test_people_of_the_health_insurance_experiment(tmp_path, home):
    """With ``--full``, which is the job that ``make demo`` runs and four steps between its promotion and its audit."""
    work = tmp_path / "demo"
    done = run(work, "--full", env=home.env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    verdicts = sorted(
        (v["mlseal"]["action"].get("tool"), v["verificationResult"]) for v in claims(work, "verification_summary")
    )
    assert verdicts.count(("kfp", "FAILED")) == 1, "model A's release"
    assert verdicts.count(("kfp", "PASSED")) == 1, "model B's release"
    assert ("mlflow", "PASSED") in verdicts
    worse, better = sorted(
        next(m for m in f["metrics"] if m["name"] == "equalizedOddsDifference")["ciHigh"]
        for f in claims(work, "/fairness/")
        if "modelProvenance" in f  # not the private model's: loading that runs no code
    )[::-1]
    assert worse > 0.15 >= better
    assert not (work / "canary").exists()
    assert "people through attested:/" in done.stdout
    assert re.search(r"equalized odds against need 0\.\d{3} ± 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", _joined(done.stdout))
    looks_better_and_reaches_fewer(done.stdout)
    assert "bundles verified in an empty network namespace" in _joined(done.stdout)
    assert not (work / "authority").exists()
    for stage in ("ingestion.source", "training.run", "governance.fairness", "decide", "enforce"):
        assert re.search(rf"{re.escape(stage)} \d+\.\d", done.stdout), "its seconds are told"
    every_bundle_passes_stock_verifiers(work)
    private_and_promoted_model_stand_side_by_side(work, _joined(done.stdout))
    what_full_adds_is_told_and_judged(_joined(done.stdout))


def private_and_promoted_model_stand_side_by_side(work: Path, told: str) -> None:
    """The same attacks on both, each with its intervals; which is better at what is for the data to say."""
    figure = r"\d+\.\d+%? \[\d+\.\d+%?, \d+\.\d+%?\]"
    each = rf"{figure} of its people named at 1 % false alarms, AUC {figure}"
    assert re.search(rf"private: {each}; without privacy: {each}", told)
    (private,) = {about for about, _ in statements(work, "/dp-training/")}
    (promoted,) = {
        about
        for about, said in statements(work, "verification_summary")
        if (said["mlseal"]["action"].get("tool"), said["verificationResult"]) == ("mlflow", "PASSED")
    }
    attacked = {
        about
        for about, said in statements(work, "/security-evaluation/")
        if said["harness"]["name"] == "testing.membership"
    }
    assert attacked == {private, promoted} and len(attacked) == 2


def what_full_adds_is_told_and_judged(told: str) -> None:
    assert "epsilon 2.9" in told
    assert re.search(r"(let pass|refused) by the bounds of model B's gate", told)
    assert "within 5 % of a column's range" in told
    assert "personal data were found" in told
    assert re.search(r"made-up notes: .*PERSON \d+.*; redacted, nothing is found and the gate lets them pass", told)
    for stage in ("training.dp", "testing.membership", "testing.evasion", "ingestion.pii", "ingestion.redact"):
        assert re.search(rf"{re.escape(stage)} \d+\.\d", told), "its seconds are told"


def looks_better_and_reaches_fewer(told: str) -> None:
    """The two figures of each model's card, as the job prints them: the story in one comparison."""
    found = re.findall(
        r"AUC (0\.\d+) for (\w+); the quarter that it invites reaches (\d+\.\d)% of those", _joined(told)
    )
    assert [label for _, label, _ in found][:2] == ["use", "need"]
    (auc_a, _, reached_a), (auc_b, _, reached_b) = found[:2]
    assert float(auc_a) > float(auc_b)
    assert float(reached_a) < float(reached_b)


def _joined(told: str) -> str:
    return " ".join(told.split())


def every_bundle_passes_stock_verifiers(work: Path) -> None:
    store = Store(work / "project" / ".mlseal" / "evidence")
    root = work / "project" / ".mlseal" / "trusted_root.json"
    bundles = [store.get(i) for i in store.ids()]
    assert len(bundles) >= 15
    wanted = []
    for bundle in bundles:
        from cryptography import x509

        from mlseal.evidence.bundle import unbase64
        from mlseal.evidence.strict import certificate_identity

        der = unbase64(bundle.document["verificationMaterial"]["certificate"]["rawBytes"], "certificate")
        identity = certificate_identity(x509.load_der_x509_certificate(der))
        sigstore_python(bundle.raw, root, identity.san, identity.issuer)
        wanted.append((bundle.raw, identity.san, identity.issuer))
    assert all(isinstance(outcome, Accepted) for outcome in sigstore_js_many(wanted, root))
