"""What changed between two policies, and which way: stricter, looser, or not to be ordered."""

from __future__ import annotations

import hashlib

import pytest

from mlseal.policy import thresholds
from mlseal.policy.compare import differences
from mlseal.policy.load import parse

BASE = """policy: org/1
applies: [{tool: t, action: a, model: "risk-*"}]
assurance: {identity: local, log: pinned, time: local}
revokers: [{issuer: i, san: monitor}]
freeze: [{tool: t, action: a, from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, owner: o, reason: r}]
ungoverned: [{tool: t, action: b, owner: o, until: 2027-01-01T00:00:00Z}]
require:
  - {predicate: slsa-provenance, by: [{issuer: i, san: producer}]}
  - predicate: fairness
    by: [{issuer: i, san: evaluator}]
    maxAge: 30d
    when:
      - {id: gap, message: gap, check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'}
      - {id: enough, message: enough, check: p.smallestGroupPositives >= 100}
"""


def changes(old: str, new: str, text: str = BASE) -> list[tuple[str, str]]:
    assert old in text
    found = differences(parse(text.encode()), parse(text.replace(old, new).encode()))
    return [(one.place, one.relation) for one in found]


CHANGES = {
    "a name": ("org/1", "org/2", [("policy", "noted")]),
    "fewer actions": ("risk-*", "risk-1", [("applies", "looser")]),
    "more actions": ('model: "risk-*"', 'model: "*"', [("applies", "stricter")]),
    "all actions": (', model: "risk-*"', "", [("applies", "stricter")]),
    "a shorter window": ("until: 2027-01-04", "until: 2027-01-03", [("freeze", "looser")]),
    "a longer window": ("until: 2027-01-04", "until: 2027-01-05", [("freeze", "stricter")]),
    "an earlier window": ("from: 2026-12-20", "from: 2026-12-19", [("freeze", "stricter")]),
    "a longer exemption": ("until: 2027-01-01", "until: 2027-01-02", [("ungoverned", "looser")]),
    "a shorter exemption": ("until: 2027-01-01", "until: 2026-12-31", [("ungoverned", "stricter")]),
    "older evidence": ("30d", "31d", [("require.fairness.maxAge", "looser")]),
    "a rule less": (BASE[BASE.index("      - {id: enough") :], "", [("require.fairness.when.enough", "looser")]),
    "a lower bound": ("0.15", "0.1", [("require.fairness.when.gap.check", "stricter")]),
    "a higher bound": ("0.15", "0.2", [("require.fairness.when.gap.check", "looser")]),
    "at least fewer": (">= 100", ">= 99", [("require.fairness.when.enough.check", "looser")]),
    "at least more": (">= 100", ">= 101", [("require.fairness.when.enough.check", "stricter")]),
    "another condition": ("<= 0.15", "< 0.15", [("require.fairness.when.gap.check", "changed")]),
    "other words": ("message: gap", "message: the gap", [("require.fairness.when.gap.message", "noted")]),
    "another signer": ("san: evaluator", "san: other", [("require.fairness.by", "changed")]),
    "one more signer": ("san: evaluator}]", "san: evaluator}, {issuer: i, san: x}]", [("require.fairness.by", "looser")]),
    "less assurance": (
        "log: pinned",
        "log: unwitnessed",
        [(f"{place}assurance.log", "looser") for place in ("", "require.slsa-provenance.", "require.fairness.")],
    ),
    "nobody may revoke": ("revokers: [{issuer: i, san: monitor}]\n", "", [("revokers", "stricter")]),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "wanted"), CHANGES.values(), ids=CHANGES.keys())
def test_each_change_has_its_direction(old: str, new: str, wanted: list[tuple[str, str]]) -> None:
    assert changes(old, new) == wanted


def test_a_requirement_less_is_looser_and_one_more_is_stricter() -> None:
    less = BASE.replace("  - {predicate: slsa-provenance, by: [{issuer: i, san: producer}]}\n", "")
    old, new = parse(BASE.encode()), parse(less.encode())
    assert [(d.place, d.relation) for d in differences(old, new)] == [("require.slsa-provenance", "looser")]
    assert [(d.place, d.relation) for d in differences(new, old)] == [("require.slsa-provenance", "stricter")]


def test_the_same_policy_has_no_difference_however_it_is_written() -> None:
    assert list(differences(parse(BASE.encode()), parse(BASE.encode()))) == []
    assert changes("  - predicate: fairness", "  # a remark\n  - predicate: https://mlseal.dev/fairness/v0.1") == []


def test_layers_beneath_are_compared_too() -> None:
    newer = BASE.replace("until: 2027-01-04", "until: 2027-01-01")

    def on(beneath: str):
        digest = hashlib.sha256(beneath.encode()).hexdigest()
        text = f"policy: model/1\nextends: {{policy: org/1, sha256: {digest}}}\n"
        return parse(text.encode(), find=lambda _: beneath.encode())

    assert list(differences(on(BASE), on(BASE))) == []
    found = [(d.place, d.relation) for d in differences(on(BASE), on(newer))]
    assert found == [("extends.freeze", "looser")]
    alone = parse(BASE.replace("org/1", "model/1").encode())
    assert ("extends", "looser") in [(d.place, d.relation) for d in differences(on(BASE), alone)]
    assert ("extends", "stricter") in [(d.place, d.relation) for d in differences(alone, on(BASE))]


@pytest.mark.parametrize(
    ("old", "new", "relation"),
    [
        ("p.x <= 0.10", "p.x <= 0.1", "same"),
        ("p.x <= 1", "p.x  <=  0.5", "stricter"),
        ("p.x > 1", "p.x > 0.5", "looser"),
        ("p.x > -1", "p.x > -2", "looser"),
        ("p.x <= 1", "p.y <= 0.5", "changed"),
        ("p.a || p.x <= 1", "p.a || p.x <= 0.5", "changed"),  # ordered too, but not worth a proof
        ("!(p.x) <= 1", "!(p.x) <= 0.5", "changed"),
        ("p.x <= 1 || p.y <= 1", "p.x <= 2 || p.y <= 0.5", "changed"),
        ("p.x >= 5 && p.y <= 1", "p.x >= 1 && p.y <= 0.5", "changed"),
        ("5 < p.x", "6 < p.x", "changed"),
        ("p.x == 1", "p.x == 2", "changed"),
        ("p.x <= 1", "p.x < 0.5", "changed"),
    ],
)
def test_thresholds(old: str, new: str, relation: str) -> None:
    assert thresholds.order(old, new) == relation
