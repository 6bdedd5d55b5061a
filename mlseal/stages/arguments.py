"""Text from a command line or pipeline → the typed arguments of a stage.

Everything that a generator passes is text, because argv and Kubeflow parameters are. What the signature does not know,
what is missing and what does not parse is refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Error, Misuse, Unreadable
from mlseal.evidence import canonical
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.stages.base import Parameter, Stage

_UNCOUNTED = frozenset({"seed", "timeout"})
"""Values that are not configuration: another seed is the same question, so that it cannot shake off a bad answer."""


@dataclass(frozen=True)
class Arguments:
    """Parsed arguments by role; every path is absolute. ``configuration`` is RFC 8785 of the values that count."""

    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    values: Mapping[str, Any]
    configuration: bytes


def parse(stage: Stage, arguments: Mapping[str, str], naming: Naming = PLAIN) -> Arguments:
    """`arguments` for `stage`. An optional input or value that is the empty text counts as absent.

    `naming` writes names of files in the configuration: its digest is signed, so a plain name could be guessed from it.
    Raises `Misuse` for unknown, missing or ill-typed arguments and for an output that exists, `Unreadable` for an input
    that does not.
    """
    for name in arguments:
        stage.parameter(name)
    inputs: dict[str, Path] = {}
    outputs: dict[str, Path] = {}
    values: dict[str, Any] = {}
    for parameter in stage.parameters:
        text = arguments.get(parameter.name, "")
        if text == "" and not (parameter.kind == "text" and parameter.name in arguments):
            if parameter.required:
                raise Misuse(f"stage {stage.name} needs {parameter.flag}", expected=parameter.help or parameter.kind)
            if parameter.role == "value":
                values[parameter.name] = parameter.default
        elif parameter.role == "input":
            inputs[parameter.name] = _existing(parameter, text)
        elif parameter.role == "output":
            outputs[parameter.name] = _new(parameter, text)
        else:
            values[parameter.name] = _value(parameter, text)
    named = {p.name for p in stage.parameters if p.names_file and values.get(p.name)}
    counted = {k: naming.of("path", v) if k in named else v for k, v in values.items() if k not in _UNCOUNTED}
    return Arguments(inputs, outputs, values, canonical.dumps({"stage": stage.name, "parameters": counted}))


def _existing(parameter: Parameter, text: str) -> Path:
    path = Path(text).absolute()
    if not path.exists():
        raise Unreadable(f"{parameter.flag} {path} does not exist", remedy="check the path")
    if parameter.kind == "file" and not path.is_file():
        raise Misuse(f"{parameter.flag} {path} is not a file")
    return path


def _new(parameter: Parameter, text: str) -> Path:
    path = Path(text).absolute()
    empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if (path.exists() or path.is_symlink()) and not empty:
        raise Misuse(
            f"{parameter.flag} {path} exists", expected="a new path", remedy="remove it or choose another name"
        )
    return path


def _value(parameter: Parameter, text: str) -> Any:
    try:
        if parameter.kind == "integer":
            return int(text)
        if parameter.kind == "number":
            return _finite(text)
        if parameter.kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if parameter.kind == "settings":
            return _settings(text)
    except (ValueError, KeyError, Error) as error:
        raise Misuse(f"{parameter.flag} is not a valid {parameter.kind}", got=text[:120]) from error
    return text


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _settings(text: str) -> dict[str, str]:
    """A JSON object of scalars, values as text; strict about duplicate keys."""
    document = canonical.parse(text, what="settings", limit=64 * 1024)
    if not isinstance(document, dict) or any(isinstance(v, dict | list) or v is None for v in document.values()):
        raise ValueError(text)
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in document.items()}
