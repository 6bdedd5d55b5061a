"""What a refusal tells people to type can be typed, and mends what was refused."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest

from mlseal.evidence.clock import utcnow
from mlseal.evidence.predicates import SHORT
from mlseal.evidence.revocation import Revocations
from mlseal.policy import samples
from mlseal.policy.facts import Target
from mlseal.policy.gate import Action, decide
from mlseal.policy.load import parse
from mlseal.policy.names import canonical_facts
from mlseal.policy.remedies import STAGES, Hints, nearest, supersede
from mlseal.policy.schema import Applies
from mlseal.stages import registry
from tests.contracts import commands

INPUT = Target("data", samples.digest("data"))
SIGNERS = {
    "exact": "{issuer: https://oidc.example, san: producer}",
    "role": "{issuer: https://oidc.example, role: reviewer}",
    "role of a local authority": "{issuer: https://lab.example/issuer, san: https://lab.example/roles/producer}",
}


def requirement(header: str, short: str, by: str = "exact", more: str = ""):
    return parse(f"{header}  - {{predicate: {short}, by: [{SIGNERS[by]}]{more}}}\n".encode()).require[0]


def typed(remedy: str) -> list[str]:
    """The commands in a remedy, each without the words around it."""
    return re.findall(r"mlseal [a-z][^;]*?(?=;|, then | where DATASET| \(as |$)", remedy)


@pytest.mark.parametrize("short", sorted(SHORT))
@pytest.mark.parametrize("by", SIGNERS)
@pytest.mark.parametrize("target", [None, INPUT], ids=["subject", "input"])
def test_what_makes_evidence_can_be_typed(header, short, by, target) -> None:
    remedy = Hints("my model", "policy.yaml").produce(requirement(header, short, by), target)
    found = typed(remedy)
    assert found, remedy
    for command in found:
        assert commands.fault(command) is None
        words = shlex.split(command)
        if words[1] == "run":
            known = registry.load(words[2]).stage
            needed = {parameter.flag for parameter in known.parameters if parameter.required}
            assert needed <= set(words), f"{command} lacks what the stage requires"
    assert (INPUT.sha256 in remedy) == (target is not None)
    assert "'my model'" not in remedy or target is None, "evidence about an input is not about the model"


def stages_in(remedy: str) -> list[str]:
    return re.findall(r"mlseal run (\S+)", remedy)


OF_OLD = ["governance.fairness", "ingestion.pii", "monitoring.drift", "testing.code", "testing.evasion", "training.run"]
EVALUATIONS = ["testing.evasion", "testing.membership", "testing.hardening"]


@pytest.mark.parametrize(
    ("short", "more", "stages"),
    [
        ("security-evaluation", "where: 'p.kind == \"evasion\"'", ["testing.evasion"]),
        ("security-evaluation", "where: \"p.kind == 'membership-inference'\"", ["testing.membership"]),
        ("security-evaluation", "where: 'p.harness.name == \"testing.hardening\"'", ["testing.hardening"]),
        (
            "security-evaluation",
            "when: [{id: kind, message: m, check: 'p.kind == \"hardening\"'}]",
            ["testing.hardening"],
        ),
        (
            "security-evaluation",
            'where: \'p.kind == "evasion" || p.kind == "hardening"\'',
            ["testing.evasion", "testing.hardening"],
        ),
        ("security-evaluation", "strength: measured", EVALUATIONS),
        ("security-evaluation", "where: 'p.kind != \"evasion\"'", EVALUATIONS),
        ("security-evaluation", "where: 'p.harness.name == \"testing.mine\"'", []),
        (
            "test-result",
            "where: 'p.configuration.exists(c, has(c.name) && c.name == \"testing.model_file\")'",
            ["testing.model_file"],
        ),
        ("test-result", "where: 'p.result == \"PASSED\"'", []),
        ("fairness", "where: 'p.metrics.exists(m, m.name == \"recall\")'", ["governance.fairness"]),
    ],
)
def test_the_stage_that_the_conditions_ask_for_is_named(header, short, more, stages) -> None:
    """Where they leave it open, every stage that makes such evidence is; where none does, signing what a tool wrote."""
    remedy = Hints("model").produce(requirement(header, short, more=f", {more}"))
    assert stages_in(remedy) == stages
    assert ("mlseal sign" in remedy) == (not stages)


def test_every_stage_is_named_for_the_type_that_it_makes() -> None:
    made = {(SHORT[short], stage) for short, stages in STAGES.items() for stage in stages}
    assert made <= {(registry.load(name).stage.predicate_type, name) for name in registry.BUILTIN}
    assert {uri for uri, _ in made} >= {registry.load(name).stage.predicate_type for name in OF_OLD}


def test_provenance_of_what_exists_already_cannot_be_made(header) -> None:
    """Training into the path that is judged would be refused: it exists."""
    remedy = Hints("model").produce(requirement(header, "slsa-provenance"))
    assert "--out NEW" in remedy
    assert "--out model" not in remedy
    assert "judge NEW" in remedy


def test_a_policy_may_name_its_own_command(header) -> None:
    own = requirement(header, "fairness", more=", remedy: 'make measure MODEL={path}'")
    assert Hints("my model").produce(own) == "make measure MODEL='my model'"
    assert Hints("my model").produce(own, INPUT).startswith("make measure MODEL=DATASET where DATASET is data (sha256 ")


@pytest.mark.parametrize(
    "remedy",
    [
        Hints("m").approve(["ab" * 32], ()),
        Hints("m").approve([], (), INPUT),
        Hints("m").waive("gap", ()),
        Hints("m").waive("gap", (), INPUT),
        Hints("m").own(()),
        Hints("m").govern(Action("mlflow", "alias", {"model": "risk a"}).items),
        Hints("m").govern({}),
        supersede("ab" * 32, ()),
    ],
)
def test_what_people_are_asked_to_do_can_be_typed(remedy) -> None:
    found = typed(remedy)
    assert found
    assert [wrong for command in found if (wrong := commands.fault(command))] == []


def test_a_misspelt_action_is_shown_what_the_policies_cover_the_closest_first(header) -> None:
    written = parse((header + "  - {predicate: vulns, by: [{issuer: i, san: s}]}\n").encode())
    entries = [{"tool": "kfp", "action": "gate"}, {"tool": "mlflow", "action": "alias", "model": "risk-*"}]
    part = written.part.model_copy(update={"applies": [Applies.model_validate(one) for one in entries]})
    policy = replace(written, part=part)
    said = nearest([policy], canonical_facts(Action("mlflow", "alais", {"model": "other"})))
    assert said == "; theirs, the closest first: mlflow/alias model=risk-*, kfp/gate"
    assert nearest([policy], {}) == nearest([], {"tool": "t", "action": "a"}) == ""
    many = [Applies(tool="t", action=f"a{n}") for n in range(9)]
    policy = replace(written, part=written.part.model_copy(update={"applies": many}))
    assert nearest([policy], {"tool": "t", "action": "a8"}).endswith(" and 3 more")
    verdict = decide(
        samples.SampleSource((), Revocations()), Target("x", "0" * 64), Action("t", "a8"), (written,), now=utcnow()
    )
    assert "theirs, the closest first: " in verdict.summary()


def test_a_waiver_for_an_input_is_about_the_input() -> None:
    assert Hints("m").waive("gap", (), INPUT).startswith("mlseal waive DATASET ")
    assert INPUT.sha256 in Hints("m").approve([], (), INPUT)


def test_a_remedy_cannot_smuggle_a_second_command() -> None:
    remedy = Hints("m; rm -rf x").govern({"tool": "t", "action": "a", "model": "$(touch x)"})
    assert "'m; rm -rf x'" in remedy
    assert "'model=$(touch x)'" in remedy
