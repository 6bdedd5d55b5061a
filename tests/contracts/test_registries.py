"""Tables of strings and the files that they name agree, both ways."""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from mlseal.evidence import predicates
from mlseal.stages import registry
from mlseal.stages.base import Stage

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = ["ingestion", "training", "testing", "governance", "inference", "monitoring"]


@pytest.mark.parametrize("name", sorted(registry.BUILTIN))
def test_a_registered_stage_loads_and_says_what_it_promises(name):
    stage = registry.load(name).stage
    assert stage.name == name
    moment = name.partition(".")[0]
    assert moment in MOMENTS
    module = registry.BUILTIN[name].partition(":")[0]
    assert module.startswith((f"mlseal.stages.{moment}.", "mlseal_gx."))  # a string: the core imports no adapter
    text = inspect.getdoc(stage.function) if hasattr(stage, "function") else inspect.getdoc(stage)
    for word in ("Guarantees", "Edge cases"):
        assert word in text, f"{name}: its docstring has no {word}"


def test_every_stage_in_a_file_is_registered():
    registered = set(registry.BUILTIN.values())
    for moment in MOMENTS:
        for file in sorted((ROOT / "mlseal/stages" / moment).glob("*.py")):
            module = importlib.import_module(f"mlseal.stages.{moment}.{file.stem}")
            for name, value in vars(module).items():
                if isinstance(value, Stage) and "@stage" in file.read_text():
                    assert f"{module.__name__}:{name}" in registered, (
                        f"{file} defines {name}, registry.py does not name it"
                    )


def test_every_predicate_file_is_known_and_every_known_one_has_a_file():
    folder = ROOT / "mlseal/evidence/predicates"
    files = {f.stem for f in folder.glob("*.py")} - {"__init__", "base"}
    shorts = {short.replace("-", "_") for short in predicates.SHORT}
    assert files == shorts
    assert set(predicates.MODELS) == set(predicates.SHORT.values())


def test_released_predicate_uris_stay():
    """Evidence of yesterday must keep its type: an entry of this file is never changed or removed, only added."""
    assert json.loads((ROOT / "tests/golden/predicate-uris.json").read_text()) == predicates.SHORT
    for uri in predicates.SHORT.values():
        assert uri.startswith("https://")
        # CycloneDX's own type carries no version; the bill does.
        assert uri.rstrip("/").rpartition("/")[2].startswith("v") or uri == "https://cyclonedx.org/bom"


@pytest.mark.parametrize("name", sorted(registry.BUILTIN))
def test_the_predicate_of_a_stage_is_known(name):
    stage = registry.load(name).stage
    uri = getattr(stage, "predicate_type", None) or getattr(stage, "predicate", None)
    assert uri in predicates.MODELS or predicates.SHORT.get(uri) in predicates.MODELS
