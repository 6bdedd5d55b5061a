"""A policy's own tests: they run, they notice a weakened policy, and a policy without any is noticed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlseal.cli import main
from mlseal.errors import PolicyInvalid
from mlseal.policy import controls, lint
from mlseal.policy.load import load

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TEXT = Path(__file__).with_name("production.yaml").read_text()


def run(tmp_path: Path, text: str) -> list[controls.Outcome]:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    policy = load(file)
    return list(controls.run(policy, controls.tests_of(policy, file), now=NOW))


def test_all_pass_and_variations_are_made(tmp_path: Path) -> None:
    found = run(tmp_path, TEXT)
    assert [o.name for o in found if not o.passed] == []
    assert {
        "good, without fairness",
        "good, human-approval by a stranger",
        "good, revocations stale",
        "good, a log leaf withheld",
    } <= {o.name for o in found}


WEAKENED = {
    "threshold": ("<= 0.15", "<= 0.5", "wide gap"),
    "positives": (">= 100", ">= 0", "too few positives"),
    "age": ("maxAge: 30d", "maxAge: 60d", "old measurement"),
    "strength": ("    strength: measured\n", "", "only declared"),
    "distinct": ("distinct: 2", "distinct: 1", "alice twice"),
    "roles": ("    notBy: [trainer]\n", "", "nobody owns it"),
    "reviewed": ("    reviewed: [fairness]\n", "", "approval of other evidence"),
    "chain": ("    of: slsa-provenance\n    input: data\n", "", "good"),
}


@pytest.mark.parametrize(("old", "new", "test"), WEAKENED.values(), ids=WEAKENED.keys())
def test_a_weakened_policy_fails_its_tests(tmp_path: Path, old: str, new: str, test: str) -> None:
    assert old in TEXT
    assert test in {o.name for o in run(tmp_path, TEXT.replace(old, new, 1)) if not o.passed}


def test_the_right_rule_must_stop_it(tmp_path: Path) -> None:
    found = run(tmp_path, TEXT.replace("rule: gap,", "rule: enough,"))
    assert [o.problem for o in found if not o.passed] == ["stopped by gap, not by enough"]


def test_tests_beside_the_policy(tmp_path: Path) -> None:
    head, _, tests = TEXT.partition("tests:\n")
    with pytest.raises(PolicyInvalid, match="negative control"):
        run(tmp_path, head)
    (tmp_path / "p.tests").mkdir()
    (tmp_path / "p.tests" / "a.yaml").write_text("tests:\n" + tests)
    assert all(o.passed for o in run(tmp_path, head))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("like: good, expect: refused, rule: gap", "like: none, expect: refused, rule: gap", "does not exist"),
        ("{fairness.metrics.0.ciHigh: 0.356}", "{fairness.metrics.7.ciHigh: 0.356}", "no place"),
        ("{fairness.metrics.0.ciHigh: 0.356}", "{fairnes.metrics.0.ciHigh: 0.356}", "does not have"),
        ("{fairness.metrics.0.ciHigh: 0.356}", "{fairness.metrics.0.ciHigh: wide}", "schema"),
        ("revoked: {bob: withdrawn}", "revoked: {eve: withdrawn}", "eve"),
        ("{evidence:fairness}", "{evidence:nothing}", "nothing"),
        ("- {name: wide gap", "- {name: good", "one name"),
        ("{id: bob, predicate", "{id: alice, predicate", "two samples"),
        ("{evidence:fairness}", "{wrong:fairness}", "a test uses"),
    ],
)
def test_tests_that_cannot_be_what_was_meant(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(PolicyInvalid, match=said):
        run(tmp_path, TEXT.replace(old, new))


def test_a_policy_that_believes_anybody_fails_its_variations(tmp_path: Path) -> None:
    everybody = "by: [{issuer: https://stranger.example, san: https://stranger.example/someone}, "
    found = run(tmp_path, TEXT.replace("by: [", everybody))
    assert {"good, fairness by a stranger", "good, data-provenance by a stranger"} <= {
        o.name for o in found if not o.passed
    }


def test_a_variation_changes_one_requirement_alone(tmp_path: Path) -> None:
    """The same account signs the data's provenance: varied along with it, that would stop what must be seen to pass."""
    built = "predicate: slsa-provenance\n    by: ["
    stranger = "{issuer: https://stranger.example, san: https://stranger.example/someone}, "
    weak = TEXT.replace(built, built + stranger, 1)
    assert "good, slsa-provenance by a stranger" in {o.name for o in run(tmp_path, weak) if not o.passed}


