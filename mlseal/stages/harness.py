"""Who measures with which configuration on which inputs.

What a measurement records, the key of evidence reuse, and what whoever judges the run before it starts is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal

from mlseal.evidence import canonical
from mlseal.evidence.digest import Measured
from mlseal.evidence.identity import Identity
from mlseal.evidence.planning import Plan, Privacy
from mlseal.evidence.predicates.base import Harness
from mlseal.stages.arguments import Arguments
from mlseal.stages.base import Bounds, Stage
from mlseal.stages.registry import Registered


def harness_of(registered: Registered, parsed: Arguments, measured: Mapping[str, Measured]) -> Harness:
    """Who measures with which configuration on which inputs: with the signer, the key of evidence reuse."""
    inputs = {name: one.sha256 for name, one in measured.items()}
    read = canonical.dumps({"inputs": inputs, "seed": str(parsed.values.get("seed", ""))})
    return Harness(
        name=registered.stage.name,
        version=registered.version,
        provider=registered.provider,
        config_digest=hashlib.sha256(parsed.configuration).hexdigest(),
        inputs_digest=hashlib.sha256(read).hexdigest(),
    )


def plan_of(
    stage: Stage, parsed: Arguments, measured: Mapping[str, Measured], *, by: Identity, purpose: str | None, run_id: str
) -> Plan:
    """What is about to run. Raises `Misuse` when a bound of privacy is no decimal number."""
    kept = stage.releases if stage.releases == "digests" else kept_by(stage, parsed)
    return Plan(stage.name, purpose, by, measured, _kinds(stage), kept, run_id, stage.predicate_type)


def kept_by(stage: Stage, parsed: Arguments) -> Privacy | None:
    """The privacy that this run of `stage` will keep, from its arguments; None where nothing bounds it."""
    releases = stage.releases
    if not isinstance(releases, Bounds):
        return None
    named = (parsed.values.get(name) for name in (releases.epsilon, releases.delta, releases.unit))
    epsilon, delta, unit = ("" if value is None else _decimal(value) for value in named)
    return Privacy(epsilon, delta or "0", unit)


def _kinds(stage: Stage) -> dict[str, str]:
    return {parameter.name: parameter.kind for parameter in stage.parameters if parameter.role == "output"}


def _decimal(value: object) -> str:
    """A number as the shortest decimal that reads back as the same float, never with an exponent; a text as it is."""
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
