"""Rules over time: windows that are closed whatever the evidence says, and rules that are coming and not yet asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mlseal.errors import PolicyInvalid
from mlseal.policy import controls
from mlseal.policy.gate import Action, decide
from mlseal.policy.lint import remarks
from mlseal.policy.load import parse
from mlseal.policy.schema import Control

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WINDOW = "freeze: [{tool: t, action: a, from: FROM, until: UNTIL, owner: board, reason: year end}]\n"


def at(moment: datetime) -> str:
    return moment.strftime('"%Y-%m-%dT%H:%M:%SZ"')


def freeze(header: str, since: datetime, until: datetime, **patterns: str) -> str:
    more = "".join(f", {key}: {value}" for key, value in patterns.items())
    window = WINDOW.replace("FROM", at(since)).replace("UNTIL", at(until)).replace("action: a", "action: a" + more)
    return header.replace("require:\n", window + "require:\n")


def stops(verdict) -> dict[str, str]:
    return {reason.rule: reason.outcome for reason in verdict.reasons if reason.outcome != "note"}


def notes(verdict) -> str:
    return " ".join(str(reason) for reason in verdict.reasons if reason.outcome == "note")


def coming(rules, when: datetime) -> str:
    return rules["fairness"] + f"    effectiveOn: {at(when)}\n"


# --- freeze -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "until", "refused"),
    [
        (NOW - DAY, NOW + DAY, True),
        (NOW, NOW + DAY, True),
        (NOW - DAY, NOW, False),
        (NOW + timedelta(seconds=1), NOW + DAY, False),
    ],
)
def test_a_window_refuses_whatever_the_evidence_says(world, rules, header, since, until, refused) -> None:
    world.fairness(0.1)
    for action in (Action("T", "A", {"model": "Risk-1"}), None):  # leaving the action out opens nothing
        verdict = world.judge(rules["fairness"], action=action, header=freeze(header, since, until))
        assert (verdict.kind, stops(verdict)) == (("refused", {"freeze": "refused"}) if refused else ("allowed", {})), (
            action
        )


def test_the_refusal_says_why_until_when_and_who_can_change_it(world, rules, header) -> None:
    world.fairness(0.1)
    said = str(world.judge(rules["fairness"], header=freeze(header, NOW - DAY, NOW + DAY)).reasons[0])
    assert "frozen until 2026-11-24T12:00:00Z: year end" in said
    assert "from 2026-11-24T12:00:00Z on" in said
    assert "have board change the window in policy test/1" in said


@pytest.mark.parametrize(
    ("facts", "refused"),
    [({"model": "risk-1"}, True), ({"model": "risk-2"}, False), ({}, True), ({"model": "RISK-1"}, True)],
)
def test_patterns_say_what_is_frozen(world, rules, header, facts, refused) -> None:
    world.fairness(0.1)
    closed = freeze(header, NOW - DAY, NOW + DAY, model="risk-1")
    verdict = world.judge(rules["fairness"], action=Action("t", "a", facts), header=closed)
    assert ("freeze" in stops(verdict)) is refused


def other(text: str, world, action, *more: str):
    policies = tuple(parse(part.encode()) for part in (text, *more))
    from mlseal.policy import samples
    from mlseal.policy.facts import Target

    return decide(world.source, Target("x", samples.digest("target")), action, policies, now=NOW)


FREE = "policy: free/1\nungoverned: [{tool: t, action: b, owner: lead, until: 2027-01-01T00:00:00Z}]\n"
SHUT = f"policy: shut/1\nfreeze: [{{tool: t, action: '*', from: {at(NOW - DAY)}, until: {at(NOW + DAY)}, owner: o, reason: r}}]\n"


def test_a_window_closes_what_is_exempt_and_what_another_policy_allows(world, rules, header) -> None:
    exempt = Action("t", "b")
    assert other(FREE, world, exempt).kind == "allowed"
    verdict = other(FREE, world, exempt, SHUT)
    assert (verdict.kind, stops(verdict)) == ("refused", {"freeze": "refused"})
    assert {name for name, _ in verdict.policies} == {"free/1", "shut/1"}
    world.fairness(0.1)
    verdict = other(header + rules["fairness"], world, Action("t", "a"), SHUT)
    assert (verdict.kind, stops(verdict)) == ("refused", {"freeze": "refused"})
    assert {name for name, _ in verdict.policies} == {"test/1", "shut/1"}
    assert stops(other(SHUT, world, Action("t", "c"))) == {"freeze": "refused", "applies": "refused"}


def test_an_observing_policys_window_is_recorded_only_and_softens_no_other(world, rules, header) -> None:
    world.fairness(0.1)
    watch = SHUT + "observe: {until: 2027-01-01T00:00:00Z, owner: o}\n"
    verdict = other(header + rules["fairness"], world, Action("t", "a"), watch)
    assert (verdict.kind, verdict.passes) == ("refused", True)
    assert other(FREE, world, Action("t", "b"), watch).passes
    world.fairness(0.3)
    assert not other(header + rules["fairness"], world, Action("t", "a"), watch).passes
    assert not other(FREE, world, Action("t", "b"), watch, SHUT.replace("shut", "shut2")).passes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("until: ", "till: "), "until"),
        (("owner: board, ", ""), "owner"),
        (("reason: year end", "why: year end"), "reason"),
        ((at(NOW - DAY), at(NOW + 2 * DAY)), "before it begins"),
        (("tool: t", "tool: ''"), "tool"),
        (("reason: year end}]", "reason: year end, model: r\u0456sk}]"), "ASCII"),
    ],
)
def test_a_window_that_is_not_whole_is_refused(rules, header, change, said) -> None:
    text = freeze(header, NOW - DAY, NOW + DAY) + rules["fairness"]
    assert change[0] in text
    where = text.index("freeze:")
    with pytest.raises(PolicyInvalid, match=said):
        parse((text[:where] + text[where:].replace(*change, 1)).encode())


# --- effectiveOn ------------------------------------------------------------------------------------------------------


def test_a_coming_rule_stops_nothing_and_counts_for_nothing(world, rules) -> None:
    world.add("slsa-provenance", "producer")
    verdict = world.judge(rules["provenance"], coming(rules, NOW + DAY))
    assert verdict.kind == "allowed"
    assert "fairness: comes into force 2026-11-24T12:00:00Z; until then it neither stops" in notes(verdict)
    assert "not yet asked, and open: no fairness evidence" in notes(verdict)
    world.fairness(0.3)
    verdict = world.judge(rules["provenance"], coming(rules, NOW + DAY))
    assert (verdict.kind, "not yet asked, and open: gap" in notes(verdict)) == ("allowed", True)
    assert len(verdict.inputs) == 2, "what was looked at stands in the verdict"


@pytest.mark.parametrize(("offset", "kind"), [(0, "undecided"), (-1, "undecided"), (1, "allowed")])
def test_it_binds_from_its_date_on(world, rules, offset, kind) -> None:
    world.add("slsa-provenance", "producer")
    verdict = world.judge(rules["provenance"], coming(rules, NOW + timedelta(seconds=offset)))
    assert verdict.kind == kind


def test_a_coming_rule_is_never_reported_as_satisfied(world, rules) -> None:
    world.add("slsa-provenance", "producer")
    world.fairness(0.1)
    verdict = world.judge(rules["provenance"], coming(rules, NOW + DAY))
    assert "neither stops anything nor counts as satisfied" in notes(verdict)
    assert verdict.assurance["identity"] == "local"
    assert {i.predicate_type for i in verdict.inputs} > {"https://slsa.dev/provenance/v1"}


@pytest.mark.parametrize("action", [None, Action("t", "a", {"model": "risk-1"})])
def test_a_policy_whose_rules_are_all_coming_permits_nothing(world, rules, action) -> None:
    world.fairness(0.1)
    verdict = world.judge(coming(rules, NOW + DAY), action=action)
    assert (verdict.kind, stops(verdict)) == ("refused", {"applies": "refused"})
    assert "comes into force" in notes(verdict)


def test_beside_one_in_force_a_policy_that_is_all_coming_only_notes(world, rules, header) -> None:
    world.fairness(0.3)
    world.add("slsa-provenance", "producer")
    bare = header.replace("test/1", "next/1").replace("revokers", "# revokers")
    verdict = other(header + rules["provenance"], world, Action("t", "a"), bare + coming(rules, NOW + DAY))
    assert (verdict.kind, stops(verdict)) == ("allowed", {})
    assert "fairness: comes into force" in notes(verdict)
    assert {name for name, _ in verdict.policies} == {"test/1", "next/1"}


def test_the_statements_own_times_decide_nothing(world, rules) -> None:
    """Evidence signed before or after the date is judged by the same rule: only the gate's clock counts."""
    world.add("slsa-provenance", "producer")
    world.fairness(0.3, age=300 * DAY)
    assert world.judge(rules["provenance"], coming(rules, NOW - DAY)).kind == "refused"


