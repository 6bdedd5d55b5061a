"""The traps of CEL, each with the way it would have failed open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlseal.errors import PolicyInvalid
from mlseal.evidence.predicates import SHORT
from mlseal.policy.cel import compile_condition, dec_le, glob

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SAMPLE: dict[str, Any] = {
    "n": 2520,
    "outcome": "need",
    "strength": "measured",
    "sufficient": True,
    "smallestGroupPositives": 182,
    "startedOn": "2026-11-23T04:00:00Z",
    "harness": {"version": "0.1.0", "libraries": {"fairlearn": "0.13"}},
    "groups": [{"name": "0", "n": 2057, "selectionRate": 0.28}, {"name": "1"}],
    "metrics": [
        {"name": "eod", "value": 0.013, "ciLow": 0.007, "ciHigh": 0.116, "level": 0.95},
        {"name": "twice", "value": 0.0, "ciLow": 0.0, "ciHigh": 0.0, "level": 0.95},
        {"name": "twice", "value": 1.0, "ciLow": 1.0, "ciHigh": 1.0, "level": 0.95},
    ],
    "notProven": ["x"],
    "dataset": {"digest": {"sha256": "aa"}},
}

REFUSED_AT_LOAD = {
    "misspelt field": ("p.smalestGroupPositives >= 100", "smallestGroupPositives"),
    "misspelt field of a metric": ('p.metric("eod").ciHihg <= 0.15', "ciHigh"),
    "misspelt field in a loop": ("p.groups.exists(g, g.selectionrate > 0.1)", "selectionRate"),
    "misspelt field in has()": ("!has(p.sufficent)", "sufficient"),
    "misspelt nested field": ('p.dataset.digst.sha256 == "aa"', "digest"),
    "field of a number": ("p.n.value > 1", "number"),
    "unknown variable": ("q.n > 1", "CEL"),
    "unknown function": ("p.n.foo()", "CEL"),
    "syntax": ("p.n >", "CEL"),
    "not bool": ("p.n", "true or false"),
    "whole predicate": ("p", "true or false"),
    "text as truth": ("p.outcome", "true or false"),
    "number against text": ('p.n >= "100"', "number with text"),
    "texts in order": ('p.outcome < "9"', "decLE"),
    "decimal text against number": ("p.strength <= 8", "text with number"),
    "equality of unlike kinds": ('p.n == "2520"', "unlike"),
    "inequality of unlike kinds": ('p.n != "2520"', "unlike"),
    "value that can never stand there": ('p.strength == "mesured"', "measured"),
    "exclusion that can never bite": ('p.strength != "declard"', "declared"),
    "choice in a list": ('p.strength in ["measured", "infered"]', "inferred"),
    "number in texts": ('p.n in ["2520"]', "number in list"),
    "unanchored matches": ('p.outcome.matches("need")', "glob"),
    "anchored matches too": ('p.outcome.matches("^need$")', "glob"),
    "double of nan": ('p.n > 1 && !(double("nan") > 1.0)', "double"),
    "double of text": ("double(p.outcome) < 1.0", "double"),
    "int of text": ("int(p.outcome) < 1", "int"),
    "all over a list that may be empty": ('p.dataset.annotations.all(a, a == "x")', "list"),
    "all over a filtered list": ('p.groups.filter(g, g.name == "x").all(g, g.name == "x")', "empty list"),
    "absent field in a loop": ("p.groups.exists(g, g.n >= 100)", "has"),
    "absent field behind the wrong guard": ("p.groups.exists(g, has(g.positives) && g.n >= 100)", "has"),
    "absent field under or": ("p.groups.all(g, has(g.n) || g.n >= 100)", "has"),
    "division in a loop": ("p.groups.exists(g, has(g.n) && 100 / g.n > 1)", "loop"),
    "conversion in a loop": ("p.notProven.exists(x, timestamp(x) < now)", "loop"),
    "map macro with a filter": ("p.groups.map(g, has(g.n), g.name).size() == 2", "all, exists"),
    "absent field behind one of two guards": (
        "p.groups.exists(g, (has(g.n) || has(g.positives)) && g.n >= 100)",
        "has",
    ),
    "absent field behind a denied pair": (
        "p.groups.exists(g, !(!has(g.n) && !has(g.positives)) && g.n >= 100)",
        "has",
    ),
    "map macro": ("p.groups.map(g, g.name).size() == 2", "all, exists"),
    "building a map": ('{"a": 1}.a == p.n', "maps"),
    "indexing": ('p.groups[0].name == "0"', "metric"),
    "dynamic field": ('p["n"] == 2520', "metric"),
    "optional syntax": ("p.?n.orValue(3) > 1", "CEL"),
    "not about the evidence": ("1 < 2", "evidence"),
    "constant": ("true", "evidence"),
    "clock only": ('now > timestamp("2020-01-01T00:00:00Z")', "evidence"),
    "shadowed variable": ('p.groups.exists(p, p.name == "0")', "taken"),
    "metric of a predicate without metrics": ('p.dataset.metric("x").value < 1.0', "CEL|metric"),
    "different kinds of one choice": ("(p.sufficient ? p.n : p.outcome) == 3", "one kind|CEL"),
    "too long": ("p.n > 1 && " * 500 + "p.n > 1", "long"),
}


@pytest.mark.parametrize(("source", "said"), REFUSED_AT_LOAD.values(), ids=REFUSED_AT_LOAD.keys())
def test_refused_at_load(source: str, said: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        compile_condition(source, SHORT["fairness"])
    assert any(part in str(caught.value) for part in said.split("|")), str(caught.value)


NO_ANSWER = {
    "absent field": "p.clusters >= 5",
    "absent field, negated": "!(p.clusters < 5)",
    "error or true": "p.clusters >= 5 || p.n > 1",
    "error in a metric or true": 'p.metric("none").ciHigh <= 1.0 || p.n > 1',
    "error and false, negated": "!(p.clusters >= 5 && p.n < 1)",
    "error under a choice": "p.clusters > 1 ? p.n > 1 : p.n > 2",
    "division by zero": "p.n / 0 > 1 || p.n == 2520",
    "modulo by zero": "p.n % 0 == 0 || p.n == 2520",
    "zero by zero": "!(0.0 / 0.0 > 1.0) && p.n > 1",
    "overflow to infinity": 'p.metric("eod").value * 1e308 * 1e308 > 1.0',
    "infinity minus itself": '!(p.metric("eod").value * 1e308 * 1e308 - 1e308 * 1e308 > 0.0)',
    "integer overflow": "p.n * 9223372036854775807 > 0 || p.n > 1",
    "no such metric": 'p.metric("none").ciHigh <= 0.15',
    "two metrics of one name": 'p.metric("twice").ciHigh <= 0.15',
    "own function swallowed by a loop": 'p.groups.exists(g, decLE(g.name, "-1") || p.metric("none").ciHigh < 1.0 || g.name == "0")',
    "not a decimal": 'decLE(p.outcome, "8")',
    "not a decimal, or true": 'decLE("7e0", p.outcome) || p.n > 1',
    "not a time": 'now - timestamp(p.outcome) < duration("24h")',
}


@pytest.mark.parametrize("source", NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_no_answer(source: str) -> None:
    found = compile_condition(source, SHORT["fairness"]).evaluate(SAMPLE, now=NOW, signed_on=NOW)
    assert found.holds is None
    assert found.problem


ANSWERS = {
    'p.metric("eod").ciHigh <= 0.15': True,
    'p.metric("eod").ciHigh <= 0.1': False,
    "p.smallestGroupPositives >= 100 && p.sufficient": True,
    "has(p.clusters) && p.clusters > 5": False,
    "!has(p.clusters) || p.clusters > 5": True,
    "p.groups.all(g, !has(g.n) || g.n >= 100)": True,
    "p.groups.all(g, has(g.n) && g.n >= 100)": False,
    'p.groups.exists_one(g, g.name == "0")': True,
    "size(p.groups.filter(g, has(g.n) && g.n > 1)) == 1": True,
    'p.outcome in ["need", "use"]': True,
    'p.outcome.glob("ne*")': True,
    'p.outcome.glob("ee")': False,
    'p.strength == "measured" && p.strength != "declared"': True,
    "p.sufficient ? p.n > 1 : p.n > 5000": True,
    'now - timestamp(p.startedOn) < duration("24h") && now - signedOn < duration("1h")': True,
    "p.n / 2 == 1260 && p.n >= 2520": True,
    'p.harness.libraries.fairlearn == "0.13"': True,
    'p.dataset.digest.sha256 == "aa"': True,
    "nonEmpty(p.groups)": True,
}


@pytest.mark.parametrize(("source", "holds"), ANSWERS.items())
def test_answers(source: str, holds: bool) -> None:
    assert compile_condition(source, SHORT["fairness"]).evaluate(SAMPLE, now=NOW, signed_on=NOW).holds is holds


def test_all_over_an_empty_list_needs_a_guard_and_the_guard_works() -> None:
    uri = SHORT["data-provenance"]
    with pytest.raises(PolicyInvalid, match="nonEmpty"):
        compile_condition('p.lineage.all(x, has(x.name) && x.name == "a")', uri)
    for guard in ("nonEmpty(p.lineage)", "size(p.lineage) > 0", "size(p.lineage) >= 1", "size(p.lineage) != 0"):
        guarded = compile_condition(f'{guard} && p.lineage.all(x, has(x.name) && x.name == "a")', uri)
        assert guarded.evaluate({"lineage": []}, now=NOW, signed_on=NOW).holds is False
        assert guarded.evaluate({"lineage": [{"name": "a"}]}, now=NOW, signed_on=NOW).holds is True
    for wrong in (
        "size(p.lineage) >= 0",
        "size(p.lineage) > -1",
        "size(p.lineage) != 5",
        "nonEmpty(p.notProven)",
        "!nonEmpty(p.lineage)",
    ):
        with pytest.raises(PolicyInvalid, match="empty list"):
            compile_condition(f'{wrong} && p.lineage.all(x, has(x.name) && x.name == "a")', uri)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.1", None, [], {}, True, 2**70, b"x"], ids=repr)
@pytest.mark.parametrize("source", ["p.smallestGroupPositives >= 100", "!(p.smallestGroupPositives < 100)"])
def test_a_value_of_another_kind_is_never_enough(value: object, source: str) -> None:
    """Schema checks come first; should one let such a value through, the condition still does not hold."""
    found = compile_condition(source, SHORT["fairness"]).evaluate(
        {**SAMPLE, "smallestGroupPositives": value}, now=NOW, signed_on=NOW
    )
    assert found.holds is None, found


def test_a_list_beyond_the_iteration_budget_is_no_answer() -> None:
    many = {**SAMPLE, "groups": [{"name": str(i)} for i in range(10_001)]}
    for source in ('p.groups.all(g, g.name != "x")', 'size(p.groups.filter(g, g.name == "x")) == 0'):
        assert compile_condition(source, SHORT["fairness"]).evaluate(many, now=NOW, signed_on=NOW).holds is None


@given(st.text(max_size=8), st.text(alphabet="ab/*.", max_size=8))
@settings(max_examples=200, deadline=None)
def test_glob_agrees_with_a_slow_one(text: str, pattern: str) -> None:
    assert glob(text, pattern) == _slow_glob(text, pattern)


def _slow_glob(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern.startswith("**"):
        return any(_slow_glob(text[i:], pattern[2:]) for i in range(len(text) + 1))
    if pattern[0] == "*":
        return any("/" not in text[:i] and _slow_glob(text[i:], pattern[1:]) for i in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and _slow_glob(text[1:], pattern[1:])


@pytest.mark.parametrize(
    ("left", "right", "holds"),
    [
        ("8", "8.0", True),
        ("8.000000000000000001", "8", False),
        ("0.1", "0.10", True),
        ("-1", "0", True),
        ("10", "9", False),
    ],
)
def test_decimals_are_exact(left: str, right: str, holds: bool) -> None:
    assert dec_le(left, right) is holds


@pytest.mark.parametrize(
    "text", ["nan", "inf", " 7", "7 ", "0x8", "1e3", "٣", "+1", "01", ".5", "5.", "", "-", "1" * 40, "7\n"]
)
def test_only_plain_decimals_are_decimals(text: str) -> None:
    with pytest.raises(ValueError, match="plain decimal"):
        dec_le(text, "8")


def test_evaluation_from_many_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    good = compile_condition('p.metric("eod").ciHigh <= 0.15', SHORT["fairness"])
    bad = compile_condition('p.metric("none").ciHigh <= 0.15 || p.n > 1', SHORT["fairness"])
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda i: (bad if i % 2 else good).evaluate(SAMPLE, now=NOW, signed_on=NOW).holds, range(400))
        )
    assert found == [None if i % 2 else True for i in range(400)]
