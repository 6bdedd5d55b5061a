"""The ports of a component, read from a stage's signature; the one list that generator, step and documentation share.

A stage's parameter becomes:

=========  ==================================================================================================
input      an artifact, and an optional text ``NAME_sha256``: given, the bytes must have that digest
output     an artifact, and a text ``NAME_sha256`` with the digest of what was made
value      a parameter of the same type, with the stage's default
=========  ==================================================================================================

Each stage also has ``evidence`` and ``evidence_sha256`` (the bundle it made), ``run_id``, ``purpose``, which data
policies are asked about, ``known_evidence``, a store of bundles that it may look things up in, and ``reuse``, unless
its answer holds for one moment only. A digest travels beside its file because the two take different ways: the file
through the object store, the text through the workflow engine.

A stage that runs in shards has ``shard``, ``merge`` and ``made_OUTPUT``. The last two need no digests beside them: a
part is believed for its signature, and what it made for the digest that stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from mlseal.errors import DuplicateName, Misuse
from mlseal.stages import registry
from mlseal.stages.base import Parameter, Stage

ArtifactType = Literal["Artifact", "Model", "Dataset"]
EVIDENCE_PORTS = 8
"""How many named evidence files one decide takes; more come collected from a loop, or in ``known_evidence``."""
IMAGE_PARAMETER = "image"
"""A stage's parameter of this name is no port: the step passes the image that the component was compiled with."""
GATES = ("decide", "enforce")

_ARTIFACT_TYPES: dict[str, ArtifactType] = {
    "model": "Model",
    "dataset": "Dataset",
    "file": "Artifact",
    "code": "Artifact",
}
_VALUE_TYPES: dict[str, type] = {"text": str, "integer": int, "number": float, "boolean": bool, "settings": dict}


@dataclass(frozen=True)
class Port:
    """One input or output of a component.

    Attributes:
        name: unique within the component.
        output: whether the component makes it.
        type: an artifact type by name, or the Python type of a parameter.
        required: whether it must be connected; outputs always exist.
        default: of an optional parameter; None for none.
        many: a list of artifacts (``dsl.Collected``).
        help: one line.
    """

    name: str
    type: ArtifactType | type
    help: str
    output: bool = False
    required: bool = False
    default: Any = None
    many: bool = False

    @property
    def is_artifact(self) -> bool:
        """Whether bytes travel through this port, and not a value."""
        return isinstance(self.type, str)


@dataclass(frozen=True)
class Interface:
    """A component: what it is called, what it does, its ports in order."""

    stage: str
    summary: str
    ports: tuple[Port, ...]

    @property
    def slug(self) -> str:
        """The name as KFP and files write it: ``governance-fairness``."""
        return self.stage.replace(".", "-").replace("_", "-")

    def inputs(self) -> Iterator[Port]:
        """The ports that are connected from outside."""
        return (port for port in self.ports if not port.output)

    def outputs(self) -> Iterator[Port]:
        """The ports that the component fills."""
        return (port for port in self.ports if port.output)

    def port(self, name: str) -> Port:
        """The port of that name. Raises `Misuse` if there is none."""
        for port in self.ports:
            if port.name == name:
                return port
        raise Misuse(f"component {self.slug} has no port {name!r}", expected=", ".join(p.name for p in self.ports))


def names() -> list[str]:
    """Every component: the gate's two halves and each stage of the registry."""
    return [*GATES, *registry.names()]


def interface(name: str) -> Interface:
    """The interface of the component `name`. Raises `UnknownName` for a stage that is not registered."""
    if name == "decide":
        return Interface(
            "decide", "Judge a model by its evidence; write the signed verdict, whatever it is.", tuple(_decide())
        )
    if name == "enforce":
        return Interface(
            "enforce", "Stop the run unless a signed verdict of this run allows exactly this model.", tuple(_enforce())
        )
    return of_stage(registry.load(name).stage)


