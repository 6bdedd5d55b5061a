"""What an attack may do to the rows of a table: which columns it may move, how far, and whether in whole numbers.

Attacks look for rows in *shares*: each column is mapped so that its range is 0 to 1, and one budget means the same
share of every range. What they find is projected before it counts: columns that may not change hold what they held,
the others stay within budget and range, and whole numbers stay whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mlseal.errors import Misuse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 1e-6
"""Of a range, for the single precision in which attacks compute."""
Rounding = Literal["near", "far"]
"""To the next whole number, or to the one beyond as seen from the row: the model decides which did better."""


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

    @cached_property
    def size(self) -> NDArray[np.float64]:
        """How much of a value each share 1 is."""
        return self.high - self.low

    @cached_property
    def whole(self) -> bool:
        """Whether any column holds whole numbers. Kept, as `size` is: both are asked for with every question."""
        return bool(self.integer.any())

    def shares(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values, (rows, features), as shares; those outside their range lie below 0 or above 1."""
        return (values - self.low) / self.size

    def around(self, values: NDArray[np.float64], budget: float) -> Reach:
        """What may become of the rows `values`, (rows, features), with `budget`, a share of each range."""
        import numpy as np

        start = self.shares(values)
        # A value that lies outside its range from the start may stay there, and go no farther out.
        low, high = np.maximum(np.minimum(start, 0), start - budget), np.minimum(np.maximum(start, 1), start + budget)
        free = self.changeable
        return Reach(self, values, start, np.where(free, low, start), np.where(free, high, start))

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


@dataclass(frozen=True)
class Reach:
    """Some rows and what may become of them. Made by `Space.around`, once for many questions.

    Attributes:
        space: the constraints.
        values: the rows as they are, (rows, features); one row stands for any number of them.
        start: the same as shares.
        low: of each share, how far down it may go.
        high: how far up.
    """

    space: Space
    values: NDArray[np.float64]
    start: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def projected(self, wanted: NDArray[np.float64], rounding: Rounding = "near") -> NDArray[np.float64]:
        """`wanted`, as shares, as near as the constraints let it come."""
        import numpy as np

        inside = np.minimum(np.maximum(wanted, self.low), self.high)  # half of what `clip` costs for one row
        if not self.space.whole:
            return inside
        integer, size = self.space.integer, self.space.size
        steps = (inside - self.start) * size
        whole = np.round(steps) if rounding == "near" else np.sign(steps) * np.ceil(np.abs(steps) - SLACK)
        # Where rounding led out of budget or range, one step back is inside again: the start is.
        moved = self.start + whole / size
        outside = (moved < self.low - SLACK) | (moved > self.high + SLACK)
        whole = whole - np.where(outside, np.sign(whole), 0)
        return np.where(integer, self.start + whole / size, inside)

    def valued(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares as values; where they are those of the rows, exactly the rows'."""
        import numpy as np

        found = self.values + (shares - self.start) * self.space.size
        return np.where(self.space.integer, np.round(found), found) if self.space.whole else found


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
