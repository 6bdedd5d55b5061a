"""What an attack may do to the rows of a table: which columns it may move, how far, and whether in whole numbers.

Attacks look for rows in *shares*: each column is mapped so that its range is 0 to 1, and one budget means the same
share of every range. What they find is projected before it counts: columns that may not change hold what they held,
the others stay within budget and range, and whole numbers stay whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlseal.errors import Misuse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 1e-6
"""Of a range, for the single precision in which attacks compute."""
Rounding = Literal["near", "far"]
"""To the next whole number, or to the one beyond it as seen from the start: the model decides which did better."""


@dataclass(frozen=True)
class Space:
    """The columns that a model takes, and what may become of them.

    Attributes:
        features: columns in order.
        low: of each column what share 0 stands for; for one that may not change it is no statement about anything.
        high: the same for share 1.
        changeable: whether an attack may move it.
        integer: whether it holds whole numbers.
    """

    features: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    changeable: NDArray[np.bool_]
    integer: NDArray[np.bool_]

    def shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values, (rows, features), as shares; those outside their range lie below 0 or above 1."""
        return (values - self.low) / (self.high - self.low)

    def values(self, start: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares as values; where they are those of the values `start`, exactly these."""
        import numpy as np

        found = self.low + shares * (self.high - self.low)
        found = np.where(self.integer, np.round(found), found)
        return np.where(shares == self.shares(start), start, found)

    def projected(
        self, start: NDArray[np.float64], wanted: NDArray[np.float64], budget: float, rounding: Rounding = "near"
    ) -> NDArray[np.float64]:
        """`wanted` as near as the constraints let it come from `start`; all of them shares, (rows, features).

        A value that lies outside its range from the start may stay there, and go no farther out.
        """
        import numpy as np

        inside = np.where(self.changeable, wanted, start).clip(np.minimum(start, 0), np.maximum(start, 1))
        inside = inside.clip(start - budget, start + budget)
        steps = (inside - start) * (self.high - self.low)
        whole = np.round(steps) if rounding == "near" else np.sign(steps) * np.ceil(np.abs(steps) - SLACK)
        # Where rounding led out of budget or range, one step back is inside again: the start is.
        moved = start + whole / (self.high - self.low)
        outside = (np.abs(moved - start) > budget + SLACK) | (moved < np.minimum(start, 0) - SLACK)
        outside |= moved > np.maximum(start, 1) + SLACK
        whole = np.where(outside, whole - np.sign(whole), whole)
        return np.where(self.integer, np.where(whole == 0, start, start + whole / (self.high - self.low)), inside)

    def to_json(self) -> list[dict[str, Any]]:
        """The constraints as the predicate holds them; bounds of what may not change would be bounds of data."""
        found: list[dict[str, Any]] = []
        for place, name in enumerate(self.features):
            one: dict[str, Any] = {"column": name, "changeable": bool(self.changeable[place])}
            if self.changeable[place]:
                one |= {
                    "integer": bool(self.integer[place]),
                    "low": float(self.low[place]),
                    "high": float(self.high[place]),
                }
            found.append(one)
        return found


def of(
    features: Sequence[str],
    values: NDArray[np.float64],
    fixed: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
) -> Space:
    """The space of the rows `values`, (rows, features): whole numbers are what holds nothing else in these rows.

    Raises `Misuse` when `fixed` names what is no feature, when nothing may change, or when a column that may has no
    range: bounds read off the rows would be somebody's values.
    """
    import numpy as np

    if unknown := [name for name in fixed if name not in features]:
        raise Misuse("--fixed names what the model does not take", got=", ".join(unknown[:8]))
    changeable = np.array([name not in fixed for name in features])
    if not changeable.any():
        raise Misuse("no column may change", expected="at least one that --fixed does not name")
    absent = [name for name, free in zip(features, changeable, strict=True) if free and name not in ranges]
    if absent:
        raise Misuse(
            "a column that may change has no range",
            got="none for " + ", ".join(absent[:8]),
            remedy='state it by --ranges, such as {"age": "0:90"}, or name the column in --fixed',
        )
    integer = (values == np.round(values)).all(axis=0)
    # The range of what may not change is for scaling alone, and is never told.
    low, high = values.min(axis=0), values.max(axis=0)
    high = np.where(high > low, high, low + 1)
    for place, name in enumerate(features):
        if changeable[place]:
            low[place], high[place] = ranges[name]
    return Space(tuple(features), low, high, changeable, integer)


def ranges_of(settings: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """``FEATURE=LOW:HIGH``. Raises `Misuse`."""
    found = {}
    for name, text in settings.items():
        try:
            low, high = (float(end) for end in text.split(":"))
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise Misuse(f"the range of {name!r} is none", got=text[:40], expected="LOW:HIGH, such as 0:90")
        found[name] = low, high
    return found
