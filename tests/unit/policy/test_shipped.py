"""The policies that ship: each passes its own controls, and none of its rules can be switched off unnoticed."""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlseal.cli import main
from mlseal.policy import controls, plainyaml
from mlseal.policy.load import load, parse
from mlseal.policy.schema import Control
from mlseal.services import starter_policy

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DEMO = Path(__file__).parents[3] / "examples" / "demo" / "policies"
NAMES = ("starter", *sorted(file.stem for file in DEMO.glob("*.yaml")))
_BEFORE_LOOP = re.compile(r"^.*\.exists\(\w+, ")
STRANGER = {"issuer": "https://stranger.example", "san": "https://stranger.example/someone"}
# Read by people and frameworks, by `policy lint`, or by nothing that evidence can imagine: see docs/policy.md.
NOT_JUDGED = {"predicate", "id", "input", "control", "remedy", "by", "of", "when", "assurance"}

Document = dict[str, Any]


def text(name: str) -> str:
    return starter_policy.text("lab.example") if name == "starter" else (DEMO / f"{name}.yaml").read_text()


def place(name: str, folder: Path) -> Path:
    """The policy as it ships, its controls beside it."""
    if name != "starter":
        return DEMO / f"{name}.yaml"
    (folder / "starter.yaml").write_text(text(name))
    (folder / "starter.tests").mkdir()
    (folder / "starter.tests" / "controls.yaml").write_text(starter_policy.controls("lab.example"))
    return folder / "starter.yaml"


def without(document: Document, gone: Document) -> None:
    """Take a requirement out, and what other requirements say of it."""
    name = gone.get("id", gone["predicate"])
    document["require"].remove(gone)
    for other in document["require"]:
        if other.get("of") == name:
            del other["of"]
            other.pop("input", None)
        if name in other.get("reviewed", ()):
            other["reviewed"].remove(name)
            if not other["reviewed"]:
                del other["reviewed"]


def mutants(document: Document) -> Iterator[tuple[str, Document]]:
    """Copies of a policy with one thing off in each: a requirement, a signer, an age, a condition, half a condition."""

    def copy_with(change: Callable[[Document], object]) -> Document:
        made = copy.deepcopy(document)
        change(made)
        return made

    yield "revocationMaxAge", copy_with(lambda d: d.update(revocationMaxAge="52w"))
    yield "no revokers", copy_with(lambda d: d.pop("revokers"))
    for i, part in enumerate(document["require"]):
        name = part.get("id", part["predicate"])
        if len(document["require"]) > 1:
            yield f"no {name}", copy_with(lambda d, i=i: without(d, d["require"][i]))
        yield f"{name} by anyone", copy_with(lambda d, i=i: d["require"][i]["by"].append(STRANGER))
        if "of" in part:
            yield f"{name} of", copy_with(lambda d, i=i: [d["require"][i].pop(key, None) for key in ("of", "input")])
        if part.get("distinct", 1) > 1:
            yield f"{name} distinct", copy_with(lambda d, i=i: d["require"][i].update(distinct=1))
        for key in sorted(set(part) - NOT_JUDGED - {"distinct"}):
            yield f"{name} {key}", copy_with(lambda d, i=i, key=key: d["require"][i].pop(key))
        for n, rule in enumerate(part.get("when", ())):
            yield f"{rule['id']}: off", copy_with(lambda d, i=i, n=n: without_rule(d["require"][i], n))
            for comparison in comparisons(rule["check"]):
                check = rule["check"].replace(comparison, "1 == 1", 1)
                yield (
                    f"{rule['id']}: any {comparison}",
                    copy_with(lambda d, i=i, n=n, check=check: d["require"][i]["when"][n].update(check=check)),
                )


def without_rule(requirement: Document, n: int) -> None:
    del requirement["when"][n]
    if not requirement["when"]:
        del requirement["when"]


def comparisons(check: str) -> list[str]:
    """The comparisons of a condition that has several: what stands between `&&`, `||` and the brackets around them.

    ``has(…)`` is left out: it guards a comparison, which could not be loaded without it.
    """
    parts = [_BEFORE_LOOP.sub("", part.strip()).lstrip("( ") for part in check.replace("||", "&&").split("&&")]
    parts = [part if part.count("(") == part.count(")") else part.rstrip(") ") for part in parts]
    return [part for part in dict.fromkeys(parts) if not part.startswith("has(")] if len(parts) > 1 else []


@cache
def shipped_controls(name: str) -> tuple[Control, ...]:
    """Read once: they do not change, only the policy does."""
    with tempfile.TemporaryDirectory() as folder:
        file = place(name, Path(folder))
        return controls.tests_of(load(file), file)


def read(name: str) -> Document:
    value: Document = plainyaml.parse(text(name).encode(), name).value
    return value


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_passes_and_every_rule_has_a_control(name: str, tmp_path: Path) -> None:
    file = place(name, tmp_path)
    done = CliRunner().invoke(main, ["policy", "test", str(file)])
    assert done.exit_code == 0, done.output
    policy = load(file)
    named = {control.rule for control in controls.tests_of(policy, file)}
    wanted = {requirement.id for requirement in policy.require}
    wanted |= {rule.id for requirement in policy.require for rule in requirement.rules}
    assert named >= wanted | {"revocations"}


CASES = [(name, what, mutant) for name in NAMES for what, mutant in mutants(read(name))]


@pytest.mark.parametrize(("name", "what", "mutant"), CASES, ids=[f"{name}-{what}" for name, what, _ in CASES])
def test_a_rule_switched_off_is_noticed(name: str, what: str, mutant: Document) -> None:
    policy = parse(json.dumps(mutant).encode(), name=name)
    failed = {
        outcome.expected for outcome in controls.run(policy, shipped_controls(name), now=NOW) if not outcome.passed
    }
    # Without revokers nothing is allowed any more, and the good case says so; all else lets something through.
    assert "allowed" in failed if what == "no revokers" else failed - {"allowed"}


def test_there_are_mutants_of_every_kind() -> None:
    kinds = {what for _, what, _ in CASES}
    assert {"no fairness", "fairness by anyone", "fairness strength", "fairness maxAge", "gap: off"} <= kinds
    assert {"human-approval reviewed", "source-verification of", "data-provenance by anyone"} <= kinds
    assert {"measured-data of", "measured-data by anyone", "measured-data maxAge"} <= kinds
    assert len([what for what in kinds if what.startswith("question: any")]) == 13
    assert len([what for what in kinds if what.startswith("enough: any")]) == 3


def test_the_command_fails_for_a_mutant(tmp_path: Path) -> None:
    file = place("starter", tmp_path)
    file.write_text(file.read_text().replace("    strength: measured\n", ""))
    done = CliRunner().invoke(main, ["policy", "test", str(file)])
    assert done.exit_code == 10
    assert "FAILED starter/1: declared only" in done.output