def of_stage(stage: Stage) -> Interface:
    """The interface that follows from a stage's signature. Raises `DuplicateName` for a parameter of a fixed name."""
    ports = [port for parameter in stage.parameters for port in _ports_of(parameter)]
    ports += [
        Port("run_id", str, "Id of the run, kept in the evidence; pass dsl.PIPELINE_JOB_ID_PLACEHOLDER.", default=""),
        Port("purpose", str, "Why this runs, as the data policies of the inputs write it.", default=""),
        *_reuse(stage),
        *_sharding(stage),
        Port("known_evidence", "Artifact", "Directory of bundles that the stage may look things up in; untrusted."),
        Port("evidence", "Artifact", "The signed evidence, one Sigstore bundle.", output=True),
        Port("evidence_sha256", str, "SHA-256 of that file.", output=True),
    ]
    seen: set[str] = set()
    for port in ports:
        if port.name in seen:
            raise DuplicateName(
                f"stage {stage.name} has a parameter that every component has",
                got=port.name,
                remedy="give the stage's parameter another name",
            )
        seen.add(port.name)
    return Interface(stage.name, stage.summary, tuple(ports))


def _reuse(stage: Stage) -> Iterator[Port]:
    if stage.reusable is not None:
        text = "Take evidence that exists for the same bytes and settings, once it has verified, and do not run."
        yield Port("reuse", bool, text, default=False)


def _sharding(stage: Stage) -> Iterator[Port]:
    if stage.merge is None:
        return
    text = f"Part of {stage.merge.divides} to look at, such as 1/4; the evidence is partial then. Empty for all of it."
    yield Port("shard", str, text, default="")
    text = "Evidence of all parts, collected from a loop; it is merged, and nothing else is looked at."
    yield Port("merge", "Artifact", text, many=True)
    for output in (p for p in stage.parameters if p.role == "output"):
        text = f"What the parts made as {output.name}, collected alike."
        yield Port(f"made_{output.name}", _ARTIFACT_TYPES[output.kind], text, many=True)


def _ports_of(parameter: Parameter) -> Iterator[Port]:
    name, text = parameter.name, parameter.help or f"{parameter.kind} of the stage."
    if parameter.role == "value":
        if name != IMAGE_PARAMETER:
            yield Port(name, _VALUE_TYPES[parameter.kind], text, required=parameter.required, default=parameter.default)
        return
    output = parameter.role == "output"
    yield Port(name, _ARTIFACT_TYPES[parameter.kind], text, output=output, required=parameter.required)
    digest_help = f"SHA-256 of {name}." if output else f"SHA-256 that {name} must have; empty for any."
    yield Port(f"{name}_sha256", str, digest_help, output=output, default=None if output else "")


def _judged() -> Iterator[Port]:
    """What decide and enforce are both told, and must be told alike."""
    yield Port("model", "Artifact", "The model, or whatever else is to pass.", required=True)
    yield Port("model_sha256", str, "SHA-256 that it must have; empty for any.", default="")
    yield Port("model_name", str, "Name that policies know the model by.", required=True)
    yield Port("run_id", str, "Id of this run: dsl.PIPELINE_JOB_ID_PLACEHOLDER, nothing else.", required=True)
    yield Port("action", str, "What is asked for, as policies name it.", default="gate")
    yield Port("workspace", str, "Workspace that policies know.", default="default")
    yield Port("policy", "Artifact", "Policy file; the administrator's policy applies besides it, never instead.")


def _decide() -> Iterator[Port]:
    yield from _judged()
    for number in range(1, EVIDENCE_PORTS + 1):
        yield Port(f"evidence_{number}", "Artifact", "A bundle that an earlier task made.")
        yield Port(f"evidence_{number}_sha256", str, "Its SHA-256, from the task that made it.", default="")
    yield Port("collected", "Artifact", "Bundles collected from a loop.", many=True)
    yield Port("collected_sha256", list, "Their SHA-256, collected alike.", default=None)
    yield Port("known_evidence", "Artifact", "Directory of further bundles; untrusted.")
    yield Port(
        "verdict", "Artifact", "The signed verdict, a SLSA verification summary in a Sigstore bundle.", output=True
    )
    yield Port("verdict_sha256", str, "SHA-256 of that file.", output=True)


def _enforce() -> Iterator[Port]:
    yield from _judged()
    yield Port("verdict", "Artifact", "The verdict that decide signed.", required=True)
    yield Port("verdict_sha256", str, "Its SHA-256, from the same task.", required=True)
    yield Port("passed_sha256", str, "SHA-256 of what passed; give it to the task that deploys.", output=True)
