"""The gate over real evidence: signed by the trust service, logged, verified from the store."""

from __future__ import annotations

import json
import secrets
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.evidence import publickey, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.clock import rfc3339, utcnow
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import SHORT
from mlseal.evidence.revoking import revoke, snapshot
from mlseal.evidence.signing import Signer, keyuri
from mlseal.policy import samples
from mlseal.policy.gate import judge
from mlseal.policy.load import parse
from mlseal.policy.model import Policy
from mlseal.policy.verdict import to_statement

REQUIRE = """
  - {predicate: slsa-provenance, by: [PRODUCER]}
  - predicate: fairness
    by: [EVALUATOR]
    strength: measured
    maxAge: 30d
    when: [{id: gap, message: gap, check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'}]
  - {predicate: human-approval, by: [REVIEWER], reviewed: [fairness]}
"""


class Bench:
    """A model and everything that can be signed about it by a real authority."""

    def __init__(self, authority: Any, path: Path) -> None:
        self.authority, self.path = authority, path
        path.mkdir()
        (path / "model.bin").write_bytes(secrets.token_bytes(64))
        (path / "schema.json").write_text("{}")
        self.archive = Archive.open(authority.trust, authority.store)
        snapshot(self.archive, authority.signer("monitor"), valid_for=timedelta(hours=24))
        self.archive.refresh()

    @property
    def measured(self) -> Measured:
        return measure(self.path)

    def policy(self, require: str = REQUIRE) -> Policy:
        who = {
            role.upper(): f"{{issuer: '{self.authority.issuer}', san: '{self.authority.san(role)}'}}"
            for role in ("producer", "evaluator", "reviewer", "monitor", "gate", "owner")
        }
        text = f"policy: real/1\napplies: [{{tool: t, action: a}}]\nassurance: {{identity: local, log: pinned, time: local}}\nrevokers: [MONITOR]\ngate: [GATE]\nwaivers: {{by: [OWNER]}}\nrequire:\n{require}"
        for role, entry in who.items():
            text = text.replace(role, entry)
        return parse(text.encode())

    def sign(self, kind: str, role: str, body: dict[str, Any], measured: Measured | None = None) -> str:
        made = samples.make(
            kind,
            {**({"runId": secrets.token_hex(4)} if kind == "fairness" else {}), **body},
            Identity("i", "s"),
            utcnow(),
            now=utcnow() + timedelta(days=9),
        )
        claim = made.predicate.model_dump(by_alias=True, exclude_none=True, mode="json")
        if "nonce" in claim:
            claim["nonce"] = secrets.token_hex(16)
        about = (measured or self.measured).subjects
        return self.authority.signer(role).sign(statement.make(about, SHORT[kind], claim)).evidence_id

    def train_by(self, private: Any, *, said: timedelta = timedelta()) -> str:
        """Provenance that a bare key signed, by its own words this long ago."""
        made = samples.make("slsa-provenance", {}, Identity("i", "s"), utcnow(), now=utcnow() + timedelta(days=9))
        claim = made.predicate.model_dump(by_alias=True, exclude_none=True, mode="json")
        signer = Signer(
            self.authority.trust, key=private, store=self.authority.store, clock=lambda: utcnow() - said, verify=False
        )
        return signer.sign(statement.make(self.measured.subjects, SHORT["slsa-provenance"], claim)).evidence_id

    def fairness(self, high: float, role: str = "evaluator") -> str:
        metric = {"name": "equalizedOddsDifference", "value": high / 2, "ciLow": 0.0, "ciHigh": high}
        return self.sign("fairness", role, {"strength": "measured", "metrics": [metric]})

    def provenance(self, role: str = "producer") -> str:
        return self.sign("slsa-provenance", role, {"runDetails": {"metadata": {"invocationId": secrets.token_hex(4)}}})

    def good(self) -> str:
        self.provenance()
        evidence_id = self.fairness(0.1)
        self.sign("human-approval", "reviewer", {"reviewed": [evidence_id]})
        return evidence_id

    def judge(self, policy: Policy | None = None, *, now: datetime | None = None) -> Any:
        clock = (lambda: now) if now else utcnow
        return judge(self.measured, None, [policy or self.policy()], self.archive, clock=clock)


@pytest.fixture
def bench(authority, tmp_path: Path) -> Bench:
    return Bench(authority, tmp_path / "model")


