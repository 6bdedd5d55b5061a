"""An owner's data policy stops a run before it starts, or its verdict stands in the evidence of the run."""

import json
import secrets
import time
from pathlib import Path

import pytest

from mlseal.errors import Misuse, RuleBroken, Unchecked, Withheld
from mlseal.evidence import statement
from mlseal.evidence.archive import revocation_subject
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates import data_policy, human_approval, revocation
from mlseal.policy.load import parse
from mlseal.policy.preflight import Preflight
from mlseal.stages import registry, runner
from mlseal.stages.base import Bounds, Context, DatasetPath, Finding, OutputDataset, stage

END = "2999-01-01T00:00:00Z"
PROGRAM = """
import argparse, pathlib
parser = argparse.ArgumentParser()
for flag in ("--data", "--out", "--param"):
    parser.add_argument(flag)
out = pathlib.Path(parser.parse_args().out)
out.mkdir()
(out / "weights").write_text("w")
"""


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "a").write_text(str(tmp_path))
    return directory


@pytest.fixture
def state(authority, data):
    """Signs the owner's policy about the data; fields may be changed."""

    def go(about=None, role="owner", **fields):
        claim = {"purposes": ["training"], "expires": END, "notProven": ["copies"], "nonce": secrets.token_hex(16)}
        return sign(authority, measure(about or data).subjects, role, data_policy.URI, claim | fields)

    return go


def sign(authority, subjects, role, uri, claim):
    return authority.signer(role).sign(statement.make(subjects, uri, claim))


def revoke(authority, bundle, reason, role="owner"):
    claim = {"evidenceId": bundle.evidence_id, "reason": reason, "nonce": secrets.token_hex(16)}
    return sign(authority, [revocation_subject(bundle.evidence_id)], role, revocation.URI, claim)


@pytest.fixture
def train(authority, data, tmp_path):
    """Runs training on the data; a refused run must leave neither output nor statement."""

    def go(purpose="training", policies=(), **more):
        (tmp_path / "train.py").write_text(PROGRAM)
        out = tmp_path / f"model-{secrets.token_hex(4)}"
        before = set(authority.store.ids())
        given = {"script": str(tmp_path / "train.py"), "data": str(data), "out": str(out)}
        told = {"purpose": purpose, "preflight": Preflight(policies), "quiet": True} | more
        try:
            return runner.run("training.run", given, signer=authority.signer(), store=authority.store, **told)
        except Exception:
            assert not out.exists() and set(authority.store.ids()) == before
            raise

    return go


def policy(authority, extra="", by="owner"):
    return parse(
        f'policy: p/1\ndataPolicy: {{by: [{{issuer: "{authority.issuer}", san: "{authority.san(by)}"}}]{extra}}}\n'.encode()
    )


def test_without_a_data_policy_nothing_changes(train):
    assert "preflight" not in train(None).statement.predicate


def test_an_allowed_run_names_the_verdict_and_the_policies_it_obeyed(authority, state, train, data):
    owner = state()
    said = train("Training").statement.predicate["preflight"]
    assert said["purpose"] == "training" and said["dataPolicies"] == [owner.evidence_id]
    verdict = authority.store.get(said["verdict"]).statement
    assert verdict.predicate["verifier"]["id"] == "https://mlseal.dev/preflight/v0.1"
    assert verdict.predicate["verificationResult"] == "PASSED"
    assert verdict.predicate["mlseal"]["action"]["stage"] == "training.run"
    assert measure(data).sha256 in {s.sha256 for s in verdict.subjects}
    listed = [entry["annotations"]["evidenceId"] for entry in verdict.predicate["inputAttestations"]]
    assert listed == [owner.evidence_id]


def test_a_wrong_purpose_and_none_stop_before_the_work(state, train):
    state()
    with pytest.raises(RuleBroken, match=r"does not allow this purpose; got research; expected training"):
        train("research")
    with pytest.raises(Unchecked, match="none is stated") as caught:
        train(None)
    assert caught.value.message.startswith("undecided by the data's own policy: data-policy:purpose: ")
    assert str(caught.value.remedy).endswith("mlseal run training.run --purpose training")
    with pytest.raises(Misuse, match="no purpose"):
        train("tr\N{CYRILLIC SMALL LETTER A}ining")


