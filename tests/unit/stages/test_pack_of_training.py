"""The packs and the stages of training, for real: which model each pack takes for trained as it asks."""

import os
from datetime import UTC, datetime

import pytest

from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.policy import gate
from mlseal.policy.load import parse
from mlseal.policy.packs import filling
from mlseal.policy.preflight import Preflight
from mlseal.stages import runner
from tests.conftest import NAME
from tests.unit.stages.test_dp import table
from tests.unit.stages.test_federated import owner_allows
from tests.unit.stages.test_source import sign

TRAINING = {"slsa-provenance", "dp-training", "federated-training", "training-data", "builder", "purpose"}
TRAINING |= {"epsilon", "delta", "person", "apart", "model-file", "listed", "signed"}
"""The rules on how a model was trained and on what; what was measured besides is left out."""
PROGRAM = """
import argparse, pathlib
parser = argparse.ArgumentParser()
for flag in ("--data", "--out", "--param"):
    parser.add_argument(flag)
pathlib.Path(parser.parse_args().out).write_text("[0.5]")
"""
COLUMNS = {"outcome": "need", "features": "signal,age", "ranges": '{"age": "0:90"}'}
PRIVATE = COLUMNS | {"unit_column": "person", "rows_per_unit": 3, "epochs": 1, "batch": 60}


@pytest.fixture
def run(authority):
    """Runs a stage for training, as a role."""

    def go(stage, role="producer", **arguments):
        told = {key: str(value) for key, value in arguments.items()}
        signing = {"signer": authority.signer(role), "store": authority.store, "quiet": True}
        runner.run(stage, told, **signing, purpose="training", preflight=Preflight(()))

    return go


@pytest.fixture
def published(authority, run):
    """Signs a table by its publisher, who allows training with it, and has the producer compare it."""

    def go(file, **people):
        table(seed=int.from_bytes(os.urandom(4)), **people).to_csv(file, index=False)  # a module's tests share a log
        sign(authority, file, "owner")
        owner_allows(authority, file, "training")
        run("ingestion.source", dataset=file, issuer=authority.issuer, san=authority.san("owner"))
        return file

    return go


@pytest.fixture
def stopping(authority):
    """The rules on training that stop a model under a pack for models of some stage; `edit` is what its owner changed."""

    def of(model, trained_by, pack="general", edit=("", "")):
        own = filling.People.of_authority(NAME)
        text, _ = filling.substituted(pack, own, {}, now=datetime.now(UTC), trained_by=trained_by)
        archive = Archive.open(authority.trust, authority.store)
        verdict = gate.judge(measure(model), None, [parse(text.replace(*edit).encode())], archive)
        return {reason.rule for reason in verdict.reasons if reason.outcome != "note"} & TRAINING

    return of


def test_each_pack_takes_models_of_its_own_stage_and_no_other(authority, run, published, stopping, program, tmp_path):
    data = published(tmp_path / "people.csv")
    private, plain = tmp_path / "private", tmp_path / "plain"
    run("training.dp", dataset=data, out=private, epsilon=3, **PRIVATE)
    run("training.run", data=data, out=plain, script=program(PROGRAM))
    assert stopping(private, "training.dp") == {"model-file"}
    assert stopping(private, "training.run") == {"slsa-provenance", "training-data", "model-file"}
    assert stopping(plain, "training.run") == {"model-file"}
    assert stopping(plain, "training.dp") == {"dp-training", "training-data", "model-file"}
    # What an evaluator measured counts: it is known who trained, by whichever statement.
    signer = {"producer_issuer": authority.issuer, "producer_san": authority.san("producer")}
    report = tmp_path / "report.sarif"
    run("testing.model_file", "evaluator", model=private, report=report, provenance="dp-training", **signer)
    for pack in filling.names():  # the owner was asked, whom three of them ask for
        assert stopping(private, "training.dp", pack) == set()


def test_more_lost_than_allowed_or_another_unit_or_data_of_nobody_is_stopped(run, published, stopping, tmp_path):
    data = published(tmp_path / "people.csv")
    data.write_text(data.read_text() + "240,1,0.5,40\n")  # what was compared is another table
    run("training.dp", dataset=data, out=tmp_path / "model", epsilon=4, delta="0.001", unit="visit", **PRIVATE)
    stopped = stopping(tmp_path / "model", "training.dp", "hr")
    assert stopped == {"epsilon", "delta", "person", "purpose", "training-data", "model-file"}
    loose = ('decLE(p.epsilon, "3")', 'decLE(p.epsilon, "4")')
    assert stopping(tmp_path / "model", "training.dp", "hr", loose) == stopped - {"epsilon"}


def test_every_client_of_a_federation_is_followed(authority, run, published, stopping, tmp_path):
    (tmp_path / "sites").mkdir()
    published(tmp_path / "sites" / "north.csv")
    table(seed=1).to_csv(tmp_path / "sites" / "south.csv", index=False)
    told = COLUMNS | {"dataset": tmp_path / "sites", "topology": "simulation", "rounds_wanted": 1}
    run("training.federated", out=tmp_path / "alone", **told)
    together = ('p.topology == "processes"', 'p.topology == "simulation"')
    assert "apart" in stopping(tmp_path / "alone", "training.federated"), "one process is no federation"
    assert "training-data" in stopping(tmp_path / "alone", "training.federated", edit=together), (
        "the south's is nobody's"
    )
    assert "purpose" in stopping(tmp_path / "alone", "training.federated", "clinical", together), "nobody was asked"
    published(tmp_path / "sites" / "south.csv")
    owner_allows(authority, tmp_path / "sites", "training")
    run("training.federated", out=tmp_path / "both", **told)
    assert stopping(tmp_path / "both", "training.federated", "clinical", together) == {"model-file"}