def test_what_is_built_on_must_be_in_force_too(rules, header) -> None:
    late = f"    effectiveOn: {at(NOW + DAY)}\n"
    of = "  - {predicate: data-provenance, of: slsa-provenance, by: [{issuer: i, san: s}]}\n"
    with pytest.raises(PolicyInvalid, match=r"require\.1\.of: slsa-provenance comes into force later"):
        parse((header + rules["provenance"] + late + of).encode())
    read = rules["approval"] + "    reviewed: [fairness]\n"
    with pytest.raises(PolicyInvalid, match="fairness comes into force later"):
        parse((header + rules["fairness"] + late + read).encode())
    with pytest.raises(PolicyInvalid, match="fairness comes into force later"):
        parse((header + rules["fairness"] + late + read + f"    effectiveOn: {at(NOW)}\n").encode())
    assert parse((header + rules["fairness"] + late + read + late).encode())


def test_lint_says_both_aloud(rules, header) -> None:
    policy = parse((freeze(header, NOW, NOW + DAY) + coming(rules, NOW + DAY)).encode())
    said = list(remarks(policy))
    assert any("effectiveOn: nothing asks for it before 2026-11-24T12:00:00Z" in remark for remark in said)
    assert any(remark.startswith("freeze: t/a is refused from 2026-11-23T12:00:00Z") for remark in said)


