"""The gate against a gate so simple that it can be read at once, over thousands of random worlds."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from mlseal.policy import samples
from mlseal.policy.facts import Target
from mlseal.policy.gate import decide
from mlseal.policy.load import parse

from .conftest import HEADER, World, remedied

TEXT = (
    HEADER
    + """
  - {predicate: slsa-provenance, by: [{issuer: https://oidc.example, san: a}, {issuer: https://oidc.example, san: b}]}
  - predicate: fairness
    by: [{issuer: https://oidc.example, san: a}, {issuer: https://oidc.example, san: c}, {issuer: https://oidc.example, san: gate}]
    strength: measured
    maxAge: 2d
    when: [{id: gap, message: gap, check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'}]
  - predicate: human-approval
    by: [{issuer: https://oidc.example, san: a}, {issuer: https://oidc.example, san: b}, {issuer: https://oidc.example, san: d}]
    distinct: 2
"""
)
POLICY = parse(TEXT.encode())
LAYER = parse(
    f"""
policy: narrower/1
extends: {{policy: test/1, sha256: {POLICY.sha256}}}
require:
  - predicate: fairness
    by: [{{issuer: https://oidc.example, san: a}}, {{issuer: https://oidc.example, san: c}}]
    maxAge: 1d
    when: [{{id: narrower, message: narrower, check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.12'}}]
""".encode(),
    find=lambda _: TEXT.encode(),
)

people = st.sampled_from(["a", "b", "c", "d", "gate", "stranger"])
ages = st.sampled_from([-1, 0, 1, 3])
taken = st.sampled_from([None, None, None, "withdrawn", "superseded"])
about = st.sampled_from(["target", "target", "target", "other"])
fact = st.one_of(
    st.tuples(st.just("slsa-provenance"), people, st.none(), ages, taken, about),
    st.tuples(st.just("fairness"), people, st.sampled_from([0.1, 0.3]), ages, taken, about),
    st.tuples(st.just("human-approval"), people, st.sampled_from(["approve", "approve", "reject"]), ages, taken, about),
)


def naive(facts, snapshot: bool) -> bool:
    """Whether it is allowed, by plain reading of the policy."""
    here = [f for f in facts if f[5] == "target"]

    def counted(kind, who):
        mine = [f for f in here if f[0] == kind and f[1] in who and f[1] != "gate"]
        newer = lambda f: any(g[3] < f[3] and g[4] is None for g in mine)
        return [f for f in mine if not (f[4] == "superseded" and newer(f))]

    def stands(f):
        return f[4] is None and f[3] >= 0

    trainers = {f[1] for f in here if f[0] == "slsa-provenance"}
    provenance = counted("slsa-provenance", "ab")
    results = counted("fairness", "ac")
    votes = counted("human-approval", "abd")
    authors = trainers | {f[1] for f in results}
    approvers = {f[1] for f in votes if f[2] == "approve" and stands(f) and f[1] not in authors}
    return (
        snapshot
        and any(stands(f) for f in provenance)
        and all(f[2] <= 0.15 for f in results)
        and any(stands(f) and f[3] <= 2 and f[1] not in trainers for f in results)
        and not any(f[2] == "reject" for f in votes)
        and len(approvers) >= 2
    )


def build(facts, snapshot: bool, policy=POLICY):
    world = World()
    for kind, who, value, age, reason, what in facts:
        metric = {"name": "equalizedOddsDifference", "value": 0.0, "ciLow": 0.0, "ciHigh": value}
        body = {"fairness": {"strength": "measured", "metrics": [metric]}, "human-approval": {"decision": value}}.get(
            kind, {}
        )
        made = world.add(kind, who, body, age=timedelta(days=age), about=what)
        if reason:
            world.revoke(made, reason)
    world.snapshot_age = timedelta(hours=1) if snapshot else None
    target = Target("target", samples.digest("target"))
    return remedied(decide(world.source, target, None, (policy,), now=world.now))


GOOD = [
    ("slsa-provenance", "a", None, 1, None, "target"),
    ("fairness", "c", 0.1, 1, None, "target"),
    ("human-approval", "b", "approve", 0, None, "target"),
    ("human-approval", "d", "approve", 0, None, "target"),
]


@given(st.lists(fact, max_size=6), st.sets(st.integers(0, 3), max_size=1), st.booleans(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_gate_allows_exactly_what_the_naive_one_allows(extra, dropped, from_good, snapshot) -> None:
    facts = [f for i, f in enumerate(GOOD) if i not in dropped] + extra if from_good else extra
    assert (build(facts, snapshot).kind == "allowed") is naive(facts, snapshot)


def test_both_allow_the_good_one_and_neither_without_a_part() -> None:
    assert naive(GOOD, True)
    assert build(GOOD, True).kind == "allowed"
    for i in range(len(GOOD)):
        assert not naive(GOOD[:i] + GOOD[i + 1 :], True)


@given(st.lists(fact, min_size=1, max_size=6), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_taking_good_evidence_away_never_opens_the_gate(facts, index) -> None:
    """Monotonic: without any one fact that is neither a failure nor a revocation, a closed gate stays closed."""
    less = [f for i, f in enumerate(facts) if i != index % len(facts)]
    gone = facts[index % len(facts)]
    if gone[0] == "fairness" and gone[2] == 0.1 and gone[1] == "c" and gone[5] == "target" and gone[4] is None:
        if build(less + GOOD[:1] + GOOD[2:], True).kind == "allowed":
            assert build(facts + GOOD[:1] + GOOD[2:], True).kind == "allowed"


@given(st.lists(fact, max_size=5), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_layer_allows_nothing_that_is_refused_beneath(extra, snapshot) -> None:
    if build(GOOD + extra, snapshot, LAYER).kind == "allowed":
        assert build(GOOD + extra, snapshot).kind == "allowed"
        assert naive(GOOD + extra, snapshot)


def test_a_layer_allows_the_good_one_and_not_what_only_it_forbids() -> None:
    assert build(GOOD, True, LAYER).kind == "allowed"
    older = [("fairness", "c", 0.1, 2, None, "target") if f[0] == "fairness" else f for f in GOOD]
    assert (build(older, True).kind, build(older, True, LAYER).kind) == ("allowed", "undecided")
