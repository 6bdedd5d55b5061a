"""What the model says it takes: the column signature of its ``MLmodel`` file, enforced exactly.

MLflow itself casts, drops columns that it does not know and, where a model has no signature, takes anything. Here a
column too many is refused as one too few, and so is a value of another type; a model without a column signature is
refused at start, for there would be nothing to enforce.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlseal.errors import Misuse, Unreadable
from mlseal.evidence.digest import Measured
from mlseal.services.guard.payload import Cell, Rows
from mlseal.stages.base import require_same

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?")


def _integer(bits: int) -> Callable[[Cell], bool]:
    bound = 1 << (bits - 1)
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and -bound <= value < bound


def _number(largest: float) -> Callable[[Cell], bool]:
    """Finite, and still so once it is a number of this width; compared as it is, for no float holds 10**400."""
    return lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest  # false for NaN
    )


_TYPES: Mapping[str, Callable[[Cell], bool]] = {
    "integer": _integer(32),
    "long": _integer(64),
    "float": _number((2 - 2**-23) * 2.0**127),
    "double": _number(sys.float_info.max),
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "datetime": lambda value: isinstance(value, str) and _DATE.fullmatch(value) is not None,
}
TEXT = "string"


@dataclass(frozen=True)
class Column:
    """One input of the model."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True)
class Signature:
    """The columns that the model declares."""

    columns: tuple[Column, ...]

    def require(self, rows: Rows) -> None:
        """Raise `Misuse` naming the first column that is missing, unknown or of another type."""
        declared = {column.name: column for column in self.columns}
        if unknown := [name for name in rows.columns if name not in declared]:
            raise Misuse(f"the model has no column {unknown[0][:60]!r}", expected=", ".join(declared)[:300])
        if missing := [c.name for c in self.columns if c.required and c.name not in rows.columns]:
            raise Misuse(f"column {missing[0]!r} is missing", expected=", ".join(declared)[:300])
        for place, name in enumerate(rows.columns):
            column = declared[name]
            fits = _TYPES[column.type]
            for row in rows.data:
                value = row[place]
                if not (fits(value) if value is not None else not column.required):
                    raise Misuse(f"column {name!r} holds a value of another type", expected=column.type)

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the columns that hold text."""
        return tuple(column.name for column in self.columns if column.type == TEXT)


def of_model(model: Path, measured: Measured) -> Signature:
    """The signature of an MLflow model directory that was `measured`: from those bytes, whatever lies there later.

    Raises `Unreadable` if its ``MLmodel`` cannot be read, `DigestMismatch` if it changed since, `Misuse` if it declares
    no columns or a type that cannot be enforced (tensors, arrays, objects).
    """
    file = model / "MLmodel"
    try:
        raw = file.read_bytes()
        stated = {one.path: one.sha256 for one in measured.manifest.files} if measured.manifest else {}
        require_same("MLmodel", stated.get("MLmodel", "no such file"), hashlib.sha256(raw).hexdigest())
        document = yaml.safe_load(raw.decode("utf-8"))
        listed = json.loads((document.get("signature") or {}).get("inputs") or "[]")
        columns = tuple(_column(entry) for entry in listed)
    except OSError as error:
        raise Unreadable(f"cannot read {file}", got=error.strerror, expected="an MLflow model directory") from error
    except (ValueError, AttributeError, TypeError, KeyError, yaml.YAMLError) as error:
        raise Unreadable(f"the signature in {file} cannot be read", got=str(error)[:160]) from error
    if not columns:
        raise Misuse(
            "the model declares no columns, so no request could be checked",
            got=str(file),
            remedy="log the model with a signature: mlflow.models.infer_signature",
        )
    return Signature(columns)


def _column(entry: Any) -> Column:
    name, kind = entry.get("name"), entry.get("type")
    if not isinstance(name, str) or kind not in _TYPES:
        raise Misuse(
            "the model's signature cannot be enforced",
            got=f"{name!r} of type {kind}"[:120],
            expected=f"named columns of {', '.join(_TYPES)}",
        )
    return Column(name, kind, bool(entry.get("required", True)))
