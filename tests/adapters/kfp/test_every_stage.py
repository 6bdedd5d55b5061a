"""Every registered stage runs from compiled YAML: those that no pipeline of these tests has, each as its only step."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl
from mlseal_kfp import compiled, compiling, component, host, image, ports

from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from mlseal.stages import registry
from tests.adapters.kfp.conftest import CANARY, require_no_row_printed
from tests.stages_cases import World, case_of

TOGETHER = {
    stage
    for module in ("test_host", "test_intake", "test_privacy", "test_scans")
    for stage in importlib.import_module(f"tests.adapters.kfp.{module}").STAGES
}
"""Run by the pipelines of those tests, each of which asserts that exactly its STAGES ran."""
ALONE = sorted(set(registry.BUILTIN) - TOGETHER)
"""All others, so a new stage is run here unless a pipeline has it."""


def pipeline_of(name: str, arguments: dict[str, Any], folder: Path) -> Path:
    """YAML of one step: what a case gives as a file is imported as an artifact, the rest are constants in it."""

    @dsl.pipeline(name="alone")
    def alone():  # noqa: ANN202
        given: dict[str, Any] = {"run_id": "alone"}
        for key, value in arguments.items():
            port = ports.interface(name).port(key)
            if port.is_artifact:
                kind = getattr(dsl, str(port.type))
                given[key] = dsl.importer(artifact_uri=str(value), artifact_class=kind, reimport=True).output
            else:
                given[key] = json.loads(value) if port.type is dict and isinstance(value, str) else value
        component(name)(**given)

    draft = folder / "draft.yaml"
    compiler.Compiler().compile(alone, str(draft))
    made = compiling.fill(compiled.parse(draft.read_bytes(), "alone"), image.host_reference())
    return compiling.write(made, folder / "compiled")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if case_of(n).slow else []) for n in ALONE])
def test_a_stage_runs_as_the_only_step(bench: Any, name: str) -> None:
    """Its component is compiled and run in a process of its own; its evidence is about what went in or came out."""
    (bench.base / "given").mkdir()
    arguments = case_of(name).make(World(bench.base / "given", CANARY, bench.authority))
    file = pipeline_of(name, arguments, bench.base)
    result = host.run(file, {}, bench.base / "runs", bench.host()).require()
    assert [task.stage for task in result.tasks] == [name]
    slug, stage = ports.interface(name).slug, registry.load(name).stage
    said = Bundle.read(result.output(slug, "evidence")).statement
    assert said.predicate_type == stage.predicate_type
    files = [value for value in arguments.values() if isinstance(value, Path)]
    files += [result.output(slug, p.name) for p in stage.parameters if p.role == "output"]
    assert {s.sha256 for s in said.subjects} <= {s.sha256 for file in files for s in measure(file).subjects}
    assert CANARY.encode() not in said.payload
    require_no_row_printed(result, bench.base / "given")


def test_every_registered_stage_is_run_from_yaml_here() -> None:
    """Alone or together, never neither; and nothing is claimed for a stage that does not exist."""
    assert TOGETHER <= set(registry.BUILTIN)
    assert TOGETHER | set(ALONE) == set(registry.BUILTIN)
