"""The main job runs as its README says, and everything that it signed passes verifiers that are not ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlseal.evidence.store import Store
from tests.stock import Accepted, sigstore_js_many, sigstore_python

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(work: Path, *arguments: str, env: dict[str, str]):
    command = [sys.executable, str(ROOT / "examples/demo/main.py"), "--work", str(work), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, env={**env, "COLUMNS": "160"}, cwd=ROOT
    )


def claims(work: Path, kind: str) -> list[dict]:
    store = Store(work / "project" / ".mlseal" / "evidence")
    said = [store.get(i).statement for i in store.ids()]
    return [dict(s.predicate) for s in said if kind in s.predicate_type]


def test_people_of_the_health_insurance_experiment(tmp_path, home):
    work = tmp_path / "demo"
    done = run(work, env=home.env)
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
    )[::-1]
    assert worse > 0.15 >= better
    assert not (work / "canary").exists()
    assert "people through attested:/" in done.stdout
    assert "bundles verified" in done.stdout
    assert not (work / "authority").exists()
    every_bundle_passes_stock_verifiers(work)


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


def test_the_same_job_on_another_data_set(tmp_path, home):
    work = tmp_path / "demo"
    done = run(work, "--data", "nhefs", env=home.env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    about = json.loads((work / "project" / "data" / "dataset.json").read_text())
    assert about["name"] == "nhefs"
    assert claims(work, "/fairness/")
    assert "bundles verified" in done.stdout
