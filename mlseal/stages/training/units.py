"""Rows of a table as examples of units: all rows of one person (or household) are one padded example.

Differential privacy protects what a record is. Where a person has several rows and each row is a record, epsilon is
per row and the person gets a multiple of it. So a unit here is one example, and clipping bounds the unit's whole
influence, not a row's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse
from mlseal.stages import dense, tables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """One example a unit.

    Attributes:
        features: (units, places, features), 0 where a unit has no row.
        labels: (units, places), 0 or 1.
        present: (units, places), 1 where there is a row.
        left_out: rows beyond the places of their unit.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32]
    present: NDArray[np.float32]
    left_out: int

    def __len__(self) -> int:
        return len(self.features)


def names_of(features: str) -> list[str]:
    """Columns separated by commas. Raises `Misuse` for none, or for one twice."""
    names = [name.strip() for name in features.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise Misuse("features are named once each, separated by commas", got=features[:80] or "nothing")
    return names


def ranges_of(settings: Mapping[str, str], features: Sequence[str]) -> dict[str, tuple[float, float]]:
    """``NAME=LOW:HIGH`` as numbers. Raises `Misuse` for a column that is no feature, or an empty range."""
    found = {}
    for name, text in settings.items():
        low, _, high = text.partition(":")
        try:
            ends = float(low), float(high)
        except ValueError:
            ends = 0.0, 0.0
        if name not in features or not ends[0] < ends[1] or not all(map(_finite, ends)):
            raise Misuse("a range cannot be used", got=f"{name}={text}"[:80], expected="FEATURE=LOW:HIGH, low < high")
        found[name] = ends
    return found


def _finite(value: float) -> bool:
    return abs(value) < float("inf")


def examples(
    frame: Any,
    features: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
    outcome: str,
    unit: str,
    places: int,
    *,
    truncate: bool,
) -> Examples:
    """The rows of `frame` as one example a unit, in the order in which units first appear.

    Args:
        frame: the table.
        features: columns to learn from.
        ranges: column → (low, high), fixed before anybody looked at the data.
        outcome: column of 0 and 1.
        unit: column that names the unit of a row.
        places: rows that an example has place for.
        truncate: leave out rows beyond those places instead of refusing.

    Raises `Misuse` for columns that are absent or have gaps, labels that are not 0 and 1, ids that differ in blanks or
    letter case alone, the unit or the outcome among the features, and units with more rows than places.
    """
    import numpy as np
    import pandas as pd

    if {outcome, unit} & set(features):
        raise Misuse("the outcome or the unit is among the features", got=", ".join(sorted({outcome, unit})))
    labels = tables.column(frame, outcome, "outcome")
    if not set(np.unique(labels).tolist()) <= {0, 1}:
        raise Misuse(f"column {outcome!r} must be 0 and 1")
    codes, _ = pd.factorize(_ids(frame, unit))
    place = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    kept = place < places
    if not kept.all() and not truncate:
        raise Misuse(
            f"a {unit!r} has more rows than an example has places",
            got=f"{int(place.max()) + 1} rows, {places} places",
            expected="all rows of a unit in one example",
            remedy="raise --rows-per-unit, or pass --truncate true to leave the others out",
        )
    values = dense.scaled(frame, features, ranges)
    count = int(codes.max()) + 1
    padded = np.zeros((count, places, len(features)), np.float32)
    truth, present = np.zeros((count, places), np.float32), np.zeros((count, places), np.float32)
    padded[codes[kept], place[kept]] = values[kept]
    truth[codes[kept], place[kept]] = labels[kept]
    present[codes[kept], place[kept]] = 1
    return Examples(padded, truth, present, int((~kept).sum()))


def _ids(frame: Any, unit: str) -> NDArray[Any]:
    """The unit of every row. Two spellings of one id would be two examples of one person."""
    import numpy as np
    import pandas as pd

    values = tables.column(frame, unit, "unit")
    plain: NDArray[Any] = pd.Series(values).astype(str).str.strip().str.casefold().str.removesuffix(".0").to_numpy()
    if len(np.unique(plain)) != len(pd.unique(values)):
        raise Misuse(
            f"column {unit!r} writes one id in several ways",
            got="ids that differ in blanks, letter case or a decimal point alone",
            expected="one spelling for each unit: two would be two examples of one person",
            remedy="mend the ids in the data",
        )
    return plain
