"""The ready packs, weakened one thing at a time: a control of the pack notices each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mlseal.policy import controls, plainyaml
from mlseal.policy.building import Builder
from mlseal.policy.load import load
from mlseal.policy.packs import filling
from mlseal.policy.schema import Control, PolicyPart
from tests.unit.policy.test_shipped import mutants

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
FOLDER = Path(filling.__file__).parent
PACKS = filling.names()


@cache
def shipped(name: str) -> tuple[Control, ...]:
    file = FOLDER / f"{name}.yaml"
    return controls.tests_of(load(file), file)


@cache
def document(name: str) -> dict[str, Any]:
    value: dict[str, Any] = plainyaml.parse(filling.text_of(name)[0].encode(), name).value
    return value


def noticed(name: str, what: str, mutant: dict[str, Any]) -> bool:
    """Whether a control of the pack fails for `mutant`; those about what was changed are tried first."""
    part = PolicyPart.model_validate(mutant)
    policy = Builder(name, plainyaml.Document(mutant, {}), part, None).build(b"")  # as the loader, YAML apart
    ordered = sorted(
        shipped(name), key=lambda control: (control.expect == "allowed", (control.rule or "?") not in what)
    )
    # Without `where` nothing more is let through: another attack's result lacks the metric. The good case says so.
    silent = set() if what.endswith((" where", "no revokers")) else {"allowed"}
    failed = (one for one in controls.run(policy, tuple(ordered), now=NOW) if not one.passed)
    return any(one.expected not in silent for one in failed)


@cache
def own_parts(name: str) -> set[str]:
    """Requirements that a pack states otherwise than the general one, and their conditions; what is the same is tried there."""
    general = [] if name == "general" else [judged(part) for part in document("general")["require"]]
    own = [part for part in document(name)["require"] if judged(part) not in general]
    return {part.get("id", part["predicate"]) for part in own} | {c["id"] for part in own for c in part.get("when", ())}


def judged(part: dict[str, Any]) -> dict[str, Any]:
    """A requirement without what only people read."""
    return {key: value for key, value in part.items() if key != "control"}


def cases() -> Iterator[Any]:
    for name in PACKS:
        by_requirement: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for what, mutant in mutants(document(name)):
            if name != "general" and re.split(r"[ :]", what.removeprefix("no "))[0] not in own_parts(name):
                continue
            by_requirement.setdefault(re.split(r"[ :]", what.removeprefix("no "))[0], []).append((what, mutant))
        for part, made in by_requirement.items():
            yield pytest.param(name, made, id=f"{name}-{part}")


@pytest.mark.parametrize(("name", "made"), list(cases()))
def test_whatever_is_weakened_is_noticed(name: str, made: list[tuple[str, dict[str, Any]]]) -> None:
    assert [what for what, mutant in made if not noticed(name, what, mutant)] == []


@pytest.mark.parametrize("name", [name for name in PACKS if name != "general"])
def test_what_is_the_same_rule_has_the_same_controls(name: str) -> None:
    own = {control.name: control for control in shipped(name)}
    for control in shipped("general"):
        if control.rule is not None and control.rule not in own_parts(name):
            assert own[control.name] == control
