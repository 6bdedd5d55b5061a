"""A stage as a step of a pipeline: ports → arguments → `mlseal.stages.runner` → ports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from mlseal.errors import Misuse
from mlseal.evidence.bundle import MEDIA_TYPE, Bundle
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import measure
from mlseal.evidence.signing import signer_for
from mlseal.policy import load
from mlseal.policy.preflight import Preflight
from mlseal.stages import registry, runner
from mlseal.stages.base import Parameter, Stage
from mlseal.stages.manner import PLAIN, Manner
from mlseal.stages.shard import Shard
from mlseal_kfp import image, surroundings
from mlseal_kfp.executor_input import Task
from mlseal_kfp.ports import IMAGE_PARAMETER
from mlseal_kfp.publishing import Outputs


def run(name: str, task: Task, outputs: Outputs, reference: str, *, clock: Clock = utcnow) -> None:
    """Run stage `name` on the artifacts and parameters of `task`; stage its outputs and evidence in `outputs`.

    Raises whatever the stage raises, `Unreadable` for an input that no task wrote, `DigestMismatch` for one that is not
    what was announced, `Misuse` for a parameter of another type, and what the preflight raises where an input's data
    policy does not allow this run (`mlseal.policy.preflight`; the policies in force here say who owns data).
    """
    stage = registry.load(name).stage
    trust = surroundings.trust()
    arguments = _inputs(stage, task) | _values(stage, task, reference)
    made = {p.name: outputs.stage(p.name) for p in stage.parameters if p.role == "output"}
    bundle_file = outputs.stage("evidence")
    with surroundings.store(task, trust, clock) as store:
        signer = signer_for(surroundings.role(), trust=trust, store=store, clock=clock)
        bundle = runner.run(
            name,
            arguments | {key: str(path) for key, path in made.items()},
            signer=signer,
            store=store,
            out=bundle_file,
            run_id=task.text("run_id") or None,
            clock=clock,
            reuse=surroundings.reuse(task),
            purpose=task.text("purpose") or None,
            preflight=Preflight(load.in_force(), clock),
            manner=_manner(stage, task),
        )
    for key, path in made.items():
        sha256 = measure(path).sha256
        outputs.value(f"{key}_sha256", sha256)
        outputs.describe(key, sha256=sha256)
    outputs.value("evidence_sha256", bundle.sha256)
    outputs.describe(
        "evidence", sha256=bundle.sha256, predicateType=bundle.statement.predicate_type, mediaType=MEDIA_TYPE
    )


def _inputs(stage: Stage, task: Task) -> dict[str, str]:
    found: dict[str, str] = {}
    for parameter in stage.parameters:
        if parameter.role != "input":
            continue
        artifact = task.artifact(parameter.name)
        if artifact is not None:
            if surroundings.announced(task, parameter.name):
                surroundings.measured(task, artifact)
            found[parameter.name] = str(artifact.require())
        elif surroundings.announced(task, parameter.name):
            raise Misuse(
                f"a digest is announced for input {parameter.name!r}, but the input is not connected",
                remedy="connect the artifact, or drop the digest",
            )
    return found


def _manner(stage: Stage, task: Task) -> Manner:
    """Which shard this step looks at, or the parts that it merges."""
    if stage.merge is None:
        return PLAIN
    outputs = [p.name for p in stage.parameters if p.role == "output"]
    return Manner(
        shard=Shard.parse(text) if (text := task.text("shard")) else None,
        partials=tuple(Bundle.read(artifact.require()) for artifact in task.inputs.get("merge", ())),
        made=tuple(one.require() for output in outputs for one in task.inputs.get(f"made_{output}", ())),
    )


def _values(stage: Stage, task: Task, reference: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for parameter in stage.parameters:
        if parameter.role != "value":
            continue
        if parameter.name == IMAGE_PARAMETER:
            # A host reference is no image, so a stage that records images learns of none.
            found[parameter.name] = "" if image.is_host(reference) else reference
        elif (value := task.parameters.get(parameter.name)) is not None:
            found[parameter.name] = as_text(parameter, value)
    return found


def as_text(parameter: Parameter, value: Any) -> str:
    """A KFP parameter value as the text that `mlseal.stages.arguments` parses.

    Back ends carry every number as a double, so ``3.0`` is an integer where the stage wants one; inside settings, whose
    values have no declared type, a whole number is written without its fraction. Raises `Misuse` for another type.
    """
    wanted = {
        "integer": "an integer",
        "number": "a finite number",
        "boolean": "true or false",
        "settings": "an object",
        "text": "text",
    }[parameter.kind]
    text = _TEXT[parameter.kind](value)
    if text is None:
        raise Misuse(f"parameter {parameter.name!r} has the wrong type", got=repr(value)[:80], expected=wanted)
    return text


def _whole(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        return None
    return str(int(value))


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return repr(value)


def _boolean(value: Any) -> str | None:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else None


def _settings(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return json.dumps({key: _shortest(entry) for key, entry in value.items()})


def _shortest(value: Any) -> Any:
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53
    return int(value) if whole else value


_TEXT: Mapping[str, Any] = {
    "integer": _whole,
    "number": _number,
    "boolean": _boolean,
    "settings": _settings,
    "text": lambda value: value if isinstance(value, str) else None,
}
