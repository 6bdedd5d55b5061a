"""Compiled pipelines as data: read strictly, named by content, walked without kfp.

A compiled file is one or two YAML documents, PipelineSpec and PlatformSpec. kfp's bytes differ from run to run (the
comments at the top follow PYTHONHASHSEED) and comments are never parsed, so neither takes part in anything here: the
name of a pipeline is the SHA-256 of the RFC 8785 bytes of its parsed documents.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mlseal.errors import MalformedEvidence, Misuse, Unreadable
from mlseal.evidence import canonical
from mlseal.evidence.bundle import write_atomic
from mlseal_kfp.image import PLACEHOLDER

STEP_COMMAND = ("python", "-m", "mlseal_kfp.step")
"""The command of every component of ours; with `step_arguments` the whole argv."""
EXECUTOR_INPUT = "{{$}}"
RUN_ID = "{{$.pipeline_job_uuid}}"
"""Placeholder that KFP replaces by the run's id; only as the whole value of a parameter."""
_MAX_BYTES = 8 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def step_arguments(stage: str, image: str) -> tuple[str, ...]:
    """The fixed arguments of a component. The image stands here too, since a process cannot know its own image."""
    return (stage, "--image", image, "--executor-input", EXECUTOR_INPUT)


@dataclass(frozen=True)
class Executor:
    """One entry of ``deploymentSpec.executors``."""

    label: str
    spec: Mapping[str, Any]

    @property
    def container(self) -> Mapping[str, Any] | None:
        """The container, or None for an importer."""
        value = self.spec.get("container")
        return value if isinstance(value, dict) else None

    @property
    def importer(self) -> Mapping[str, Any] | None:
        """The importer, or None for a container."""
        value = self.spec.get("importer")
        return value if isinstance(value, dict) else None

    @property
    def image(self) -> str:
        """The image reference; empty if there is none."""
        return str((self.container or {}).get("image", ""))

    @property
    def argv(self) -> tuple[str, ...]:
        """Command and arguments."""
        container = self.container or {}
        return tuple(str(part) for part in [*container.get("command", ()), *container.get("args", ())])

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the pipeline sets for this container."""
        entries = (self.container or {}).get("env", ())
        return {str(e.get("name", "")): str(e.get("value", "")) for e in entries if isinstance(e, dict)}

    @property
    def stage(self) -> str | None:
        """The step of ours that this executor starts, by its argv; None for anybody else's container."""
        argv = self.argv
        if argv[: len(STEP_COMMAND)] != STEP_COMMAND or len(argv) <= len(STEP_COMMAND):
            return None
        return argv[len(STEP_COMMAND)]

    @property
    def mentions_step(self) -> bool:
        """Whether our program occurs anywhere in the argv, exactly or not."""
        return any("mlseal_kfp" in part for part in self.argv)


