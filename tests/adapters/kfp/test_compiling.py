"""What is checked in is what the signatures say, on every machine."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlseal_kfp import compiled, compiling, image, ports, reference
from mlseal_kfp.compiled import Compiled
from mlseal_kfp.lint import RULES

from mlseal.errors import MalformedEvidence, Misuse, Unreadable
from mlseal.stages import registry

REPOSITORY = Path(__file__).parents[3]
CHECKED_IN = REPOSITORY / "kfp_components" / "compiled"
PIPELINES = Path(__file__).with_name("pipelines.py")
REAL = "ghcr.io/example/mlseal@sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"


@pytest.mark.parametrize("name", ports.names())
def test_checked_in_component_is_current(name: str) -> None:
    """Compared by the digest of what is parsed; the remedy is one command."""
    made = compiling.compile_component(name)
    file = CHECKED_IN / f"{made.name}.yaml"
    assert compiled.read(file).sha256 == made.sha256, (
        f"run: mlseal kfp compile --placeholder -o {CHECKED_IN.relative_to(REPOSITORY)}"
    )
    assert file.read_text() == made.to_yaml(compiling.header(made))


def test_checked_in_are_exactly_the_components() -> None:
    """No leftovers."""
    assert {f.stem for f in CHECKED_IN.iterdir()} == {ports.interface(name).slug for name in ports.names()}


def test_page_lists_rules_and_ports() -> None:
    """The generated parts of docs/kfp.md; the remedy is to paste what is printed."""
    page = (REPOSITORY / "docs" / "kfp.md").read_text()
    rules = "| rule | |\n|---|---|\n" + "".join(f"| `{name}` | {text} |\n" for name, text in RULES.items())
    tables = reference.markdown([ports.interface(name) for name in ports.names()])
    for mark, expected in (("rules", rules), ("components", tables)):
        found = page.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- end {mark} -->")[0]
        assert found == expected, f"put between the marks of docs/kfp.md:\n{expected}"


@pytest.mark.parametrize("seed", ["0", "1", "42"])
def test_compilation_does_not_depend_on_the_hash_seed(seed: str, tmp_path: Path) -> None:
    """Same bytes, though kfp's own differ."""
    command = [sys.executable, "-m", "mlseal_kfp.cli", "compile", str(PIPELINES), "--image", REAL, "-o", str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, timeout=120)
    for name, pipeline in compiling.compile_pipelines(PIPELINES, REAL).items():
        file = tmp_path / f"{name}.yaml"
        assert compiled.read(file).sha256 == pipeline.sha256
        assert file.read_text() == pipeline.to_yaml(compiling.header(pipeline))


@pytest.mark.parametrize("name", registry.names())
def test_component_mirrors_the_signature(name: str) -> None:
    """Every parameter arrives with its type, default and requiredness; digests stand beside artifacts."""
    made = compiling.compile_component(name).components[f"comp-{ports.interface(name).slug}"]
    inputs, outputs = made["inputDefinitions"], made["outputDefinitions"]
    types = {
        "text": "STRING",
        "integer": "NUMBER_INTEGER",
        "number": "NUMBER_DOUBLE",
        "boolean": "BOOLEAN",
        "settings": "STRUCT",
    }
    for parameter in registry.load(name).stage.parameters:
        if parameter.role == "value" and parameter.name != ports.IMAGE_PARAMETER:
            spec = inputs["parameters"][parameter.name]
            assert spec["parameterType"] == types[parameter.kind]
            assert spec.get("isOptional", False) is not parameter.required
            assert spec.get("defaultValue") == parameter.default
        elif parameter.role == "input":
            assert inputs["artifacts"][parameter.name].get("isOptional", False) is not parameter.required
            assert inputs["parameters"][f"{parameter.name}_sha256"]["defaultValue"] == ""
        elif parameter.role == "output":
            assert parameter.name in outputs["artifacts"]
            assert f"{parameter.name}_sha256" in outputs["parameters"]
    assert {"evidence"} <= set(outputs["artifacts"])
    assert {"evidence_sha256"} <= set(outputs["parameters"])
    assert ports.IMAGE_PARAMETER not in inputs["parameters"]


@pytest.mark.parametrize("name", ports.names())
def test_fixed_argv(name: str) -> None:
    """Image by placeholder, one command, no shell."""
    made = compiling.compile_component(name)
    (executor,) = made.executors.values()
    assert executor.argv == (
        "python",
        "-m",
        "mlseal_kfp.step",
        name,
        "--image",
        image.PLACEHOLDER,
        "--executor-input",
        "{{$}}",
    )
    assert executor.image == image.PLACEHOLDER


