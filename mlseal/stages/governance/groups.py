"""Columns as groups of people: codes with names, few and short enough to stand in a public log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_GROUPS = 50
"""More values than this are no groups but people, and their names would stand in a public log."""
_MAX_NAME = 40


@dataclass(frozen=True)
class Coded:
    """A column as codes 0, 1, … with the name of each code."""

    codes: NDArray[np.int64]
    names: list[str]


def groups(values: NDArray[Any], name: str) -> Coded:
    """The attribute as groups. Raises `Misuse` for fewer than two, too many, or names too long to be categories."""
    coded = code(values)
    if not 2 <= len(coded.names) <= MAX_GROUPS or any(len(n) > _MAX_NAME for n in coded.names):
        raise Misuse(
            f"column {name!r} does not hold groups",
            got=f"{len(coded.names)} values",
            expected=f"2 to {MAX_GROUPS} categories of at most {_MAX_NAME} characters",
        )
    return coded


def code(values: NDArray[Any]) -> Coded:
    """Any column as codes, names sorted."""
    import pandas as pd

    codes, names = pd.factorize(values, sort=True)
    return Coded(codes.astype("int64"), [_name(n) for n in names])


def _name(value: Any) -> str:
    number = value.item() if hasattr(value, "item") else value
    return str(int(number)) if isinstance(number, float) and number.is_integer() else str(number)
