"""Pages and schemas of predicate types are made from the models, and nothing lies there beside them."""

import json
import subprocess
import sys
from pathlib import Path

from mlseal.evidence import predicates

ROOT = Path(__file__).resolve().parents[2]


def test_pages_and_schemas_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "docs/make_predicates.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_type_has_a_page_and_a_schema_and_nothing_else_does():
    names = set(predicates.SHORT)
    assert {p.stem for p in (ROOT / "docs" / "predicates").glob("*.md")} == names | {"README"}
    assert {
        p.name.removesuffix(".schema.json") for p in (ROOT / "mlseal/evidence/predicates/schemas").glob("*.json")
    } == names


def test_released_uris_stay():
    assert set(predicates.MODELS) == {
        "https://cyclonedx.org/bom",
        "https://in-toto.io/attestation/test-result/v0.1",
        "https://in-toto.io/attestation/vulns/v0.2",
        "https://mlseal.dev/budget-reservation/v0.1",
        "https://mlseal.dev/data-anomaly-scan/v0.1",
        "https://mlseal.dev/data-policy/v0.1",
        "https://mlseal.dev/data-provenance/v0.1",
        "https://mlseal.dev/dp-training/v0.1",
        "https://mlseal.dev/drift/v0.1",
        "https://mlseal.dev/fairness/v0.1",
        "https://mlseal.dev/federated-training/v0.1",
        "https://mlseal.dev/guard-evaluation/v0.1",
        "https://mlseal.dev/he-computation/v0.1",
        "https://mlseal.dev/human-approval/v0.1",
        "https://mlseal.dev/ownership/v0.1",
        "https://mlseal.dev/partial-result/v0.1",
        "https://mlseal.dev/pii-scan/v0.1",
        "https://mlseal.dev/policy-release/v0.1",
        "https://mlseal.dev/revocation-snapshot/v0.1",
        "https://mlseal.dev/revocation/v0.1",
        "https://mlseal.dev/security-evaluation/v0.1",
        "https://mlseal.dev/source-verification/v0.1",
        "https://mlseal.dev/waiver/v0.1",
        "https://model_signing/signature/v1.0",
        "https://slsa.dev/provenance/v1",
        "https://slsa.dev/verification_summary/v1",
    }


def test_schemas_are_json_and_name_their_type():
    for short, uri in predicates.SHORT.items():
        document = json.loads((ROOT / f"mlseal/evidence/predicates/schemas/{short}.schema.json").read_text())
        assert document["title"] == uri
        assert document["properties"]