def test_filling_changes_images_and_nothing_else() -> None:
    """The reviewer's diff."""
    before = compiling.compile_pipelines(PIPELINES)["gated"]
    after = compiling.fill(before, REAL)
    changed = [
        (a, b) for a, b in zip(before.to_yaml().splitlines(), after.to_yaml().splitlines(), strict=True) if a != b
    ]
    assert changed
    assert all(a.replace(image.PLACEHOLDER, REAL) == b for a, b in changed)
    assert image.PLACEHOLDER not in after.to_yaml()


@pytest.mark.parametrize("reference", ["ghcr.io/example/mlseal:1", "ghcr.io/example/mlseal@sha256:" + "0" * 64])
def test_filling_refuses_tags_and_zero_digests(reference: str) -> None:
    """At compilation already."""
    with pytest.raises(Misuse):
        compiling.compile_component("decide", reference)


def test_filling_twice_is_refused(tmp_path: Path) -> None:
    """A filled file has no placeholder."""
    path = compiling.write(compiling.compile_component("decide", REAL), tmp_path)
    with pytest.raises(Misuse, match="no image placeholder"):
        compiling.fill_file(path, REAL)


def test_gate_components_are_uncached_when_run_alone() -> None:
    """kfp wraps a component into a pipeline whose task is cached."""
    for name in ports.GATES:
        (task,) = compiling.compile_component(name).tasks()
        assert task.spec["cachingOptions"] == {}


def test_digest_ignores_comments_and_key_order(tmp_path: Path) -> None:
    """And nothing else."""
    pipeline = compiling.compile_component("enforce")
    turned = Compiled((dict(reversed(list(pipeline.documents[0].items()))),))
    assert turned.sha256 == pipeline.sha256
    path = tmp_path / "x.yaml"
    path.write_text("# Inputs:\n#    lies: str\n" + pipeline.to_yaml())
    assert compiled.read(path).sha256 == pipeline.sha256
    changed = copy.deepcopy(dict(pipeline.documents[0]))
    changed["deploymentSpec"]["executors"]["exec-enforce"]["container"]["args"].append("--force")
    assert Compiled((changed,)).sha256 != pipeline.sha256


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2",
        "x: &a 1\n<<: {b: 1}",
        "!!python/object/apply:os.system ['true']",
        "a: .nan\npipelineInfo: {}\nroot: {}\ndeploymentSpec: {}",
        "pipelineInfo: {}\nroot: {}\ndeploymentSpec: {}\nd: 2026-11-23",
        "- 1\n-",
        "{",
        "a: [",
        "\x00",
    ],
)
def test_hostile_yaml_is_refused(text: str) -> None:
    """Duplicate and merged keys, objects, numbers and dates that JSON does not have."""
    with pytest.raises((MalformedEvidence, Misuse)):
        compiled.parse(text, "file")


@pytest.mark.parametrize(
    "path", ["pipelineInfo/name", "components/../../x", "components/comp-enforce/outputDefinitions/parameters/.."]
)
def test_names_that_climb_are_refused(path: str) -> None:
    """Pipeline, component and output names become parts of paths."""
    document: dict[str, Any] = copy.deepcopy(dict(compiling.compile_component("enforce").documents[0]))
    if path == "pipelineInfo/name":
        document["pipelineInfo"]["name"] = "../../x"
    elif path.startswith("components/.."):
        document["components"]["../../x"] = {}
    else:
        document["components"]["comp-enforce"]["outputDefinitions"]["parameters"][".."] = {}
    with pytest.raises(Misuse, match="no plain name"):
        compiled.parse(Compiled((document,)).to_yaml(), "file")


def test_unreadable_and_foreign_files(tmp_path: Path) -> None:
    """One sentence each."""
    with pytest.raises(Unreadable):
        compiled.read(tmp_path / "absent.yaml")
    with pytest.raises(Misuse, match="not a compiled pipeline"):
        compiled.parse("a: 1", "file")
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no')")
    with pytest.raises(Misuse, match="cannot be compiled"):
        compiling.compile_pipelines(broken)
    broken.write_text("x = 1")
    with pytest.raises(Misuse, match="defines no pipeline"):
        compiling.compile_pipelines(broken)
