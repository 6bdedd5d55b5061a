"""The ready packs, weakened one thing at a time: a control of the pack notices each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from mlseal.policy import controls, plainyaml
from mlseal.policy.building import Builder
from mlseal.policy.packs import filling, training
from mlseal.policy.schema import Control, Controls, PolicyPart
from tests.unit.policy.test_shipped import mutants

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
Variant = tuple[str, str]
"""A pack, and the stage that trains the models it is for."""
VARIANTS: list[Variant] = [
    (name, stage)
    for stage in (training.RUN, *training.TRAINERS)
    for name in sorted(filling.names(), key=lambda name: name != "general")
]


@cache
def shipped(variant: Variant) -> tuple[Control, ...]:
    text = filling.text_of(*variant)[1]
    return tuple(Controls.model_validate(plainyaml.parse(text.encode(), "controls").value).tests)


@cache
def document(variant: Variant) -> dict[str, Any]:
    value: dict[str, Any] = plainyaml.parse(filling.text_of(*variant)[0].encode(), variant[0]).value
    return value


def noticed(variant: Variant, what: str, mutant: dict[str, Any]) -> bool:
    """Whether a control of the pack fails for `mutant`; those about what was changed are tried first."""
    part = PolicyPart.model_validate(mutant)
    policy = Builder(variant[0], plainyaml.Document(mutant, {}), part, None).build(b"")  # as the loader, YAML apart
    ordered = sorted(
        shipped(variant), key=lambda control: (control.expect == "allowed", (control.rule or "?") not in what)
    )
    # Without `where` nothing more is let through: another attack's result lacks the metric. The good case says so.
    silent = set() if what.endswith((" where", "no revokers")) else {"allowed"}
    failed = (one for one in controls.run(policy, tuple(ordered), now=NOW) if not one.passed)
    return any(one.expected not in silent for one in failed)


@cache
def first_to_ask() -> list[tuple[dict[str, Any], Variant]]:
    """Each requirement, without what only people read, and where it is weakened: in the first pack that states it."""
    found: list[tuple[dict[str, Any], Variant]] = []
    for variant in VARIANTS:
        for part in map(judged, document(variant)["require"]):
            if part not in [known for known, _ in found]:
                found.append((part, variant))
    return found


@cache
def own_parts(variant: Variant) -> set[str]:
    """Requirements, and their conditions, that no pack before this one states alike."""
    own = [part for part, first in first_to_ask() if first == variant]
    return set().union(*map(ids, own))


def ids(part: dict[str, Any]) -> set[str]:
    return {part.get("id", part["predicate"]), *(c["id"] for c in part.get("when", ()))}


def judged(part: dict[str, Any]) -> dict[str, Any]:
    """A requirement without what only people read."""
    return {key: value for key, value in part.items() if key not in {"control", "remedy"}}


def weakenings() -> Iterator[tuple[Variant, str, list[tuple[str, dict[str, Any]]]]]:
    """For each requirement or condition of a pack that none before it states alike: each thing taken off it, as a policy."""
    for variant in VARIANTS:
        by_requirement: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for what, mutant in mutants(document(variant)):
            name = re.split(r"[ :]", what.removeprefix("no "))[0]
            if name in own_parts(variant) or variant == VARIANTS[0]:
                by_requirement.setdefault(name, []).append((what, mutant))
        yield from ((variant, part, made) for part, made in by_requirement.items())


WEAKENED = list(weakenings())


@pytest.mark.parametrize(
    ("variant", "made"), [pytest.param(v, made, id=f"{'-'.join(v)}-{part}") for v, part, made in WEAKENED]
)
def test_whatever_is_weakened_is_noticed(variant: Variant, made: list[tuple[str, dict[str, Any]]]) -> None:
    assert [what for what, mutant in made if not noticed(variant, what, mutant)] == []


def test_every_rule_of_a_variant_is_weakened_somewhere() -> None:
    """So that the table of what is weakened where cannot grow thin unseen."""
    weakened = {(what, variant[1]) for variant, _, made in WEAKENED for what, _ in made}
    for wanted in ("no dp-training", "dp-training by anyone", "dp-training maxAge", "builder: off", "epsilon: off"):
        assert (wanted, "training.dp") in weakened
    for wanted in ("delta: off", "person: off", "purpose: off", "training-data of", "poisoning of", "validation of"):
        assert (wanted, "training.dp") in weakened
    for wanted in ("no federated-training", "apart: off", "builder: off", "purpose: off", "personal-data of"):
        assert (wanted, "training.federated") in weakened


@pytest.mark.parametrize("variant", VARIANTS[1:], ids="-".join)
def test_what_is_the_same_rule_has_the_same_controls(variant: Variant) -> None:
    own = {control.name: control for control in shipped(variant)}
    for part in map(judged, document(variant)["require"]):
        first = next(where for known, where in first_to_ask() if known == part)
        for control in shipped(first):
            if control.rule in ids(part):
                assert own[control.name] == control
