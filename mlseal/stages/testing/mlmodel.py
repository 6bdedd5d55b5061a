"""What an MLflow directory says of itself: which flavour, which file is the model, which packages it wants.

``MLmodel`` decides what a reader imports and runs before any pickle is opened, so what it may say is listed, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet

from mlseal.errors import Error
from mlseal.evidence.digest import Measured
from mlseal.stages.base import Context
from mlseal.stages.testing import requirements

LOADERS: Mapping[str, str] = {
    "mlflow.sklearn": "sklearn",
    "mlflow.pytorch": "torch",
    "mlflow.xgboost": "plain",
    "mlseal_mlflow.dense": "plain",
}
"""Module that MLflow imports to load a model → the flavour of its files."""
FLAVOURS: Mapping[str, str] = {
    "sklearn": "sklearn",
    "pytorch": "torch",
    "xgboost": "plain",
    "mlseal_dense": "plain",
    "python_function": "",
}
REVIEWED: Mapping[str, tuple[str, SpecifierSet]] = {
    "sklearn": ("scikit-learn", SpecifierSet(">=1.6,<1.10")),
    "torch": ("torch", SpecifierSet(">=2.4,<3")),
}
"""Flavour → package whose classes are on the list, and the versions that they were reviewed for."""

_DESCRIBING = ("MLmodel", "requirements.txt")


@dataclass(frozen=True)
class Part:
    """One file of a model: its private copy, its name in the model, its digest, the list that it is held to."""

    path: Path
    name: str
    sha256: str
    flavour: str


@dataclass(frozen=True)
class Described:
    """A model's files, its flavour, and what is wrong with the description itself."""

    parts: list[Part]
    flavour: str
    flaws: list[str] = field(default_factory=list)


def describe(context: Context, flavour: str) -> Described:
    """The files of input ``model``, each with its list: `flavour` if given, else that of MLmodel, else ``sklearn``.

    A zip is held to the list of its format whatever was said (see `mlseal.stages.testing.formats`). Copied are the
    files that this run looks at, and those that describe the whole.
    """
    measured, share = context.measured["model"], context.share("model")
    if measured.manifest is None:
        return described(measured, context.private_copy("model"), flavour)
    describing = [entry for entry in measured.manifest.files if entry.path in _DESCRIBING]
    return described(measured, context.private_files("model", [*share, *describing]), flavour)


def described(measured: Measured, copy: Path, flavour: str) -> Described:
    """`describe` for a private `copy` that was `measured`."""
    if measured.manifest is None:
        chosen = flavour or "sklearn"
        return Described([Part(copy, measured.name, measured.sha256, chosen)], chosen)
    flaws: list[str] = []
    chosen = flavour or "sklearn"
    if any(entry.path == "MLmodel" for entry in measured.manifest.files):
        said, flaws = _read(copy)
        chosen = flavour or said
    parts = [Part(copy / entry.path, entry.path, entry.sha256, chosen) for entry in measured.manifest.files]
    return Described(parts, chosen, flaws)


def _read(directory: Path) -> tuple[str, list[str]]:
    """The flavour that MLmodel names, and every reason not to let MLflow load it."""
    try:
        said = yaml.safe_load((directory / "MLmodel").read_text(encoding="utf-8"))
        flavours: Mapping[str, Any] = said["flavors"]
        flaws = [f"MLmodel names flavour {name[:40]}, which has no list" for name in flavours if name not in FLAVOURS]
        found = {FLAVOURS[name] for name in flavours if FLAVOURS.get(name)}
        for name, one in flavours.items():
            flaws += _flavour_flaws(name[:40], one)
        loader = (flavours.get("python_function") or {}).get("loader_module")
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "sklearn", ["MLmodel cannot be read"]
    if loader is not None:
        if not isinstance(loader, str) or loader not in LOADERS:
            flaws.append(f"MLmodel has {str(loader)[:60]} imported, which is no loader that is known")
        else:
            found.add(LOADERS[loader])
    if len(found) != 1:
        return "sklearn", [*flaws, "MLmodel names no flavour that has a list, or several"]
    (flavour,) = found
    return flavour, [*flaws, *_versions(directory, flavour)]


def _flavour_flaws(name: str, said: Mapping[str, Any]) -> list[str]:
    flaws = [f"flavour {name} brings code of its own" for key in ("code", "model_code_path") if said.get(key)]
    for key in ("pickled_model", "model_path", "model_data", "data"):
        inside = PurePosixPath(str(said.get(key) or "model"))
        if inside.is_absolute() or ".." in inside.parts:
            flaws.append(f"flavour {name} has its {key} outside of the model")
    return flaws


def _versions(directory: Path, flavour: str) -> list[str]:
    """Whether the model wants a version of its library that the list was reviewed for."""
    if flavour not in REVIEWED:
        return []
    package, reviewed = REVIEWED[flavour]
    try:
        wanted = requirements.from_file(directory / "requirements.txt")
    except Error:
        return ["requirements.txt of the model cannot be read"]
    versions = [one.version for one in wanted if one.name == package]
    if len(versions) != 1 or versions[0] is None:
        return [f"requirements.txt of the model does not pin {package}"]
    if versions[0] not in reviewed:
        return [f"the list was reviewed for {package} {reviewed}, the model wants {versions[0]}"]
    return []
