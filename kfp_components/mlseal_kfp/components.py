"""Components for pipeline authors, generated from the interfaces of `mlseal_kfp.ports`.

    from mlseal_kfp import component, gate

    @dsl.pipeline(name="release")
    def release(...):
        fair = component("governance.fairness")(model=…, dataset=…)
        passed = gate(model=…, model_name="risk", evidence=[fair])
        deploy(model=…, model_sha256=passed.outputs["passed_sha256"])

Everything is a container component with a fixed argv, so that image digest and argv say which code runs. The image is a
placeholder here and is filled when the pipeline is compiled.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Sequence
from functools import cache
from typing import Any

from mlseal.errors import MissingExtra, Misuse
from mlseal_kfp import ports
from mlseal_kfp.compiled import EXECUTOR_INPUT, STEP_COMMAND, step_arguments
from mlseal_kfp.image import PLACEHOLDER
from mlseal_kfp.ports import EVIDENCE_PORTS, Interface, Port


@cache
def component(name: str) -> Any:
    """The KFP component of stage `name`, ``decide`` or ``enforce``.

    Raises `UnknownName` for a stage that is not registered and `MissingExtra` without kfp.
    """
    return build(ports.interface(name))


def build(interface: Interface) -> Any:
    """A `dsl.container_component` with exactly the ports of `interface`."""
    dsl = _dsl()

    def builder(*_: Any, **__: Any) -> Any:
        # KFP calls the builder positionally in signature order and looks at the container only.
        arguments = [
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER if part == EXECUTOR_INPUT else part
            for part in step_arguments(interface.stage, PLACEHOLDER)
        ]
        return dsl.ContainerSpec(image=PLACEHOLDER, command=list(STEP_COMMAND), args=arguments)

    builder.__name__ = interface.slug.replace("-", "_")
    builder.__doc__ = _docstring(interface)
    # Keyword-only, since a signature lets no required port follow an optional one.
    vars(builder)["__signature__"] = inspect.Signature([_parameter(dsl, port) for port in interface.ports])
    return dsl.container_component(builder)


def gate(
    *,
    model: Any,
    model_name: Any,
    evidence: Sequence[Any] = (),
    model_sha256: Any = "",
    policy: Any = None,
    known_evidence: Any = None,
    action: Any = "gate",
    workspace: Any = "default",
) -> Any:
    """Add decide and enforce to the pipeline being defined; returns the enforce task.

    What is to happen only after the gate takes ``passed_sha256`` of the returned task, or is put ``.after`` it. Neither
    task is cached, and both get this run's id.

    Args:
        model: the artifact to let pass.
        model_name: name that policies know.
        evidence: tasks of stages, or (bundle, digest) pairs of outputs; at most eight.
        model_sha256: digest that the model must have.
        policy: a policy as artifact, besides the administrator's.
        known_evidence: a directory of further bundles as artifact.
        action: what is asked for.
        workspace: where.

    Raises `Misuse` for more evidence than there are ports.
    """
    if len(evidence) > EVIDENCE_PORTS:
        raise Misuse(
            "too many evidence files for one gate",
            got=len(evidence),
            expected=f"at most {EVIDENCE_PORTS}",
            remedy="collect them in a loop, or pass a directory as known_evidence",
        )
    told: dict[str, Any] = {
        "model": model,
        "model_name": model_name,
        "model_sha256": model_sha256,
        "action": action,
        "workspace": workspace,
        "run_id": _dsl().PIPELINE_JOB_ID_PLACEHOLDER,
    }
    if policy is not None:
        told["policy"] = policy
    given: dict[str, Any] = {} if known_evidence is None else {"known_evidence": known_evidence}
    for number, item in enumerate(evidence, 1):
        bundle, digest = (
            item if isinstance(item, tuple) else (item.outputs["evidence"], item.outputs["evidence_sha256"])
        )
        given |= {f"evidence_{number}": bundle, f"evidence_{number}_sha256": digest}
    decide = component("decide")(**told, **given).set_caching_options(False)
    return component("enforce")(
        **told, verdict=decide.outputs["verdict"], verdict_sha256=decide.outputs["verdict_sha256"]
    ).set_caching_options(False)


def _parameter(dsl: Any, port: Port) -> inspect.Parameter:
    default = inspect.Parameter.empty if port.output or port.required else port.default
    return inspect.Parameter(
        port.name, inspect.Parameter.KEYWORD_ONLY, annotation=_annotation(dsl, port), default=default
    )


def _annotation(dsl: Any, port: Port) -> Any:
    if not port.is_artifact:
        return dsl.OutputPath(port.type) if port.output else port.type
    kind = getattr(dsl, str(port.type))
    if port.many:
        return dsl.Input[vars(typing)["List"][kind]]  # KFP knows this spelling of a list only
    return dsl.Output[kind] if port.output else dsl.Input[kind]


def _docstring(interface: Interface) -> str:
    lines = [interface.summary, "", "Args:"]
    lines += [f"    {port.name}: {port.help}" for port in interface.inputs()]
    lines += ["", "Returns:", *(f"    {port.name}: {port.help}" for port in interface.outputs())]
    return "\n".join(lines)


def _dsl() -> Any:
    try:
        from kfp import dsl
    except ImportError as error:
        raise MissingExtra(
            "kfp is needed and not installed", got=str(error), remedy="pip install 'mlseal[kfp]'"
        ) from error
    return dsl