def test_controls_judge_every_rule_in_force_unless_they_set_the_clock(rules, header) -> None:
    window = freeze(header, NOW - DAY, NOW + 400 * DAY)
    policy = parse((window.replace(", time: local}", ", time: local}") + coming(rules, NOW + DAY)).encode())
    body = {"strength": "measured", "metrics": [{"name": "equalizedOddsDifference", "ciHigh": 0.1}]}
    sample = {"predicate": "fairness", "by": {"issuer": "https://oidc.example", "san": "evaluator"}, "body": body}
    tests = [
        {"name": "good", "expect": "allowed", "evidence": [sample]},
        {"name": "wide", "like": "good", "expect": "refused", "rule": "gap", "set": {"fairness.metrics.0.ciHigh": 0.3}},
        {"name": "shut", "like": "good", "expect": "refused", "rule": "freeze", "at": (NOW + 2 * DAY).isoformat()},
        {"name": "not yet", "like": "good", "expect": "refused", "rule": "applies", "at": (NOW - 2 * DAY).isoformat()},
    ]
    found = list(controls.run(policy, tuple(Control.model_validate(test) for test in tests), now=NOW))
    assert [outcome.problem for outcome in found if not outcome.passed] == []
    assert len(found) == 8, "four tests, and four variations of the good one"