def test_real_evidence_is_allowed_and_the_verdict_verifies(bench) -> None:
    evidence_id = bench.good()
    verdict = bench.judge()
    assert verdict.kind == "allowed", verdict.summary()
    assert evidence_id in {i.evidence_id for i in verdict.inputs}
    assert {i.predicate_type for i in verdict.inputs} >= {
        SHORT[s] for s in ("slsa-provenance", "fairness", "human-approval", "revocation-snapshot")
    }
    assert verdict.tree_size == bench.archive.tree_size
    assert verdict.assurance == {"identity": "local", "log": "pinned", "time": "local"}
    bundle = bench.authority.signer("gate").sign(to_statement(verdict, nonce="run-1"))
    gate = Identity(bench.authority.issuer, bench.authority.san("gate"))
    said = bench.archive.verifier.verify(
        bundle,
        predicate_type="slsa-vsa",
        identities=[gate],
        subjects=[bench.measured.sha256],
        revocations=bench.archive.revocations([]),
    )
    assert said.predicate.verification_result == "PASSED"
    assert bench.judge().kind == "allowed", "the gate's own verdict in the log disturbs nothing"


def test_a_withheld_failure_is_noticed(bench, authority) -> None:
    bench.provenance()
    red = bench.fairness(0.4)
    assert bench.judge().kind == "refused"
    file = authority.store.path(red)
    hidden = file.read_bytes()
    file.unlink()
    fresh = Archive.open(authority.trust, authority.store)
    for archive in (bench.archive, fresh):
        bench.archive = archive
        bench.fairness(0.1)
        verdict = bench.judge()
        assert verdict.kind != "allowed"
        assert any(red[:16] in str(reason) for reason in verdict.reasons), verdict.summary()
    file.write_bytes(hidden)
    assert bench.judge().kind == "refused"


