"""Every rule of the linter: the good file passes, and each way around the gate is named."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import compiling
from mlseal_kfp.compiled import Compiled
from mlseal_kfp.lint import RULES, Demands, lint

REAL = "ghcr.io/example/mlseal@sha256:" + hashlib.sha256(b"an image").hexdigest()
PIPELINES = Path(__file__).with_name("pipelines.py")
Mutation = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def good() -> dict[str, Compiled]:
    """Compiled once."""
    return compiling.compile_pipelines(PIPELINES, REAL)


def _tasks(document: dict[str, Any]) -> dict[str, Any]:
    return document["root"]["dag"]["tasks"]


def _container(document: dict[str, Any], label: str) -> dict[str, Any]:
    return document["deploymentSpec"]["executors"][label]["container"]


def _rules(compiled: Compiled, demands: Demands | None = None) -> set[str]:
    return {problem.rule for problem in lint(compiled, demands)}


@pytest.mark.parametrize("name", ["gated", "looped"])
def test_good_pipelines_are_clean(good: dict[str, Compiled], name: str) -> None:
    """Also with evidence collected from a loop."""
    assert [str(p) for p in lint(good[name])] == []


def test_demands_are_met(good: dict[str, Compiled]) -> None:
    """What the caller asked for in addition."""
    demands = Demands(frozenset({REAL}), ("training.run",), ("deploy",))
    assert lint(good["gated"], demands) == []
    assert lint(good["looped"], Demands(required_stages=("governance.fairness",))) == []


def _set(path: str, value: Any) -> Mutation:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        here: Any = document
        for part in parents:
            here = here[part]
        here[last] = value

    return change


def _drop(path: str) -> Mutation:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        here: Any = document
        for part in parents:
            here = here[part]
        del here[last]

    return change


def _tag(document: dict[str, Any]) -> None:
    _container(document, "exec-deploy")["image"] = "ghcr.io/example/deploy:latest"


def _shell(document: dict[str, Any]) -> None:
    container = _container(document, "exec-enforce")
    container["command"] = ["sh", "-c", "python -m mlseal_kfp.step enforce || true"]


def _extra_argument(document: dict[str, Any]) -> None:
    _container(document, "exec-decide")["args"].append("--force")


def _other_image_in_argv(document: dict[str, Any]) -> None:
    _container(document, "exec-enforce")["args"][2] = REAL.replace("example", "other")


def _other_trust(document: dict[str, Any]) -> None:
    _container(document, "exec-enforce")["env"] = [{"name": "MLSEAL_TRUST", "value": "/tmp/mine.json"}]


def _embedded(document: dict[str, Any]) -> None:
    _container(document, "exec-deploy")["args"] = ["--executor_input", "{{$}}", "kfp.dsl.executor_main"]


def _exit_handler(document: dict[str, Any]) -> None:
    _tasks(document)["deploy"]["triggerPolicy"] = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def _branch(document: dict[str, Any]) -> None:
    _tasks(document)["deploy"]["triggerPolicy"] = {"condition": "inputs.parameter_values['passed_sha256'] != ''"}


def _reuse(document: dict[str, Any]) -> None:
    executors = document["deploymentSpec"]["executors"]
    next(e for e in executors.values() if "importer" in e)["importer"]["reimport"] = False


T = "root/dag/tasks"
CONSTANT = {"runtimeValue": {"constant": "x"}}


@pytest.mark.parametrize(
    ("rule", "mutation"),
    [
        ("image-digest", _tag),
        ("argv", _shell),
        ("argv", _extra_argument),
        ("argv", _other_image_in_argv),
        ("environment", _other_trust),
        ("embedded-source", _embedded),
        ("reference", _set(f"{T}/deploy/inputs/artifacts/model/taskOutputArtifact/producerTask", "nowhere")),
        ("reference", _set(f"{T}/deploy/componentRef/name", "comp-none")),
        ("reference", _set(f"{T}/deploy/dependentTasks", ["ghost"])),
        ("reference", _drop("deploymentSpec/executors/exec-deploy")),
        ("cache", _set(f"{T}/decide/cachingOptions", {"enableCache": True})),
        ("cache", _set(f"{T}/enforce/cachingOptions", {"cacheKey": "k"})),
        ("nonce", _set(f"{T}/enforce/inputs/parameters/run_id", CONSTANT)),
        ("nonce", _drop(f"{T}/decide/inputs/parameters/run_id")),
        ("pair", _drop(f"{T}/enforce")),
        ("pair", _set(f"{T}/enforce/inputs/artifacts/verdict/taskOutputArtifact/producerTask", "training-run")),
        ("pair", _set(f"{T}/enforce/inputs/parameters/verdict_sha256", CONSTANT)),
        (
            "pair",
            _set(
                f"{T}/enforce/inputs/artifacts/model/taskOutputArtifact",
                {"producerTask": "importer", "outputArtifactKey": "artifact"},
            ),
        ),
        ("pair", _set(f"{T}/enforce/inputs/parameters/model_name", CONSTANT)),
        (
            "pair",
            _set(
                f"{T}/enforce/inputs/artifacts/policy",
                {"taskOutputArtifact": {"producerTask": "importer", "outputArtifactKey": "artifact"}},
            ),
        ),
        ("evidence", _set(f"{T}/decide/inputs/parameters/evidence_1_sha256", CONSTANT)),
        ("evidence", _drop(f"{T}/decide/inputs/parameters/evidence_1_sha256")),
        ("evidence", _drop(f"{T}/decide/inputs/artifacts/evidence_1")),
        ("conditional", _branch),
        ("exit-task", _exit_handler),
        ("importer", _reuse),
    ],
)
def test_each_way_around_is_named(good: dict[str, Compiled], rule: str, mutation: Mutation) -> None:
    """One edit of the good file, one rule (others may break with it)."""
    document = copy.deepcopy(dict(good["gated"].documents[0]))
    mutation(document)
    assert rule in _rules(Compiled((document,)))


def test_demands_that_are_not_met(good: dict[str, Compiled]) -> None:
    """Image list, required stage, protected task."""
    assert _rules(good["gated"], Demands(frozenset({REAL.replace("example", "other")}))) == {"image-allowed"}
    assert _rules(good["gated"], Demands(required_stages=("governance.fairness",))) == {"required"}
    assert _rules(good["gated"], Demands(protected_tasks=("training-run", "ghost"))) == {"protected"}


def test_required_stage_whose_evidence_is_dropped(good: dict[str, Compiled]) -> None:
    """It runs, but nobody looks at what it found."""
    document = copy.deepcopy(dict(good["gated"].documents[0]))
    _drop(f"{T}/decide/inputs/artifacts/evidence_1")(document)
    assert "required" in _rules(Compiled((document,)), Demands(required_stages=("training.run",)))


def test_gate_under_a_condition(good: dict[str, Compiled]) -> None:
    """The gate moves into a sub-pipeline that may be skipped."""
    document = copy.deepcopy(dict(good["gated"].documents[0]))
    tasks = _tasks(document)
    document["components"]["comp-condition"] = {"dag": {"tasks": {"enforce": tasks.pop("enforce")}}}
    tasks["condition"] = {"componentRef": {"name": "comp-condition"}, "triggerPolicy": {"condition": "1 == 2"}}
    assert "conditional" in _rules(Compiled((document,)))


def test_cyclic_file_ends(good: dict[str, Compiled]) -> None:
    """A DAG that contains itself is a file like any other."""
    document = copy.deepcopy(dict(good["gated"].documents[0]))
    document["components"]["comp-loop"] = {
        "dag": {
            "tasks": {
                "again": {
                    "componentRef": {"name": "comp-loop"},
                    "inputs": {"parameters": {"a": {"componentInputParameter": "a"}}},
                }
            }
        }
    }
    _tasks(document)["again"] = {
        "componentRef": {"name": "comp-loop"},
        "inputs": {"parameters": {"a": {"componentInputParameter": "a"}}},
    }
    assert isinstance(lint(Compiled((document,)), Demands(protected_tasks=("again",))), list)


def test_placeholder_is_refused(good: dict[str, Compiled]) -> None:
    """What is checked in cannot be deployed as it is."""
    unfilled = compiling.compile_pipelines(PIPELINES)
    assert _rules(unfilled["gated"]) == _rules(unfilled["looped"]) == {"image-digest"}
    assert _rules(compiling.compile_component("enforce")) == {"image-digest"}


def test_every_rule_is_exercised() -> None:
    """A rule without a refusing example is no rule."""
    source = Path(__file__).read_text()
    assert [rule for rule in RULES if f'"{rule}"' not in source] == []
