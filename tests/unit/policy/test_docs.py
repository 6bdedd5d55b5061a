"""docs/policy.md: its policy loads and passes its tests, and it names every key that exists."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlseal.policy import controls
from mlseal.policy.cel import compile_condition
from mlseal.policy.load import parse
from mlseal.policy.schema import Control, Opa, PolicyPart, RequirementPart, Sample, Signer

TEXT = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
POLICY, TESTS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_policy_is_the_one_that_the_tests_use() -> None:
    loaded = parse(POLICY.encode())
    assert [r.id for r in loaded.require] == ["slsa-provenance", "data-provenance", "fairness", "human-approval"]


def test_the_tests_shown_run(tmp_path: Path) -> None:
    start, _, rest = POLICY.partition("  - predicate: slsa-provenance")
    fairness = rest[rest.index("  - predicate: fairness") : rest.index("  - predicate: human-approval")].replace(
        "    strength: measured\n", ""
    )
    file = tmp_path / "p.yaml"
    file.write_text(start + fairness + TESTS)
    policy = parse(file.read_bytes())
    found = list(controls.run(policy, controls.tests_of(policy, file), now=datetime(2026, 11, 23, tzinfo=UTC)))
    assert [o.name for o in found if not o.passed] == []
    assert len(found) == 7


@pytest.mark.parametrize("part", [PolicyPart, RequirementPart, Signer, Control, Sample, Opa])
def test_every_key_is_named(part: type) -> None:
    for field in part.model_fields.values():
        assert re.search(rf"\b{field.alias}\b", TEXT), field.alias


@pytest.mark.parametrize(
    "name", ["metric", "size", "in", "startsWith", "endsWith", "contains", "nonEmpty", "glob", "decLE", "decGE"]
)
def test_functions_named_exist(name: str) -> None:
    from mlseal.evidence.predicates import SHORT

    call = {
        "metric": 'p.metric("x").ciHigh < 1.0',
        "size": "size(p.groups) > 1",
        "in": "p.n in [1]",
        "nonEmpty": "nonEmpty(p.groups)",
        "decLE": 'decLE(p.outcome, "1")',
        "decGE": 'decGE(p.outcome, "1")',
    }.get(name, f'p.outcome.{name}("x")')
    assert compile_condition(call, SHORT["fairness"])
    assert name in TEXT