@pytest.mark.parametrize("how", ["cut", "other bundle", "edited", "empty"])
def test_a_spoilt_bundle_does_not_hide_a_failure(bench, authority, how) -> None:
    bench.good()
    red = bench.fairness(0.4)
    file = authority.store.path(red)
    raw = file.read_bytes()
    document = json.loads(raw)
    document["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1"
    spoilt = {
        "cut": raw[:-40],
        "other bundle": authority.store.path(bench.fairness(0.1)).read_bytes(),
        "edited": json.dumps(document).encode(),
        "empty": b"",
    }[how]
    file.write_bytes(spoilt)
    try:
        assert bench.judge().kind != "allowed"
        bench.archive = Archive.open(authority.trust, authority.store)
        assert bench.judge().kind != "allowed"
    finally:
        file.write_bytes(raw)


def test_a_renamed_file_is_another_model(bench) -> None:
    bench.good()
    assert bench.judge().kind == "allowed"
    before = bench.measured
    (bench.path / "model.bin").rename(bench.path / "model.bin2")
    assert bench.measured.subjects[0] == before.subjects[0], "the OMS root does not change"
    assert bench.judge().kind == "undecided"
    assert bench.judge(bench.policy(REQUIRE.replace("    strength: measured\n", ""))).kind == "undecided"


def test_withdrawing_an_approval_closes_the_gate(bench, authority) -> None:
    reviewed = bench.good()
    again = bench.sign("human-approval", "reviewer", {"reviewed": [reviewed]})
    assert bench.judge().kind == "allowed"
    for evidence_id in (
        again,
        *[i.evidence_id for i in bench.judge().inputs if i.predicate_type == SHORT["human-approval"]],
    ):
        revoke(bench.archive, authority.signer("producer"), evidence_id, reason="withdrawn")
    assert bench.judge().kind == "allowed", "a revocation by somebody who is not listed counts for nothing"
    for evidence_id in {i.evidence_id for i in bench.judge().inputs if i.predicate_type == SHORT["human-approval"]}:
        revoke(bench.archive, authority.signer("monitor"), evidence_id, reason="withdrawn")
    verdict = bench.judge()
    assert verdict.kind == "refused"
    assert "withdrawn" in verdict.summary()


def test_superseding_a_failure(bench, authority) -> None:
    bench.provenance()
    red = bench.fairness(0.4)
    green = bench.fairness(0.1)
    bench.sign("human-approval", "reviewer", {"reviewed": [green]})
    assert bench.judge().kind == "refused"
    time.sleep(1.1)  # certificate times are whole seconds; a successor must be later
    later = bench.fairness(0.1)
    bench.sign("human-approval", "reviewer", {"reviewed": [green, later]})
    revoke(bench.archive, authority.signer("monitor"), red, reason="superseded")
    assert bench.judge().kind == "allowed", bench.judge().summary()


def test_the_training_account_cannot_measure_itself(bench) -> None:
    bench.provenance("evaluator")
    bench.fairness(0.1)
    relaxed = REQUIRE.replace("by: [PRODUCER]", "by: [PRODUCER, EVALUATOR]")
    verdict = bench.judge(bench.policy(relaxed))
    assert verdict.kind == "undecided"
    assert "training account" in verdict.summary()


def test_the_gate_cannot_testify(bench) -> None:
    bench.provenance()
    bench.fairness(0.1, role="gate")
    verdict = bench.judge(bench.policy(REQUIRE.replace("by: [EVALUATOR]", "by: [EVALUATOR, GATE]")))
    assert verdict.kind == "refused"
    assert "not a producer" in verdict.summary()


def test_a_file_of_digests_is_not_the_directory_that_was_signed(bench, authority, tmp_path) -> None:
    from mlseal.evidence import oms

    policy = bench.policy("  - {predicate: oms-signature, by: [PRODUCER]}\n")
    authority.signer("producer").sign(oms.make(bench.measured))
    forged = tmp_path / "forged.bin"
    forged.write_bytes(b"".join(bytes.fromhex(entry.sha256) for entry in bench.measured.manifest.in_oms_order))
    verdict = judge(measure(forged), None, [policy], bench.archive)
    assert verdict.kind != "allowed"
    assert "covers a directory" in str(verdict.reasons)


def test_an_oms_signature_is_compared_file_by_file(bench, authority) -> None:
    from mlseal.evidence import oms

    policy = bench.policy("  - {predicate: oms-signature, by: [PRODUCER]}\n")
    assert bench.judge(policy).kind == "undecided"
    authority.signer("producer").sign(oms.make(bench.measured))
    assert bench.judge(policy).kind == "allowed", bench.judge(policy).summary()
    (bench.path / "model.bin").rename(bench.path / "model.bin2")
    verdict = bench.judge(policy)
    assert verdict.kind == "refused"
    assert "model.bin" in verdict.summary()


def test_inputs_are_followed_to_their_own_evidence(bench, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.csv").write_bytes(secrets.token_bytes(30))
    measured = measure(data)
    inputs = [{"name": s.name, "digest": {"sha256": s.sha256}} for s in measured.subjects]
    bench.sign("slsa-provenance", "producer", {"buildDefinition": {"resolvedDependencies": inputs}})
    chain = "  - {predicate: slsa-provenance, by: [PRODUCER]}\n  - {predicate: data-provenance, of: slsa-provenance, by: [PRODUCER]}\n"
    assert bench.judge(bench.policy(chain)).kind == "undecided"
    bench.sign("data-provenance", "producer", {"path": "data"}, measured)
    assert bench.judge(bench.policy(chain)).kind == "allowed", bench.judge(bench.policy(chain)).summary()


def test_a_log_that_cannot_be_read_is_undecided(bench, authority) -> None:
    bench.good()
    bench.archive = Archive.open(authority.trust, authority.store, tiles={})
    verdict = bench.judge()
    assert (verdict.kind, [r.rule for r in verdict.reasons]) == ("undecided", ["log"])


def test_stale_revocations_later(bench) -> None:
    bench.good()
    assert bench.judge(now=utcnow() + timedelta(hours=25)).kind == "undecided"


def test_fifty_bundles_in_a_second(bench) -> None:
    bench.good()
    for _ in range(47):
        bench.fairness(0.1)
    policy = bench.policy(REQUIRE.replace("reviewed: [fairness]", "maxAge: 9d"))
    bench.archive.refresh()
    measured = bench.measured
    started = time.process_time()
    verdict = judge(measured, None, [policy], bench.archive)
    spent = time.process_time() - started
    assert verdict.kind == "allowed"
    assert len(verdict.inputs) >= 50
    assert spent < 1.0, f"{spent:.2f} s of processor time"


def test_the_gate_and_strangers_beside_listed_evidence(bench) -> None:
    """Found in one search, told apart by what the log says of who signed."""
    bench.provenance()
    bench.fairness(0.9, role="monitor")
    verdict = bench.judge()
    assert verdict.kind == "refused"
    assert "is signed by nobody who may" in verdict.summary()
    assert bench.authority.san("monitor") in verdict.summary()
    bench.sign("human-approval", "reviewer", {"reviewed": [bench.fairness(0.1)]})
    assert bench.judge().kind == "allowed", bench.judge().summary()


def test_what_does_not_verify_is_reported(bench, authority) -> None:
    bench.good()
    file = authority.store.path(bench.fairness(0.4))
    raw = file.read_bytes()
    document = json.loads(raw)
    document["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1"
    try:
        bench.archive.refresh()  # indexed while it was whole
        file.write_bytes(json.dumps(document).encode())
        verdict = bench.judge()
        assert verdict.kind == "refused"
        assert "does not verify" in verdict.summary()
    finally:
        file.write_bytes(raw)


def test_a_strangers_revocation_is_no_input(bench, authority) -> None:
    evidence_id = bench.good()
    bench.archive.refresh()
    theirs = revoke(bench.archive, authority.signer("producer"), evidence_id, reason="withdrawn")
    verdict = bench.judge()
    assert verdict.kind == "allowed"
    assert theirs.evidence_id not in {i.evidence_id for i in verdict.inputs}


def test_a_withheld_leaf_alone_stops(bench, authority) -> None:
    """Of somebody whom no requirement asks for: what it says, nobody knows."""
    bench.good()
    file = authority.store.path(bench.fairness(0.1, role="monitor"))
    raw = file.read_bytes()
    file.unlink()
    try:
        verdict = bench.judge()
        assert [r.rule for r in verdict.reasons] == ["log"]
        assert "nobody shows: leaf " in verdict.reasons[0].message
    finally:
        file.write_bytes(raw)


def test_a_key_counts_for_its_time_and_is_a_stranger_outside(bench):
    """What a thief signs after the key's end stops nobody; what its owner signed before counts on."""
    private = keyuri._File(ec.generate_private_key(ec.SECP256R1()))
    mine = publickey.fingerprint(private.public)
    bench.train_by(private)
    now = utcnow()

    def judged(term: str = "") -> Any:
        by = f'{{key: "{mine}"{term}}}'
        return bench.judge(bench.policy(f"\n  - {{predicate: slsa-provenance, by: [{by}]}}\n"))

    assert judged().kind == "allowed"
    assert judged(f', until: "{rfc3339(now + timedelta(hours=1))}"').kind == "allowed"
    verdict = judged(f', until: "{rfc3339(now - timedelta(hours=1))}"')
    assert verdict.kind == "refused"
    (reason,) = [reason for reason in verdict.reasons if reason.outcome == "refused"]
    assert "signed by nobody who may" in reason.message
    assert mine in reason.got
    both = f'\n  - {{predicate: slsa-provenance, by: [{{key: "{mine}"}}]}}\n  - {{id: later, predicate: slsa-provenance, by: [{{key: "{mine}", from: "{rfc3339(now + timedelta(hours=1))}"}}]}}\n'
    assert bench.judge(bench.policy(both)).kind == "refused", "what one requirement verified another must not take"


def test_a_key_whose_stamp_lies_on_the_other_side_of_its_end_stops(bench):
    """As if a failed result, signed before the end, had been stamped anew after it: no stranger's, or it would be gone."""
    private = keyuri._File(ec.generate_private_key(ec.SECP256R1()))
    mine = publickey.fingerprint(private.public)
    bench.train_by(private, said=timedelta(minutes=4))
    between = rfc3339(utcnow() - timedelta(minutes=2))
    bench.train_by(private, said=timedelta(minutes=4))
    for term in (f'until: "{between}"', f'from: "{between}"'):
        verdict = bench.judge(bench.policy(f'\n  - {{predicate: slsa-provenance, by: [{{key: "{mine}", {term}}}]}}\n'))
        assert verdict.kind == "refused"
        assert {reason.message for reason in verdict.reasons if "does not count for both" in reason.message}, term
    both = f'\n  - {{predicate: slsa-provenance, by: [{{key: "{mine}"}}]}}\n  - {{id: later, predicate: slsa-provenance, by: [{{key: "{mine}", from: "{between}"}}]}}\n'
    assert bench.judge(bench.policy(both)).kind == "refused", "from the memory of a judgement as well"
