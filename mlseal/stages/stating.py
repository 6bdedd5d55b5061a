"""A finding and what the runner knows → a statement, in the shape that the evidence type has for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from mlseal.errors import Misuse, RuleBroken
from mlseal.evidence import predicates, statement
from mlseal.evidence.digest import Measured, Subject
from mlseal.evidence.planning import Privacy
from mlseal.evidence.predicates import slsa_provenance, test_result
from mlseal.evidence.predicates.base import Measurement, Preflight, Spent
from mlseal.evidence.statement import Statement
from mlseal.stages.base import Context, Finding
from mlseal.stages.registry import Registered


def state(
    registered: Registered,
    finding: Finding,
    measured: Mapping[str, Measured],
    context: Context,
    cleared: Preflight | None,
) -> Statement:
    """The statement of `finding`, checked against its own schema. Raises `MalformedEvidence` or `Misuse`."""
    stage = registered.stage
    fields = _fields(registered, finding, context, cleared)
    predicates.check(stage.predicate_type, fields)
    subjects: list[Subject] = []
    for name in finding.subjects:
        if name not in measured:
            raise Misuse(f"stage {stage.name} names a subject {name!r} that is neither input nor output")
        taken = {subject.name for subject in subjects}
        # Pipelines call files by their port, so an input and an output may be called alike; a statement has no two.
        subjects += [Subject(f"{s.name} ({name})", s.sha256) if s.name in taken else s for s in measured[name].subjects]
    return statement.make(subjects, stage.predicate_type, fields, names=context.naming)


def settle(cleared: Preflight | None, finding: Finding, reserved: Privacy | None) -> Preflight | None:
    """What the evidence says of the reservation: all of it was spent, or what the stage says.

    Raises `RuleBroken` when that is more; what was reserved stays spent then.
    """
    if cleared is None or cleared.reservation is None or reserved is None:
        return cleared
    spent = finding.spent or reserved
    within = Decimal(spent.epsilon) <= Decimal(reserved.epsilon) and Decimal(spent.delta) <= Decimal(reserved.delta)
    if not within or spent.unit.casefold() != reserved.unit.casefold():
        raise RuleBroken(
            "the stage gave away more privacy than was reserved for it",
            got=f"epsilon {spent.epsilon}, delta {spent.delta}, for each {spent.unit}",
            expected=f"at most epsilon {reserved.epsilon}, delta {reserved.delta}, for each {reserved.unit}",
            remedy="throw the output away; what was reserved counts as spent",
        )
    return cleared.model_copy(update={"spent": Spent(epsilon=spent.epsilon, delta=spent.delta)})


def _fields(registered: Registered, finding: Finding, context: Context, cleared: Preflight | None) -> dict[str, Any]:
    uri, fields = registered.stage.predicate_type, dict(finding.fields)
    harness = context.harness(finding.libraries).to_json()
    # We vouch for our own measuring only; a policy that trusts a provider's asks for `declared` and names it.
    strength = "declared" if registered.foreign else finding.strength
    seed = {} if finding.seed is None else {"seed": finding.seed}
    judged = {} if cleared is None else {"preflight": cleared.to_json()}
    if issubclass(predicates.MODELS[uri], Measurement):
        times = {"startedOn": context.started_on, "finishedOn": context.now()}
        said = {
            "harness": harness,
            "strength": strength,
            "runId": context.run_id,
            "notProven": list(dict.fromkeys((*registered.stage.not_proven, *finding.not_proven))),
        }
        return {**fields, **said, **times, **seed, **judged}
    if uri == test_result.URI:
        about = {"version": harness["version"], "provider": harness["provider"], "strength": strength}
        configuration = {
            "name": harness["name"],
            "digest": {"sha256": harness["configDigest"]},
            "annotations": {**about, "runId": context.run_id, **seed, **_annotated(cleared)},
        }
        parts = context.harness_base.partials
        merged = [_partials(parts)] if parts else []
        return {**fields, "configuration": [*fields.get("configuration", []), *merged, configuration]}
    if registered.foreign:
        raise Misuse(
            f"stage {registered.stage.name} makes evidence that cannot name its provider",
            got=uri,
            expected="a measurement or a test-result",
        )
    return {**fields, **judged} if uri == slsa_provenance.URI else fields


def _partials(evidence_ids: Sequence[str]) -> dict[str, Any]:
    """The parts that were merged, in order, in a type that has no harness."""
    count = len(evidence_ids)
    named = {f"{index}/{count}": evidence_id for index, evidence_id in enumerate(evidence_ids, 1)}
    return {"name": "partials", "annotations": named}


def _annotated(cleared: Preflight | None) -> dict[str, str]:
    """The verdict in a type whose format is not ours: annotations hold texts and numbers only."""
    if cleared is None:
        return {}
    return {"preflight": cleared.verdict, **({"purpose": cleared.purpose} if cleared.purpose else {})}
