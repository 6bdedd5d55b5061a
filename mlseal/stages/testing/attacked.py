"""How far attacks got: counted on rows that the model decided rightly, and looked through for masked gradients.

A gradient attack that fails because it cannot see where to go has shown nothing. Three signs of that, after Athalye et
al. (Obfuscated Gradients, 2018) and Carlini et al. (On Evaluating Adversarial Robustness, 2019): an attack that knows
less gets further, a larger budget gets less far, noise of equal budget does as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked
from mlseal.stages import proportions, tables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SIGN = 0.95
"""How sure it must be that one attack beats another on the same rows."""
_FEW = 6
"""Rows moved by noise, or not moved by the gradient, below which nothing is said of the two."""


@dataclass(frozen=True)
class Rows:
    """Rows of a table that stand for independent people.

    Attributes:
        frame: the features, as the model takes them.
        numbers: the same as 64-bit floats, (rows, features).
        truth: 0 and 1.
    """

    frame: Any
    numbers: NDArray[np.float64]
    truth: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.truth)

    def chosen(self, which: NDArray[Any]) -> Rows:
        """Those at the places, or where the mask, `which`."""
        import numpy as np

        places = np.flatnonzero(which) if which.dtype == bool else which
        return Rows(self.frame.iloc[places], self.numbers[places], self.truth[places])

    def first(self, most: int) -> Rows:
        """The first `most` rows."""
        return Rows(self.frame.iloc[:most], self.numbers[:most], self.truth[:most])


@dataclass(frozen=True)
class Outcome:
    """Which rows one attack moved with one budget.

    Attributes:
        name: of the attack.
        threat_model: as in the predicate.
        budget: share of each column's range.
        moved: for each row whether the model then decided wrongly.
        queries: answers it might ask for, a row.
    """

    name: str
    threat_model: str
    budget: float
    moved: NDArray[np.bool_]
    queries: int | None = None


def rows(frame: Any, names: Sequence[str], outcome: str, cluster: str = "") -> Rows:
    """All rows of a table, or with a `cluster` column the first of each cluster: they are independent then.

    Raises `Misuse` for a column that is absent, has missing values or holds no numbers, and for an outcome other than 0
    and 1.
    """
    import numpy as np
    import pandas as pd

    if absent := [name for name in names if name not in frame.columns]:
        raise Misuse("the table lacks features of the model", got="no " + ", ".join(absent[:8]))
    truth = tables.column(frame, outcome, "attack")
    if not np.isin(truth, (0, 1)).all():
        raise Misuse(f"column {outcome!r} must hold 0 and 1", got=f"{len(np.unique(truth))} different values")
    values = np.column_stack([_numbers(frame, name) for name in names])
    found = Rows(frame[list(names)], values, truth.astype(np.int64))
    if not cluster:
        return found
    first = ~pd.Series(tables.column(frame, cluster, "cluster")).duplicated().to_numpy()
    return found.chosen(first)


def shuffled(frame: Any, seed: int) -> Any:
    """The rows in an order by chance."""
    return frame.sample(frac=1, random_state=seed % 2**32)


def budgets_of(text: str) -> list[float]:
    """Shares of a range, separated by commas, rising. Raises `Misuse`."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or len(found) > 8 or any(not 0 < b <= 1 for b in found) or any(a >= b for a, b in pairwise(found)):
        raise Misuse("the budgets are none", got=text[:80], expected="rising shares of a range, such as 0.05,0.1")
    return found


def names_of(text: str) -> list[str]:
    """Names of columns, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def require_sane(rows: int, queries: int, minimum_rows: int, level: float) -> None:
    """Raise `Misuse` for what nobody can attack by."""
    if not (1 <= rows <= 100_000 and 20 <= queries <= 100_000 and minimum_rows >= 1 and 0.5 <= level < 1):
        raise Misuse(
            "the attack's parameters are out of range",
            got=f"rows {rows}, queries {queries}, minimum {minimum_rows}, level {level}",
            expected="1 to 100000 rows, 20 to 100000 queries, minimum ≥ 1, 0.5 ≤ level < 1",
        )


def require_apart(training: Rows, holdout: Rows, most: float = 0.05) -> None:
    """Raise `Unchecked` when more than `most` of the holdout's rows stand in the training table."""
    import numpy as np

    seen = {row.tobytes() for row in np.column_stack([training.numbers, training.truth])}
    share = np.mean([row.tobytes() in seen for row in np.column_stack([holdout.numbers, holdout.truth])])
    if share > most:
        raise Unchecked(
            "the tables share rows, so that nothing was held out",
            got=f"{share:.0%} of the holdout stands in the training table",
            expected=f"at most {most:.0%}",
            remedy="give a holdout that no model learnt from",
        )


# --- figures ----------------------------------------------------------------------------------------------------------


