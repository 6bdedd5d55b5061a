"""Marked rows go through every stage; no mark comes out, neither in a bundle nor in the certificate that the log keeps."""

import base64

import pandas as pd
import pytest

from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_provenance
from mlseal.stages import registry, runner
from tests.unit.stages.test_source import CLAIM

MARK = "canary"
SCRIPT = """
import argparse, pathlib
p = argparse.ArgumentParser(); p.add_argument("--data"); p.add_argument("--out"); p.add_argument("--param", action="append")
a = p.parse_args(); out = pathlib.Path(a.out); out.mkdir()
print("canary-printed", (pathlib.Path(a.data) / "people.csv").read_text()[:200])
(out / "model.bin").write_text("weights")
"""


@pytest.fixture
def people(tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    n = 400
    pd.DataFrame(
        {
            "name": [f"{MARK}-person-{i}" for i in range(n)],
            "need": [i % 2 for i in range(n)],
            "group": [i // 200 for i in range(n)],
            "chosen": [(i // 2) % 2 for i in range(n)],
            "house": [f"{MARK}-house-{i // 2}" for i in range(n)],
        }
    ).to_csv(folder / "people.csv", index=False)
    return folder


def everything(bundle) -> bytes:
    """All bytes that travel or stay: the file, the payload, the certificate and the log entry, decoded."""
    material = bundle.document["verificationMaterial"]
    entry = base64.b64decode(material["tlogEntries"][0]["canonicalizedBody"])
    return b"".join(
        (bundle.raw, bundle.statement.payload, base64.b64decode(material["certificate"]["rawBytes"]), entry)
    )


def test_every_built_in_stage_keeps_rows_to_itself(authority, people, tmp_path):
    authority.signer("producer").sign(
        statement.make(measure(people).subjects, data_provenance.URI, {**CLAIM, "remote": str(tmp_path)})
    )
    (tmp_path / "train.py").write_text(SCRIPT)
    calls = {
        "ingestion.source": {"dataset": people, "issuer": authority.issuer, "san": authority.san("producer")},
        "training.run": {"script": tmp_path / "train.py", "data": people, "out": tmp_path / "model"},
        "governance.fairness": {
            "model": tmp_path / "model",
            "dataset": people,
            "outcome": "need",
            "attribute": "group",
            "cluster": "house",
            "select": "column:chosen",
            "table": "people.csv",
            "minimum_positives": 50,
        },
    }
    assert set(calls) == set(registry.BUILTIN), "a new stage joins this test"
    for name, arguments in calls.items():
        made = runner.run(
            name,
            {key: str(value) for key, value in arguments.items()},
            signer=authority.signer("evaluator"),
            store=authority.store,
            quiet=True,
        )
        assert MARK.encode() not in everything(made), name