def test_the_policy_of_other_data_does_not_matter(state, train, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("other")
    state(tmp_path / "other", purposes=[])
    assert train("research")


def test_a_renamed_file_takes_its_policy_along(state, train, data):
    state(purposes=[])
    (data / "a").rename(data / "b")
    with pytest.raises(RuleBroken, match="no purpose at all"):
        train()


def test_a_weaker_second_policy_lifts_nothing(state, train):
    state(purposes=["hospital.example/study-17"])
    state(purposes=["training", "research"])
    with pytest.raises(RuleBroken, match="study-17"):
        train()


def test_an_ended_policy_allows_nothing(state, train):
    state(expires="2026-01-01T00:00:00Z")
    with pytest.raises(RuleBroken, match="has ended"):
        train()


def test_withdrawn_allows_nothing_and_superseded_needs_a_successor(authority, state, train):
    first = state(purposes=[])
    revoke(authority, first, "superseded", "evaluator")  # anybody can sign one
    with pytest.raises(RuleBroken, match="no purpose at all"):
        train()
    revoke(authority, first, "superseded")
    with pytest.raises(RuleBroken, match="was superseded"):
        train()
    time.sleep(1.1)  # time stamps count seconds, and a successor is later
    second = state()
    assert train().statement.predicate["preflight"]["dataPolicies"] == [second.evidence_id]
    revoke(authority, second, "withdrawn")
    with pytest.raises(RuleBroken, match="was withdrawn"):
        train()


def test_privacy_refuses_training_without_it_and_not_what_releases_digests(authority, state, train, data):
    state(purposes=["training", "audit"], minimumPrivacy={"maxEpsilon": "8", "maxDelta": "0.00001", "unit": "person"})
    with pytest.raises(RuleBroken, match=r"keeps none; got no bound; expected epsilon at most 8"):
        train()
    given = {"dataset": str(data), "method": "none", "source_name": "x"}
    told = {"signer": authority.signer(), "store": authority.store, "quiet": True, "preflight": Preflight(())}
    assert runner.run("ingestion.source", given, purpose="audit", **told).statement.predicate["preflight"]


@stage("testing.probe", predicate="source-verification", releases=Bounds("epsilon", "delta", "unit"))
def private(
    data: DatasetPath,
    out: OutputDataset,
    epsilon: float = 8.0,
    delta: float = 0.00001,
    unit: str = "person",
    *,
    context: Context,
) -> Finding:
    """A stage that keeps privacy, as its signature says."""
    del epsilon, delta, unit
    Path(out).write_text("noise")
    fields = {
        "method": "none",
        "unsigned": {"name": "x", "sha256": context.measured["data"].sha256},
        "assurance": {},
        "files": 1,
        "size": 1,
    }
    return Finding(("data",), fields, ("all",))


@pytest.fixture
def probe(authority, data, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.BUILTIN, "testing.probe", f"{__name__}:private")

    def go(**given):
        told = {"data": str(data), "out": str(tmp_path / secrets.token_hex(4))} | given
        return runner.run(
            "testing.probe",
            told,
            signer=authority.signer(),
            store=authority.store,
            quiet=True,
            purpose="training",
            preflight=Preflight(()),
        )

    return go


def test_bounds_are_compared_as_decimals(state, probe):
    state(minimumPrivacy={"maxEpsilon": "8", "maxDelta": "0.00001", "unit": "Person"})
    assert probe()
    for worse in ({"epsilon": "8.0000001"}, {"epsilon": "10"}, {"delta": "0.0001"}, {"unit": "row"}):
        with pytest.raises(RuleBroken, match="more privacy"):
            probe(**worse)


def test_no_export_is_about_what_the_stage_puts_out(state, probe, train):
    state(noExport=["dataset"])
    assert train()
    with pytest.raises(RuleBroken, match="lets no dataset be made"):
        probe()


def test_only_listed_identities_run(authority, state, train):
    state(runBy=[{"issuer": authority.issuer, "san": authority.san("evaluator")}])
    with pytest.raises(RuleBroken, match="does not allow this identity"):
        train()


def test_approvals_are_by_people_who_read_the_policy_and_do_not_run(authority, state, train, data):
    by = [
        {"issuer": authority.issuer, "role": "reviewer"},
        {"issuer": authority.issuer, "san": authority.san("producer")},
    ]
    owner = state(approvals={"distinct": 1, "by": by})

    def approve(role, decision="approve", reviewed=(owner.evidence_id,), expires=END):
        claim = {"decision": decision, "reviewed": list(reviewed), "expires": expires}
        claim |= {"notProven": ["x"], "nonce": secrets.token_hex(16)}
        return sign(authority, measure(data).subjects, role, human_approval.URI, claim)

    approve("producer")  # runs it
    approve("reviewer/ana", reviewed=())  # has not read it
    approve("reviewer/ben", expires="2026-01-01T00:00:00Z")
    approve("evaluator")  # nobody listed
    with pytest.raises(Unchecked, match="wants approvals of 1 people"):
        train()
    approve("reviewer/ana")
    assert train()
    approve("reviewer/ben", "reject")
    with pytest.raises(RuleBroken, match="has a rejection"):
        train()


def test_owners_that_a_policy_lists_count_and_no_others(authority, state, train):
    state(role="evaluator", purposes=[])
    with pytest.raises(RuleBroken):
        train()  # nobody is listed: whoever signs can only forbid
    said = train(policies=[policy(authority)]).statement.predicate["preflight"]
    assert said["dataPolicies"] == []
    with pytest.raises(Unchecked, match="no owner says what may be done"):
        train(policies=[policy(authority, ", required: true")])


def test_a_withheld_policy_stops_the_run(authority, state, train):
    hidden = authority.store.path(state(purposes=[]).evidence_id)
    raw = hidden.read_bytes()
    hidden.unlink()
    try:
        for policies in ((), [policy(authority)]):
            with pytest.raises(Withheld, match="nobody shows"):
                train(policies=policies)
    finally:
        hidden.write_bytes(raw)
    with pytest.raises(RuleBroken):
        train()


def test_one_owner_does_not_account_for_what_another_withholds(authority, state, train):
    hers = state(purposes=[], role="reviewer")
    revoke(authority, hers, "withdrawn", role="owner")
    hidden = authority.store.path(hers.evidence_id)
    raw = hidden.read_bytes()
    hidden.unlink()
    both = [policy(authority), policy(authority, by="reviewer")]
    try:
        with pytest.raises(Withheld, match="nobody shows"):
            train(policies=both)
    finally:
        hidden.write_bytes(raw)
    with pytest.raises(RuleBroken):
        train(policies=both)


def test_a_spoilt_policy_stops_the_run(authority, state, train):
    path = authority.store.path(state().evidence_id)
    assert train()
    raw = path.read_bytes()
    try:
        path.write_bytes(raw.replace(b'"logIndex":"', b'"logIndex":"1', 1))
        with pytest.raises(Exception, match=r".") as caught:
            train()
        assert caught.value.exit_code in {10, 11}
    finally:
        path.write_bytes(raw)


def test_a_runner_without_a_judge_does_not_run_such_data(authority, state, train):
    state()
    from mlseal.evidence import planning

    with pytest.raises(Unchecked, match="nobody judges"):
        train(preflight=planning.unjudged)


def test_nothing_serves_again_where_a_data_policy_governs(authority, state, train):
    first = train(None, reuse=True)
    assert train(None, reuse=True).evidence_id == first.evidence_id
    owner = state()
    again = train(reuse=True)
    assert again.evidence_id != first.evidence_id and train(reuse=True).evidence_id != again.evidence_id
    revoke(authority, owner, "withdrawn")
    with pytest.raises(RuleBroken):
        train(reuse=True)


def test_a_gate_can_demand_a_preflight():
    from mlseal.policy.cel import compile_condition

    for uri in ("https://slsa.dev/provenance/v1", "https://mlseal.dev/fairness/v0.1"):
        compile_condition('has(p.preflight) && p.preflight.purpose == "training"', uri)
        compile_condition("has(p.preflight) && nonEmpty(p.preflight.dataPolicies)", uri)


def test_the_command_line_states_the_purpose(authority, state, data, tmp_path):
    (tmp_path / "claim.json").write_text(
        json.dumps({"purposes": ["audit"], "expires": END, "notProven": ["x"], "nonce": secrets.token_hex(16)})
    )
    kept = ["--store", str(authority.store.root)]
    made = authority.call(
        "sign",
        str(data),
        "--type",
        "data-policy",
        "--predicate",
        str(tmp_path / "claim.json"),
        "--role",
        "owner",
        *kept,
    )
    assert made.returncode == 0, made.stderr
    told = ["run", "ingestion.source", "--dataset", str(data), "--method", "none", "--source-name", "x", *kept]
    stopped = authority.call(*told, "--purpose", "care")
    assert stopped.returncode == 10 and "does not allow this purpose" in stopped.stderr
    assert authority.call(*told, "--purpose", "audit").returncode == 0
