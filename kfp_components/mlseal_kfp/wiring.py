"""How the tasks of a compiled pipeline hang together: who makes what, who waits for whom, what may be skipped.

A loop, a condition and a nested pipeline are DAGs of their own, so a wire may pass several boundaries. `Wiring.source`
follows it inward and outward to the one executor that makes the value; where it cannot (a pipeline input, a constant,
one of several branches, a name that resolves to nothing) it answers None, and the rules treat that as "not proven".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlseal_kfp.compiled import Compiled, TaskNode

_DEPTH = 64
"""Boundaries that one wire may pass; a deeper file is a cycle."""
_TASK_OUTPUT = {
    "artifacts": ("taskOutputArtifact", "outputArtifactKey"),
    "parameters": ("taskOutputParameter", "outputParameterKey"),
}
_COMPONENT_INPUT = {"artifacts": "componentInputArtifact", "parameters": "componentInputParameter"}
KINDS = ("artifacts", "parameters")


@dataclass(frozen=True)
class Source:
    """An output of one task that starts an executor."""

    task: TaskNode
    output: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two sources the same."""
        return self.task.dag, self.task.name, self.output


class Wiring:
    """Questions about one compiled pipeline. Nothing is assumed to resolve."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled

    @cached_property
    def _tasks(self) -> dict[tuple[str, str], TaskNode]:
        return {(task.dag, task.name): task for task in self.compiled.tasks()}

    @cached_property
    def _callers(self) -> dict[str, list[TaskNode]]:
        found: dict[str, list[TaskNode]] = {}
        for task in self._tasks.values():
            found.setdefault(task.component, []).append(task)
        return found

    def source(self, task: TaskNode, kind: str, name: str, depth: int = _DEPTH) -> Source | None:
        """The executor's output that reaches input `name` of `task`, or None."""
        if depth == 0:
            return None
        wire = task.input(kind, name)
        inner = wire.get(_COMPONENT_INPUT[kind])
        if isinstance(inner, str):
            found = [self.source(caller, kind, inner, depth - 1) for caller in self._callers.get(task.dag, ())]
            agreed = {source.key for source in found if source is not None}
            return found[0] if found and None not in found and len(agreed) == 1 else None
        direct = _direct(wire, kind)
        return self._leaf(task.dag, *direct, kind, depth - 1) if direct else None

    def _leaf(self, dag: str, name: str, output: str, kind: str, depth: int) -> Source | None:
        """The executor's output behind `output` of task `name`, looked into if that task is a DAG."""
        task = self._tasks.get((dag, name))
        component = self.compiled.components.get(task.component) if task else None
        if task is None or not isinstance(component, dict) or depth <= 0:
            return None
        if "dag" not in component:
            return Source(task, output)
        inner = _selected(component["dag"], output, kind)
        return self._leaf(task.component, *inner, kind, depth - 1) if inner else None

    def same(self, one: TaskNode, other: TaskNode, kind: str, name: str) -> bool:
        """Whether input `name` of two tasks is fed by the same thing (or by nothing in both)."""
        first, second = self.source(one, kind, name), self.source(other, kind, name)
        if first is not None and second is not None:
            return first.key == second.key
        return one.dag == other.dag and one.input(kind, name) == other.input(kind, name)

    def dangling(self) -> Iterator[tuple[str, str]]:
        """(where, message) of every name that refers to nothing. kfp and the back end accept such a file."""
        for name, component in self.compiled.components.items():
            if isinstance(component, dict) and "dag" not in component:
                label = component.get("executorLabel")
                if label not in self.compiled.executors:
                    yield name, f"executor {label!r} does not exist"
        for task in self.compiled.tasks():
            yield from self._dangling_of(task)

    def _dangling_of(self, task: TaskNode) -> Iterator[tuple[str, str]]:
        if task.component not in self.compiled.components:
            yield task.where, f"component {task.component!r} does not exist"
        for upstream in task.spec.get("dependentTasks") or ():
            if (task.dag, upstream) not in self._tasks:
                yield task.where, f"waits for the unknown task {upstream!r}"
        for kind in KINDS:
            for name in task.inputs(kind):
                direct = _direct(task.input(kind, name), kind)
                if direct is not None and not self._makes(task.dag, *direct, kind):
                    yield task.where, f"input {name!r} comes from {direct[0]}.{direct[1]}, which does not exist"

    def _makes(self, dag: str, name: str, output: str, kind: str) -> bool:
        producer = self._tasks.get((dag, name))
        component = self.compiled.components.get(producer.component) if producer else None
        outputs = component.get("outputDefinitions") or {} if isinstance(component, dict) else {}
        return output in (outputs.get(kind) or {})

    def upstream(self, task: TaskNode) -> set[str]:
        """Names of the tasks of the same DAG that must have succeeded before `task` starts."""
        found: set[str] = set()
        waiting = [task]
        while waiting:
            for name in self._waits_for(waiting.pop()) - found:
                found.add(name)
                if (known := self._tasks.get((task.dag, name))) is not None:
                    waiting.append(known)
        return found

    def _waits_for(self, task: TaskNode) -> set[str]:
        if (task.spec.get("triggerPolicy") or {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
            return set()  # it waits, but not for success
        wires = (_direct(task.input(kind, name), kind) for kind in KINDS for name in task.inputs(kind))
        return {wire[0] for wire in wires if wire} | {str(name) for name in task.spec.get("dependentTasks") or ()}

    def after_enforce(self, task: TaskNode, depth: int = _DEPTH) -> bool:
        """Whether an enforce must have passed before `task` starts, in its own DAG or before the DAG that holds it."""
        for name in self.upstream(task):
            known = self._tasks.get((task.dag, name))
            if known is not None and self.compiled.stage_of(known) == "enforce":
                return True
        callers = self._callers.get(task.dag, ()) if depth else ()
        return bool(callers) and all(self.after_enforce(caller, depth - 1) for caller in callers)

    def is_optional(self, dag: str, depth: int = _DEPTH) -> bool:
        """Whether everything in `dag` may be skipped: a condition or a loop stands somewhere above it."""
        if depth == 0:
            return True
        return any(
            (caller.spec.get("triggerPolicy") or {}).get("condition")
            or not {"parameterIterator", "artifactIterator"}.isdisjoint(caller.spec)
            or self.is_optional(caller.dag, depth - 1)
            for caller in self._callers.get(dag, ())
        )

    def reads(self, task: TaskNode, stages: tuple[str, ...]) -> bool:
        """Whether an input of `task` is made by one of `stages`."""
        sources = (self.source(task, kind, name) for kind in KINDS for name in task.inputs(kind))
        return any(source is not None and self.compiled.stage_of(source.task) in stages for source in sources)


def _direct(wire: Mapping[str, Any], kind: str) -> tuple[str, str] | None:
    field, key = _TASK_OUTPUT[kind]
    output = wire.get(field)
    if not isinstance(output, dict):
        return None
    return str(output.get("producerTask", "")), str(output.get(key, ""))


def _selected(dag: Mapping[str, Any], output: str, kind: str) -> tuple[str, str] | None:
    """(task, output) inside `dag` that is its `output`; None for one of several branches."""
    chosen = ((dag.get("outputs") or {}).get(kind) or {}).get(output) or {}
    if kind == "artifacts":
        selectors = chosen.get("artifactSelectors") or []
        if len(selectors) != 1:
            return None
        return str(selectors[0].get("producerSubtask", "")), str(selectors[0].get("outputArtifactKey", ""))
    value = chosen.get("valueFromParameter")
    if not isinstance(value, dict):
        return None
    return str(value.get("producerSubtask", "")), str(value.get("outputParameterKey", ""))