def metric(name: str, hits: NDArray[np.bool_], level: float) -> dict[str, Any]:
    """A share with its exact interval; 0 to 1 where there is no row."""
    return _stated(name, float(hits.mean()), proportions.interval(int(hits.sum()), len(hits), level), level, len(hits))


def common(truth: NDArray[np.int64], level: float) -> dict[str, Any]:
    """How often the more frequent class is right: what a model reaches that looks at nothing, so nobody moves it."""
    import numpy as np

    return metric("majorityClassRate", truth == np.bincount(truth).argmax(), level)


def difference(name: str, before: NDArray[np.bool_], after: NDArray[np.bool_], level: float) -> dict[str, Any]:
    """How much rarer hits became on the same rows; both kinds of change have exact bounds, that hold together."""
    n, both = len(before), 1 - (1 - level) / 2
    fewer, more = int((before & ~after).sum()), int((~before & after).sum())
    (low, high), (least, most) = proportions.interval(fewer, n, both), proportions.interval(more, n, both)
    return _stated(name, (fewer - more) / n, (low - most, high - least), level, n)


def percent(budget: float) -> str:
    """A budget in the name of a metric: ``5Percent``."""
    return f"{100 * budget:.6g}Percent"


def furthest(outcomes: Sequence[Outcome], budget: float) -> NDArray[np.bool_]:
    """For each row whether any attack with that budget moved it."""
    import numpy as np

    return np.asarray(np.any([one.moved for one in outcomes if one.budget == budget], axis=0))


def rates(outcomes: Sequence[Outcome], budgets: Sequence[float], level: float) -> list[dict[str, Any]]:
    """Of each budget the share of rows that any attack moved: one share, so its interval needs no allowance."""
    return [metric(f"evasionRateAt{percent(b)}", furthest(outcomes, b), level) for b in budgets]


def stated(outcomes: Sequence[Outcome], level: float) -> list[dict[str, Any]]:
    """The attacks as the predicate holds them."""
    return [
        {
            "name": one.name,
            "threatModel": one.threat_model,
            "norm": "inf",
            "budget": one.budget,
            **({"queries": one.queries} if one.queries else {}),
            "metrics": [metric("evasionRate", one.moved, level)],
        }
        for one in outcomes
    ]


def _stated(name: str, value: float, ends: tuple[float, float], level: float, n: int) -> dict[str, Any]:
    found = {"name": name, "value": round(value, 4), "ciLow": round(ends[0], 4), "ciHigh": round(ends[1], 4)}
    return {**found, "level": level, "n": n}


# --- masking ----------------------------------------------------------------------------------------------------------


def masked(white: Sequence[Outcome], others: Sequence[Outcome], noise: Sequence[Outcome]) -> list[str]:
    """Signs that the gradients which `white` followed lead nowhere, as sentences; none if there is none.

    Each compares which of the same rows two attacks moved, so that one lucky row is no sign.
    """
    signs = []
    for one in white:
        beaten = [other.name for other in others if other.budget == one.budget and _beats(other.moved, one.moved)]
        signs += [f"{name} got further than {one.name} at budget {one.budget:g}" for name in beaten]
        matched = [other for other in noise if other.budget == one.budget and _matches(other.moved, one.moved)]
        signs += [f"noise did as well as {one.name} at budget {one.budget:g}" for _ in matched]
    for kind in {one.name: None for one in (*white, *others)}:
        for small, large in pairwise(one for one in (*white, *others) if one.name == kind):
            if _beats(small.moved, large.moved):
                signs.append(f"{kind} got less far with budget {large.budget:g} than with {small.budget:g}")
    return signs


def _beats(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether `one` moved rows that `other` did not, and surely more than the other way round: an exact sign test."""
    alone, against = int((one & ~other).sum()), int((other & ~one).sum())
    return proportions.interval(alone, alone + against, _SIGN)[0] > 0.5


def _matches(noise: NDArray[np.bool_], gradient: NDArray[np.bool_]) -> bool:
    """Whether noise moved several rows, the gradient left several, and the gradient is not surely better."""
    enough = int(noise.sum()) >= _FEW and int((~gradient).sum()) >= _FEW
    return enough and not _beats(gradient, noise)


def _numbers(frame: Any, name: str) -> NDArray[np.float64]:
    import numpy as np
    import pandas as pd

    column = tables.column(frame, name, "attack")
    if not pd.api.types.is_numeric_dtype(column):
        raise Misuse(
            f"column {name!r} does not hold numbers", expected="numbers: attacks move them by shares of a range"
        )
    found = column.astype(np.float64)
    if not np.isfinite(found).all():
        raise Misuse(f"column {name!r} is not finite", remedy="decide about it in the data, where that is signed")
    return np.asarray(found)