TWICE = """
policy: twice/1
applies: [{tool: t, action: a}]
assurance: {identity: local, log: unwitnessed, time: local}
revokers: [{issuer: i, san: monitor}]
require:
  - {predicate: source-verification, id: one, by: [{issuer: i, san: first}]}
  - {predicate: source-verification, id: two, by: [{issuer: i, san: second}]}
tests:
  - name: both
    expect: allowed
    evidence:
      - {id: one, predicate: source-verification, by: {issuer: i, san: first}}
      - {id: two, predicate: source-verification, by: {issuer: i, san: second}}
  - {name: only one, like: both, expect: refused, rule: two, without: [two]}
"""


def test_two_requirements_of_one_type_are_varied_one_by_one(tmp_path: Path) -> None:
    """Varied together, the stricter of the two would hide that the other believes anybody."""
    assert all(o.passed for o in run(tmp_path, TWICE))
    weak = TWICE.replace(
        "by: [{issuer: i, san: first}]",
        "by: [{issuer: i, san: first}, {issuer: https://stranger.example, san: https://stranger.example/someone}]",
    )
    assert {o.name for o in run(tmp_path, weak) if not o.passed} == {"both, one by a stranger"}


def lint_of(tmp_path: Path, require: str) -> str:
    file = tmp_path / "p.yaml"
    file.write_text(f"policy: p/1\napplies: [{{tool: t, action: a}}]\nrequire:\n{require}")
    return " ".join(lint.remarks(load(file)))


@pytest.mark.parametrize(
    ("check", "bound", "rate"),
    [
        ('p.metric("g").ciHigh <= 0.15', True, True),
        ('p.metric("g").ciLow >= 0.15 && p.selection.rule == "column"', True, False),
        ('p.metric("g").ciHigh <= 0.15 && p.metric("g").level == 0.95', False, True),
        ('p.metric("g").level == 0.95 && p.metric("g").ciHigh <= 0.15 && p.selection.fraction == 0.25', False, False),
        ("p.groups.all(g, has(g.selectionRate) && g.selectionRate > 0.1)", False, True),
        ("p.n > 100", False, False),
    ],
)
def test_lint_says_what_is_left_to_whoever_measures(tmp_path: Path, check: str, bound: bool, rate: bool) -> None:
    by = "by: [{issuer: i, san: s}]"
    said = lint_of(tmp_path, f"  - {{predicate: fairness, {by}, when: [{{id: g, message: m, check: '{check}'}}]}}\n")
    assert ("without its level" in said, "without p.selection" in said) == (bound, rate)


def test_lint_says_whose_inputs_nobody_follows(tmp_path: Path) -> None:
    by = "by: [{issuer: i, san: s}]"
    alone = f"  - {{predicate: slsa-provenance, {by}}}\n  - {{predicate: fairness, {by}}}\n"
    followed = f"  - {{predicate: source-verification, of: fairness, {by}}}\n"
    assert "fairness: its data set is not followed (no requirement 'of: fairness')" in lint_of(tmp_path, alone)
    said = lint_of(tmp_path, alone + followed)
    assert "data set is not followed" not in said
    assert "slsa-provenance: its inputs are not followed" in said


def test_lint_sees_the_negative_controls_beside_a_policy(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "policy: p/1\napplies: [{tool: t, action: a}]\nrequire: [{predicate: vulns, by: [{issuer: i, san: s}]}]\n"
    )
    alone = CliRunner().invoke(main, ["policy", "lint", str(file)]).stdout
    (tmp_path / "p.tests").mkdir()
    (tmp_path / "p.tests" / "controls.yaml").write_text("tests: []\n")
    beside = CliRunner().invoke(main, ["policy", "lint", str(tmp_path)]).stdout
    assert ("no negative controls" in alone, "no negative controls" in beside) == (True, False)


def test_lint_says_weaknesses_aloud(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("""
policy: weak/1
applies: [{tool: t, action: a}]
assurance: {identity: local, log: unwitnessed, time: local}
observe: {until: 2027-01-01T00:00:00Z, owner: x}
ungoverned: [{tool: u, action: b, owner: y, until: 2027-01-01T00:00:00Z}]
require:
  - {predicate: fairness, by: [{issuer: i, san: s}], strength: measured}
  - {predicate: human-approval, by: [{issuer: i, san: s}], notBy: [trainer]}
""")
    said = " ".join(lint.remarks(load(file)))
    for word in (
        "revokers",
        "gate",
        "tests",
        "identity",
        "unwitnessed",
        "observe",
        "ungoverned",
        "maxAge",
        "kind of training says who may train",
        "ownership.by",
        "reviewed",
        "conditions",
    ):
        assert word in said
