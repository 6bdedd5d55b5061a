"""A small world for the pure part of the gate: who exists, what they signed, when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import Revocation, Revocations
from mlseal.policy import samples
from mlseal.policy.facts import Target
from mlseal.policy.gate import decide
from mlseal.policy.load import parse
from mlseal.policy.schema import Assurance

ISSUER = "https://oidc.example"
LOW = {"identity": "local", "log": "unwitnessed", "time": "local"}
HEADER = """
policy: test/1
applies: [{tool: t, action: a, model: "risk-*"}]
assurance: {identity: local, log: unwitnessed, time: local}
revokers: [{issuer: https://oidc.example, san: monitor}]
gate: [{issuer: https://oidc.example, san: gate}]
ownership: {by: [{issuer: https://oidc.example, san: owner}]}
waivers: {by: [{issuer: https://oidc.example, san: officer}]}
require:
"""


class World:
    """Facts about one target, judged at `now`."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
        self.facts: list[samples.SampleFact] = []
        self.revoked: dict[str, Revocation] = {}
        self.withheld: tuple[Any, ...] = ()
        self.snapshot_age: timedelta | None = timedelta(hours=1)

    def add(
        self,
        kind: str,
        who: str,
        body: dict[str, Any] | None = None,
        *,
        age: timedelta = timedelta(hours=1),
        **more: Any,
    ) -> samples.SampleFact:
        level = Assurance.model_validate({**LOW, **more.pop("assurance", {})})
        fact = samples.make(
            kind,
            body or {},
            Identity(ISSUER, who),
            self.now - age,
            now=self.now + timedelta(days=90),
            assurance=level,
            salt=str(len(self.facts)),
            **more,
        )
        self.facts.append(fact)
        return fact

    def fairness(self, high: float, who: str = "evaluator", **more: Any) -> samples.SampleFact:
        metric = {"name": "equalizedOddsDifference", "value": high / 2, "ciLow": 0.0, "ciHigh": high}
        body = {"strength": "measured", "smallestGroupPositives": 182, "metrics": [metric], **more.pop("body", {})}
        return self.add("fairness", who, body, **more)

    def revoke(self, fact: samples.SampleFact, reason: str) -> None:
        self.revoked[fact.evidence_id] = Revocation(fact.evidence_id, reason, "monitor")

    @property
    def source(self) -> samples.SampleSource:
        taken = self.now - self.snapshot_age if self.snapshot_age is not None else None
        state = Revocations(self.revoked, taken, self.now + timedelta(days=1) if taken else None)
        return samples.SampleSource(tuple(self.facts), state, self.withheld, 17)

    def judge(self, *requirements: str, action: Any = None, header: str = HEADER, **more: Any) -> Any:
        policy = parse((header + "".join(requirements)).encode())
        target = Target("target", samples.digest("target"))
        return remedied(decide(self.source, target, action, (policy,), now=self.now, **more))


def remedied(verdict: Any) -> Any:
    """`verdict`, of which no reason may stop anybody without saying what mends it."""
    for reason in verdict.reasons:
        assert reason.outcome == "note" or reason.remedy, f"no remedy: {reason}"
    return verdict


FAIRNESS = """
  - predicate: fairness
    by: [{issuer: https://oidc.example, san: evaluator}, {issuer: https://oidc.example, san: second}]
    when: [{id: gap, message: gap, check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'}]
"""
PROVENANCE = """
  - predicate: slsa-provenance
    by: [{issuer: https://oidc.example, san: producer}]
"""
APPROVAL = """
  - predicate: human-approval
    by: [{issuer: https://oidc.example, san: alice}, {issuer: https://oidc.example, san: bob}, {issuer: https://oidc.example, san: evaluator}]
"""


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def header() -> str:
    return HEADER


@pytest.fixture
def rules() -> dict[str, str]:
    """Requirements by name, for policies put together in tests."""
    return {"fairness": FAIRNESS, "provenance": PROVENANCE, "approval": APPROVAL}
