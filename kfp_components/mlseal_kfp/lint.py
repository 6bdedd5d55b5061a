"""What a reviewer would have to see in a compiled pipeline, checked by a program.

KFP accepts a file whose gate is cached, skipped by a condition, fed by another run or replaced by a line of shell. Each
rule below names one such way; `RULES` is the list that ``mlseal kfp lint --rules`` prints. A clean result says that the
file is wired as the components intend. It does not say that anything was enforced: a pipeline's author may edit the
file after the check, so what protects a model is the gate where the model is used (docs/kfp.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlseal.errors import Misuse
from mlseal_kfp import image as images
from mlseal_kfp.compiled import RUN_ID, STEP_COMMAND, Compiled, TaskNode, step_arguments
from mlseal_kfp.wiring import Wiring

RULES: dict[str, str] = {
    "reference": "every component, executor, task and output that is named exists",
    "image-digest": "every image is named by a digest; no placeholder, tag or made-up digest",
    "image-allowed": "every image is on the list given with --allow-image (when given)",
    "argv": "our steps are started by exactly the command and arguments that we release",
    "environment": "the pipeline sets no variable that changes trust, identity or the interpreter of our steps",
    "embedded-source": "no executor carries its program as text inside the pipeline",
    "cache": "decide and enforce are never served from the cache",
    "nonce": "decide and enforce get this run's id, as the whole value of run_id",
    "pair": "every decide is followed by an enforce over the same model, and every enforce checks one decide",
    "evidence": "every evidence file of decide comes with the digest that the same task reported",
    "conditional": "no condition or loop stands around enforce, and none asks about our outputs",
    "exit-task": "nothing is told to run whatever happened before it",
    "importer": "nothing is imported by an artifact id that hides changed bytes (reimport is on)",
    "required": "every stage given with --require is present and its evidence reaches a decide",
    "protected": "every task given with --protect runs only after an enforce has passed",
}
_GATES = ("decide", "enforce")
SHARED_PARAMETERS = ("action", "model_name", "workspace", "model_sha256")
"""What decide and enforce must be told alike."""
_FORBIDDEN_VARIABLES = ("MLSEAL_", "PYTHON", "LD_", "KUBERNETES_", "SIGSTORE_", "SSL_", "REQUESTS_", "CURL_")
_FORBIDDEN_NAMES = frozenset({"PATH", "HOME", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})


@dataclass(frozen=True)
class Problem:
    """One broken rule: where, what is wrong, what mends it."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class Demands:
    """What the caller asks for beyond the fixed rules."""

    allowed_images: frozenset[str] = frozenset()
    required_stages: tuple[str, ...] = ()
    protected_tasks: tuple[str, ...] = ()
    allow_source: bool = False
    allow_host: bool = False


def lint(compiled: Compiled, demands: Demands | None = None) -> list[Problem]:
    """Every problem of `compiled`, in the order of `RULES`; an empty list is a clean file.

    Raises `Misuse` when a demanded stage or task name is empty. Edge cases: a single component (one task, no pipeline
    around it) is judged by the rules about images and argv only, since its wiring is still to come.
    """
    demands = demands or Demands()
    if not all((*demands.required_stages, *demands.protected_tasks)):
        raise Misuse("an empty name was demanded", expected="the name of a stage or task")
    wiring = Wiring(compiled)
    checks = _COMPONENT_CHECKS if is_component(compiled) else _COMPONENT_CHECKS + _PIPELINE_CHECKS
    found = [problem for check in checks for problem in check(wiring, demands)]
    order = list(RULES)
    return sorted(found, key=lambda p: (order.index(p.rule), p.where))


def is_component(compiled: Compiled) -> bool:
    """Whether the file is one released component and not a pipeline: one task, and it has the pipeline's own name."""
    tasks = list(compiled.tasks())
    return len(tasks) == 1 and tasks[0].name == compiled.name and tasks[0].component == f"comp-{compiled.name}"


