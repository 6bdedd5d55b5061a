"""Names of files are hidden where they are committed, also in verdicts, in what serves again and from guesses.

That no stage lets a row or a name out is asked of each in `test_every_stage`.
"""

import base64

import pandas as pd
import pytest

from mlseal.evidence import salts, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_provenance
from mlseal.policy import gate
from mlseal.policy import verdict as verdicts
from mlseal.policy.load import parse
from mlseal.stages import runner
from tests.unit.stages.test_source import CLAIM

MARK = "canary"
POLICY = b"""policy: canary/1
applies: [{tool: "*", action: "*"}]
require:
  - {predicate: human-approval, by: [{issuer: "https://nobody.example", san: "https://nobody.example/roles/reviewer"}]}
"""
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


def calls_of(authority, people, table, script, model):
    """One call of a stage of each of three kinds on this data, this script and this model."""
    calls = {
        "ingestion.source": {"dataset": people, "issuer": authority.issuer, "san": authority.san("producer")},
        "training.run": {"script": script, "data": people, "out": model},
        "governance.fairness": {
            "model": model,
            "dataset": people,
            "outcome": "need",
            "attribute": "group",
            "cluster": "house",
            "select": "column:chosen",
            "table": table,
            "minimum_positives": 50,
        },
        "training.dp": {
            "dataset": people,
            "table": table,
            "out": model.with_name(f"{model.name}-private"),
            "outcome": "need",
            "features": "group",
            "unit_column": "house",
            "rows_per_unit": 2,
            "truncate": "true",
            "epsilon": 8,
            "delta": 0.001,
            "epochs": 1,
        },
        "training.encrypted_scoring": {
            "model": model.with_name(f"{model.name}-private"),
            "dataset": people,
            "table": table,
            "out": model.with_name(f"{model.name}-scores.csv"),
        },
    }
    return {name: {key: str(value) for key, value in arguments.items()} for name, arguments in calls.items()}


@pytest.mark.parametrize("mode", ["committed", "plain"])
def test_names_of_files_are_hidden_where_they_are_committed(authority, people, tmp_path, monkeypatch, mode):
    """Names of data, table, script and model are marked. Plain names must show the mark, or this test sees nothing."""
    monkeypatch.setenv("MLSEAL_NAMES", mode)
    mark = f"smith-{mode}"
    data, script, model = (tmp_path / f"{mark}-{what}" for what in ("data", "train.py", "model"))
    people.rename(data)
    (data / "people.csv").rename(data / f"{mark}-0231.csv")
    with (data / f"{mark}-0231.csv").open("a") as file:
        file.write(f"{mode},1,1,1,x\n")  # each mode has data of its own
    script.write_text(SCRIPT.replace('"people.csv"', f'"{mark}-0231.csv"'))
    producer, evaluator = authority.signer("producer"), authority.signer("evaluator")
    made = {
        "provenance": producer.sign(statement.make(measure(data).subjects, data_provenance.URI, dict(CLAIM))),
        "one file": producer.sign(statement.make(measure(script).subjects, data_provenance.URI, dict(CLAIM))),
    }
    for name, arguments in calls_of(authority, data, f"{mark}-0231.csv", script, model).items():
        made[name] = runner.run(name, arguments, signer=evaluator, store=authority.store, quiet=True)
    verdict = gate.judge(measure(model), None, [parse(POLICY)], Archive.open(authority.trust, authority.store))
    assert verdict.kind != "allowed" and mark in verdict.summary() + repr(verdict.reasons), (
        "the person is told the path"
    )
    made["verdict"] = authority.signer("gate").sign(verdicts.to_statement(verdict, nonce=mark[-6:]))
    shown = {name for name, bundle in made.items() if mark.encode() in everything(bundle)}
    assert shown == (set() if mode == "committed" else set(made))
    kept = [b for b in authority.store.ids() if mark.encode() in everything(authority.store.get(b))]
    assert bool(kept) == (mode == "plain")
    logged = [file for file in authority.state.rglob("*") if file.is_file() and mark.encode() in file.read_bytes()]
    assert not logged, "log, CA and journal never see a name, in either mode"


def test_evidence_with_plain_names_does_not_serve_again_where_they_are_committed(
    authority, people, tmp_path, monkeypatch
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m").write_text("weights")
    every = calls_of(authority, people, "people.csv", tmp_path / "train.py", tmp_path / "model")
    arguments = {**every["governance.fairness"], "dataset": str(people / "people.csv"), "table": ""}

    def evidence():
        signer = authority.signer("evaluator")
        return runner.run(
            "governance.fairness", arguments, signer=signer, store=authority.store, quiet=True, reuse=True
        ).evidence_id

    plain = evidence()
    assert evidence() == plain
    monkeypatch.setenv("MLSEAL_NAMES", "committed")
    hidden = evidence()
    assert hidden != plain and evidence() == hidden


def test_the_configuration_digest_cannot_be_used_to_guess_a_table(authority, people, tmp_path, monkeypatch, perform):
    """The digest of the parameters is signed; where one of them names a file, a guess of it must lead nowhere."""

    def digest(arguments):
        said = perform("governance.fairness", **arguments)
        return said.predicate["harness"]["configDigest"]

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "m").write_text("weights")
    every = calls_of(authority, people, "people.csv", tmp_path / "train.py", tmp_path / "model")
    plain = digest(every["governance.fairness"])
    monkeypatch.setenv("MLSEAL_NAMES", "committed")
    hidden = digest(every["governance.fairness"])
    assert hidden != plain and hidden == digest(every["governance.fairness"])
    assert salts.of_project().forget() == 1
    assert digest(every["governance.fairness"]) != hidden