@dataclass(frozen=True)
class TaskNode:
    """One task of one DAG. ``dag`` is ``root`` or the name of the component whose DAG holds it."""

    dag: str
    name: str
    spec: Mapping[str, Any]

    @property
    def component(self) -> str:
        """Name of the component that the task runs."""
        return str((self.spec.get("componentRef") or {}).get("name", ""))

    @property
    def where(self) -> str:
        """The task as messages name it."""
        return self.name if self.dag == "root" else f"{self.dag}/{self.name}"

    def input(self, kind: str, name: str) -> Mapping[str, Any]:
        """The wiring of input `name`; `kind` is ``artifacts`` or ``parameters``. Empty if it is not connected."""
        found = ((self.spec.get("inputs") or {}).get(kind) or {}).get(name)
        return found if isinstance(found, dict) else {}

    def inputs(self, kind: str) -> Mapping[str, Any]:
        """All wiring of one kind."""
        found = (self.spec.get("inputs") or {}).get(kind)
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Compiled:
    """The parsed documents of one compiled file."""

    documents: tuple[Mapping[str, Any], ...]

    @cached_property
    def pipeline(self) -> Mapping[str, Any]:
        """The PipelineSpec."""
        return self.documents[0]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str((self.pipeline.get("pipelineInfo") or {}).get("name", ""))

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the RFC 8785 bytes of the list of documents."""
        return hashlib.sha256(canonical.dumps(list(self.documents))).hexdigest()

    @cached_property
    def executors(self) -> dict[str, Executor]:
        """Every executor by label."""
        found = (self.pipeline.get("deploymentSpec") or {}).get("executors") or {}
        return {label: Executor(label, spec) for label, spec in found.items() if isinstance(spec, dict)}

    @cached_property
    def components(self) -> Mapping[str, Any]:
        """Every component by name."""
        found = self.pipeline.get("components")
        return found if isinstance(found, dict) else {}

    def executor_of(self, task: TaskNode) -> Executor | None:
        """The executor that `task` starts; None when it is a DAG or the reference does not resolve."""
        component = self.components.get(task.component)
        return self.executors.get(str(component.get("executorLabel"))) if isinstance(component, dict) else None

    def stage_of(self, task: TaskNode) -> str | None:
        """The step of ours that `task` runs."""
        executor = self.executor_of(task)
        return executor.stage if executor else None

    def dags(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(name, DAG) of the root and of every component that is a DAG."""
        parts = [("root", self.pipeline.get("root") or {}), *self.components.items()]
        for name, part in parts:
            if isinstance(part, dict) and isinstance(part.get("dag"), dict):
                yield name, part["dag"]

    def tasks(self) -> Iterator[TaskNode]:
        """Every task of every DAG."""
        for name, dag in self.dags():
            for task, spec in (dag.get("tasks") or {}).items():
                if isinstance(spec, dict):
                    yield TaskNode(name, task, spec)

    def with_image(self, image: str) -> Compiled:
        """A copy in which `image` stands wherever the placeholder stood, in executors and in their arguments."""
        return Compiled(tuple(_replaced(document, image) for document in self.documents))

    def to_yaml(self, header: Sequence[str] = ()) -> str:
        """The documents as YAML: sorted keys, the same bytes on every machine, `header` as comments."""
        comments = "".join(f"# {line}\n" for line in header)
        return comments + yaml.safe_dump_all([dict(d) for d in self.documents], sort_keys=True, width=120)

    def write(self, path: Path, header: Sequence[str] = ()) -> None:
        """Write the YAML to `path`, whole or not at all."""
        write_atomic(path, self.to_yaml(header).encode())


def read(path: Path) -> Compiled:
    """The compiled pipeline in a file. Raises `Unreadable`, `MalformedEvidence` or `Misuse`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot read {path}", got=error.strerror, remedy="check the path") from error
    if len(data) > _MAX_BYTES:
        raise Misuse(f"{path} is too large for a compiled pipeline", got=f"over {_MAX_BYTES} bytes")
    return parse(data, str(path))


def parse(data: bytes | str, what: str) -> Compiled:
    """The compiled pipeline in `data`.

    Raises `MalformedEvidence` for YAML with duplicate keys, tags, or values that JSON cannot hold, and `Misuse` for
    YAML that is no PipelineSpec.
    """
    try:
        documents = [d for d in yaml.load_all(data, Loader=_StrictLoader) if d is not None]
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEvidence(f"{what} is not strict YAML", got=str(error)[:200]) from error
    if not documents or len(documents) > 2 or not all(isinstance(d, dict) for d in documents):
        raise Misuse(
            f"{what} is not a compiled pipeline", expected="a PipelineSpec, optionally followed by a PlatformSpec"
        )
    if not {"pipelineInfo", "root", "deploymentSpec"} <= set(documents[0]):
        raise Misuse(
            f"{what} is not a compiled pipeline",
            expected="pipelineInfo, root and deploymentSpec",
            remedy="compile it: 'mlseal kfp compile FILE.py --image …'",
        )
    compiled = Compiled(tuple(documents))
    canonical.dumps(list(documents))
    for name in _names(compiled):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Misuse(
                f"{what} holds a name that is no plain name", got=str(name)[:80], expected="letters, digits, . _ -"
            )
    return compiled


def _names(compiled: Compiled) -> Iterator[Any]:
    """Every name that becomes part of a path."""
    yield compiled.name
    for name, component in compiled.components.items():
        yield name
        outputs = component.get("outputDefinitions") if isinstance(component, dict) else None
        for kind in ("artifacts", "parameters"):
            yield from (outputs or {}).get(kind) or ()


def _replaced(value: Any, image: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(entry, image) for key, entry in value.items()}
    if isinstance(value, list):
        return [_replaced(entry, image) for entry in value]
    return image if value == PLACEHOLDER else value


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without the freedoms that let two readers see two pipelines."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # PyYAML's signature
        keys = [key.value for key, _ in node.value]
        if len(set(keys)) != len(keys) or "<<" in keys:
            raise yaml.constructor.ConstructorError(None, None, "duplicate or merged key", node.start_mark)
        return super().construct_mapping(node, deep)