def _images(wiring: Wiring, demands: Demands) -> Iterator[Problem]:
    for executor in wiring.compiled.executors.values():
        if executor.container is None:
            continue
        try:
            if demands.allow_host:
                images.require(executor.image)
            else:
                images.require_deployable(executor.image)
        except Misuse as error:
            yield Problem("image-digest", executor.label, str(error))
        if demands.allowed_images and executor.image not in demands.allowed_images:
            yield Problem("image-allowed", executor.label, f"{executor.image} is not on the list of allowed images")


def _argv(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for executor in wiring.compiled.executors.values():
        if not executor.mentions_step:
            continue
        expected = (*STEP_COMMAND, *step_arguments(executor.stage or "STAGE", executor.image))
        if executor.argv != expected:
            yield Problem(
                "argv", executor.label, f"starts {' '.join(executor.argv)[:200]!r}; released is {' '.join(expected)!r}"
            )


def _environment(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for executor in wiring.compiled.executors.values():
        if not executor.mentions_step:
            continue
        for name in sorted(executor.environment):
            if forbidden_variable(name):
                yield Problem(
                    "environment",
                    executor.label,
                    f"sets {name}; leave it to the image or the administrator of the namespace",
                )


def forbidden_variable(name: str) -> bool:
    """Whether a pipeline may not set `name` for a step of ours."""
    upper = name.upper()
    return upper in _FORBIDDEN_NAMES or upper.startswith(_FORBIDDEN_VARIABLES)


def _source(wiring: Wiring, demands: Demands) -> Iterator[Problem]:
    for executor in wiring.compiled.executors.values():
        embedded = any("kfp.dsl.executor_main" in part or "ephemeral_component" in part for part in executor.argv)
        if embedded and not demands.allow_source:
            yield Problem(
                "embedded-source",
                executor.label,
                "carries its program as text, which the image digest does not cover; build it into the image",
            )


def _references(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for where, message in wiring.dangling():
        yield Problem("reference", where, message)


def _gates(wiring: Wiring) -> Iterator[tuple[TaskNode, str]]:
    for task in wiring.compiled.tasks():
        stage = wiring.compiled.stage_of(task)
        if stage in _GATES:
            yield task, str(stage)


def _cache(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for task, stage in _gates(wiring):
        options = task.spec.get("cachingOptions") or {}
        if options.get("enableCache") or options.get("cacheKey"):
            yield Problem(
                "cache",
                task.where,
                f"{stage} may be answered by an earlier run; "
                "build the gate with mlseal_kfp.gate or call set_caching_options(False)",
            )


def _nonce(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for task, stage in _gates(wiring):
        constant = (task.input("parameters", "run_id").get("runtimeValue") or {}).get("constant")
        if constant != RUN_ID:
            yield Problem(
                "nonce", task.where, f"run_id of {stage} is {constant!r}; it must be dsl.PIPELINE_JOB_ID_PLACEHOLDER"
            )


def _pair(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    enforced: set[tuple[str, str]] = set()
    for task, stage in _gates(wiring):
        if stage != "enforce":
            continue
        verdict = wiring.source(task, "artifacts", "verdict")
        if verdict is None or wiring.compiled.stage_of(verdict.task) != "decide" or verdict.output != "verdict":
            yield Problem("pair", task.where, "the verdict does not come from a decide task of the same pipeline")
            continue
        enforced.add((verdict.task.dag, verdict.task.name))
        yield from _pair_differences(wiring, verdict.task, task)
    for task, stage in _gates(wiring):
        if stage == "decide" and (task.dag, task.name) not in enforced:
            yield Problem("pair", task.where, "no enforce follows, so the verdict stops nothing")


def _pair_differences(wiring: Wiring, decide: TaskNode, enforce: TaskNode) -> Iterator[Problem]:
    digest = wiring.source(enforce, "parameters", "verdict_sha256")
    if digest is None or digest.key != (decide.dag, decide.name, "verdict_sha256"):
        yield Problem("pair", enforce.where, "verdict_sha256 does not come from the task that made the verdict")
    for kind, names in (("artifacts", ("model", "policy")), ("parameters", SHARED_PARAMETERS)):
        for name in names:
            if not wiring.same(decide, enforce, kind, name):
                yield Problem("pair", enforce.where, f"enforce and decide are given different values of {name!r}")


def _evidence(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for task, stage in _gates(wiring):
        if stage != "decide":
            continue
        for port in sorted({*_evidence_ports(task), *(n.removesuffix("_sha256") for n in _announced_evidence(task))}):
            source = wiring.source(task, "artifacts", port)
            digest = wiring.source(task, "parameters", f"{port}_sha256")
            if source is None or digest is None or digest.key != (*source.key[:2], f"{source.output}_sha256"):
                yield Problem("evidence", task.where, f"{port} comes without the file or the digest that one task made")


def _evidence_ports(task: TaskNode) -> list[str]:
    return [port for port in task.inputs("artifacts") if port.startswith("evidence_") or port == "collected"]


def _announced_evidence(task: TaskNode) -> list[str]:
    return [
        name
        for name in task.inputs("parameters")
        if name.startswith(("evidence_", "collected")) and name.endswith("_sha256")
    ]


def _conditional(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for task in wiring.compiled.tasks():
        condition = str((task.spec.get("triggerPolicy") or {}).get("condition", ""))
        if not condition:
            continue
        if wiring.reads(task, _GATES):
            yield Problem(
                "conditional", task.where, "branches on an output of a gate; only enforce may decide what goes on"
            )
    for task, stage in _gates(wiring):
        if stage == "enforce" and wiring.is_optional(task.dag):
            yield Problem("conditional", task.where, "stands inside a condition or loop that may run zero times")


def _exit_tasks(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    if not any(stage == "enforce" for _, stage in _gates(wiring)):
        return
    for task in wiring.compiled.tasks():
        strategy = (task.spec.get("triggerPolicy") or {}).get("strategy")
        if strategy == "ALL_UPSTREAM_TASKS_COMPLETED":
            yield Problem(
                "exit-task", task.where, "runs even though a gate refused (exit handler or ignore_upstream_failure)"
            )


def _importers(wiring: Wiring, _: Demands) -> Iterator[Problem]:
    for executor in wiring.compiled.executors.values():
        if executor.importer is not None and executor.importer.get("reimport") is not True:
            yield Problem(
                "importer",
                executor.label,
                "reuses the artifact id of the same URI, so changed bytes go unseen; set reimport=True",
            )


def _required(wiring: Wiring, demands: Demands) -> Iterator[Problem]:
    for stage in demands.required_stages:
        makers = {(t.dag, t.name) for t in wiring.compiled.tasks() if wiring.compiled.stage_of(t) == stage}
        if not makers:
            yield Problem("required", stage, "the pipeline does not run this stage")
            continue
        reached = {
            source.key[:2]
            for task, gate in _gates(wiring)
            if gate == "decide"
            for port in _evidence_ports(task)
            if (source := wiring.source(task, "artifacts", port))
        }
        if not makers & reached:
            yield Problem("required", stage, "its evidence reaches no decide task")


def _protected(wiring: Wiring, demands: Demands) -> Iterator[Problem]:
    for name in demands.protected_tasks:
        tasks = [task for task in wiring.compiled.tasks() if name in (task.name, task.where)]
        if not tasks:
            yield Problem("protected", name, "there is no such task")
        for task in tasks:
            if not wiring.after_enforce(task):
                yield Problem(
                    "protected",
                    task.where,
                    "may run before enforce has passed; call .after(enforce) or take its model_sha256",
                )


_Check = Callable[[Wiring, Demands], Iterator[Problem]]
_COMPONENT_CHECKS: tuple[_Check, ...] = (_images, _argv, _environment, _source)
_PIPELINE_CHECKS: tuple[_Check, ...] = (
    _references,
    _cache,
    _nonce,
    _pair,
    _evidence,
    _conditional,
    _exit_tasks,
    _importers,
    _required,
    _protected,
)


def report(compiled: Compiled, problems: list[Problem]) -> Mapping[str, Any]:
    """The result as JSON."""
    return {
        "pipeline": compiled.name,
        "sha256": compiled.sha256,
        "problems": [{"rule": p.rule, "where": p.where, "message": p.message} for p in problems],
    }
