"""The verdict as evidence: complete, pinned, three-valued, and about the bytes that were judged."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from mlseal.errors import Misuse
from mlseal.evidence import predicates
from mlseal.evidence.digest import Subject
from mlseal.evidence.predicates import slsa_vsa
from mlseal.policy import samples
from mlseal.policy.facts import Target
from mlseal.policy.gate import Action, decide
from mlseal.policy.load import parse
from mlseal.policy.verdict import Input, Reason, Undecided, resource_uri, to_statement

SUBJECT = (Subject("target", samples.digest("target")),)


def test_a_vsa_with_everything(world, rules, header) -> None:
    fact = world.fairness(0.3)
    policy = parse((header + rules["fairness"] + "    control: [EU-AI-Act:Art10]\n").encode())
    action = Action("t", "a", {"model": "risk-1"})
    verdict = decide(world.source, Target("target", SUBJECT[0].sha256), action, (policy,), now=world.now)
    made = to_statement(verdict, SUBJECT, nonce="run-17")
    assert made.predicate_type == slsa_vsa.URI
    predicates.check(made.predicate_type, made.predicate)
    said = json.loads(made.payload)["predicate"]
    assert said["verificationResult"] == "FAILED"
    assert said["verifiedLevels"] == []
    assert said["policy"] == {"uri": "test/1", "digest": {"sha256": policy.sha256}}
    assert said["inputAttestations"] == [
        {
            "digest": {"sha256": fact.bundle_sha256},
            "annotations": {"evidenceId": fact.evidence_id, "predicateType": fact.predicate_type},
        }
    ]
    assert said["resourceUri"] == "t:a?model=risk-1"
    assert said["timeVerified"] == "2026-11-23T12:00:00Z"
    own = said["mlseal"]
    assert (own["verdict"], own["treeSize"], own["mode"], own["nonce"]) == ("refused", 17, "enforce", "run-17")
    assert own["policies"] == [{"name": "test/1", "sha256": policy.sha256}]
    assert own["reasons"][0]["rule"] == "gap"
    assert own["reasons"][0]["control"] == ["EU-AI-Act:Art10"]
    assert own["action"] == {"tool": "t", "action": "a", "model": "risk-1"}


def test_a_vsa_lists_every_input_that_was_looked_at(world, rules, header) -> None:
    """Provenance, a superseded failure, its successor, an approval, who holds a role, and the revocations."""
    day = timedelta(days=1)
    built = world.add("slsa-provenance", "producer")
    failed = world.fairness(0.3, age=day)
    passed = world.fairness(0.1)
    owned = world.add("ownership", "owner", {"roles": {"trainer": [{"issuer": "https://oidc.example", "san": "eve"}]}})
    approved = world.add("human-approval", "alice", {"reviewed": [passed.evidence_id]})
    world.revoke(failed, "superseded")
    taken_back = Input("ab" * 32, "cd" * 32, "https://mlseal.dev/revocation/v0.1")
    source = world.source
    object.__setattr__(source, "revocation_inputs", lambda _: (taken_back,))
    approval = rules["approval"] + "    notBy: [trainer]\n    reviewed: [fairness]\n"
    policy = parse((header + rules["provenance"] + rules["fairness"] + approval).encode())
    verdict = decide(source, Target("target", SUBJECT[0].sha256), None, (policy,), now=world.now)
    assert verdict.kind == "allowed", verdict.summary()
    said = json.loads(to_statement(verdict, SUBJECT).payload)["predicate"]["inputAttestations"]
    facts = [built, failed, passed, owned, approved]
    expected = [
        {
            "digest": {"sha256": item.bundle_sha256},
            "annotations": {"evidenceId": item.evidence_id, "predicateType": item.predicate_type},
        }
        for item in [*facts, taken_back]
    ]
    by_id = lambda entry: entry["annotations"]["evidenceId"]
    assert sorted(said, key=by_id) == sorted(expected, key=by_id)


def test_that_it_was_only_observed_is_written_into_the_vsa(world, rules, header) -> None:
    watching = header.replace("require:", "observe: {until: 2026-12-01T00:00:00Z, owner: lead}\nrequire:")
    world.fairness(0.3)
    said = json.loads(to_statement(world.judge(rules["fairness"], header=watching), SUBJECT).payload)["predicate"]
    assert (said["mlseal"]["mode"], said["mlseal"]["verdict"]) == ("observe", "refused")
    assert said["verificationResult"] == "FAILED", "to a SLSA reader nothing passed"
    assert said["mlseal"]["assurance"] == {"identity": "local", "log": "unwitnessed", "time": "local"}


def test_passed_carries_the_assurance(world, rules) -> None:
    world.fairness(0.1)
    verdict = world.judge(rules["fairness"])
    said = json.loads(to_statement(verdict, SUBJECT).payload)["predicate"]
    assert said["verificationResult"] == "PASSED"
    assert said["verifiedLevels"] == ["MLSEAL_IDENTITY_LOCAL", "MLSEAL_LOG_UNWITNESSED", "MLSEAL_TIME_LOCAL"]


def test_several_policies_have_one_digest_and_their_own(world, rules, header) -> None:
    policies = [parse((header.replace("test/1", f"test/{i}") + rules["fairness"]).encode()) for i in (1, 2)]
    verdict = decide(world.source, Target("target", SUBJECT[0].sha256), None, policies, now=world.now)
    said = json.loads(to_statement(verdict, SUBJECT).payload)["predicate"]
    assert said["policy"]["uri"] == "test/1 + test/2"
    assert said["policy"]["digest"]["sha256"] not in {p.sha256 for p in policies}
    assert [p["sha256"] for p in said["mlseal"]["policies"]] == [p.sha256 for p in policies]


def test_a_verdict_cannot_be_signed_for_other_bytes(world, rules) -> None:
    from dataclasses import replace

    verdict = replace(world.judge(rules["fairness"]), subjects=SUBJECT)
    assert to_statement(verdict).subjects == SUBJECT
    with pytest.raises(Misuse, match="other bytes"):
        to_statement(verdict, [Subject("target", "0" * 64)])


def test_many_reasons_still_fit(world) -> None:
    reasons = tuple(Reason(f"r{i}", "m" * 900, got="g" * 900, expected="e" * 900, remedy="r" * 900) for i in range(500))
    verdict = Undecided(reasons, (), (), 1, {}, "enforce", {"tool": "t", "action": "a"}, world.now)
    said = json.loads(to_statement(verdict, SUBJECT).payload)["predicate"]["mlseal"]["reasons"]
    assert 5 < len(said) < 20
    assert f"{500 - len(said) + 1} further" in said[-1]["message"]


def test_resource_uris_cannot_be_confused() -> None:
    one = resource_uri({"tool": "t", "action": "a", "model": "x&alias=champion"})
    two = resource_uri({"tool": "t", "action": "a", "model": "x", "alias": "champion"})
    assert one != two
    assert resource_uri({"action": "a", "b": "1", "a": "2", "tool": "t"}) == resource_uri(
        {"tool": "t", "action": "a", "a": "2", "b": "1"}
    )
