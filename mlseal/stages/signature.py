"""What a stage's signature says: inputs, outputs and values, each with its kind, its default and its line of help.

The types below stand in the signatures of stages; `parameters_of` reads them back for every generator.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mlseal.errors import Misuse

Role = Literal["input", "output", "value"]
Kind = Literal["dataset", "model", "file", "code", "text", "integer", "number", "boolean", "settings"]


@dataclass(frozen=True)
class Input:
    """Marks a path that exists before the stage runs; the runner hashes it."""

    kind: Kind


@dataclass(frozen=True)
class Output:
    """Marks a path that must not exist before the stage runs; the runner hashes and publishes it."""

    kind: Kind


@dataclass(frozen=True)
class FileName:
    """Marks a text that names a file: evidence holds it as `Context.naming` writes it."""


DatasetPath = Annotated[Path, Input("dataset")]
"""A data set: a file, or a directory taken as a whole."""
ModelPath = Annotated[Path, Input("model")]
"""A model: a file, or a directory such as MLflow writes."""
FilePath = Annotated[Path, Input("file")]
"""A single file."""
CodePath = Annotated[Path, Input("code")]
"""A Python program: one file, or a directory with ``__main__.py``."""
OutputModel = Annotated[Path, Output("model")]
"""Where the stage puts the model that it makes."""
OutputFile = Annotated[Path, Output("file")]
"""Where the stage puts a single file that it makes, such as a report."""
OutputDataset = Annotated[Path, Output("dataset")]
"""Where the stage puts the data set that it makes."""
EntryPath = Annotated[str, FileName()]
"""Path of a file inside an input."""
Settings = Mapping[str, str]
"""Names and values that pass through the stage: a JSON object, or repeated ``NAME=VALUE`` on the command line."""

_VALUES: dict[object, Kind] = {str: "text", int: "integer", float: "number", bool: "boolean", Settings: "settings"}
RESERVED = frozenset(
    {
        "json",
        "made",
        "merge",
        "output",
        "purpose",
        "resume",
        "reuse",
        "role",
        "run_id",
        "shard",
        "store",
        "token_file",
        "trust",
    }
)
"""Names that the command line uses itself; no parameter may be called so."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a stage, as every generator needs it.

    Attributes:
        name: as in the signature; the command line writes ``--name`` with hyphens.
        role: input, output or value.
        kind: what the path holds, or the type of the value.
        required: whether there is no default.
        default: the default, or None. An optional input has the default None.
        help: its line in the docstring's ``Args`` section.
        names_file: whether the text names a file.
    """

    name: str
    role: Role
    kind: Kind
    required: bool
    default: Any
    help: str
    names_file: bool = False

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + self.name.replace("_", "-")


def parameters_of(stage_name: str, function: Callable[..., Any], *, lent: type) -> tuple[Parameter, ...]:
    """The parameters of `function` in order, without the one whose type is `lent`.

    Raises `Misuse` for a type that no generator knows and for a name that the command line uses itself.
    """
    return tuple(_read(stage_name, function, _arguments_section(inspect.getdoc(function) or ""), lent))


def _read(stage_name: str, function: Callable[..., Any], helps: Mapping[str, str], lent: type) -> list[Parameter]:
    # `get_type_hints` evaluates the strings that `from __future__ import annotations` leaves.
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name)
        if hint is lent:
            continue
        if name in RESERVED:
            raise Misuse(f"parameter {name!r} of stage {stage_name} has a name that the command line uses itself")
        role, kind = _classify(stage_name, name, hint)
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        names_file = any(isinstance(mark, FileName) for mark in getattr(hint, "__metadata__", ()))
        found.append(Parameter(name, role, kind, required, default, helps.get(name, ""), names_file))
    return found


def _classify(stage_name: str, name: str, hint: Any) -> tuple[Role, Kind]:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Input):
            return "input", mark.kind
        if isinstance(mark, Output):
            return "output", mark.kind
        if isinstance(mark, FileName):
            return "value", "text"
    kind = _VALUES.get(hint)
    if kind is None:
        raise Misuse(f"parameter {name} of stage {stage_name} has no known type", got=str(hint))
    return "value", kind


def _arguments_section(doc: str) -> dict[str, str]:
    """Name → text of a Google-style ``Args`` section; continuation lines are joined."""
    found: dict[str, str] = {}
    current, inside = "", False
    for line in doc.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z ]+:", line):
            inside = line == "Args:"
        elif inside and (match := re.fullmatch(r" {4}(\w+): (.*)", line)):
            current = match[1]
            found[current] = match[2]
        elif inside and current and line.startswith(" " * 6):
            found[current] += " " + line.strip()
    return found
