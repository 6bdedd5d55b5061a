"""Before anything learns from a table: which rows look mislabelled, and would planted ones have been seen?"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked
from mlseal.stages import proportions, tables
from mlseal.stages.base import Context, DatasetPath, EntryPath, Finding, require, stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]
    Flags = NDArray[np.bool_]

_SMALL_CELL = 10
_FOLDS = 5
_FEWEST_ROWS = 100
_FEWEST_OF_A_CLASS = 20
_MOST_CLASSES = 20
_MOST_CATEGORIES = 50
_TRIGGER_COLUMNS = 3
_TRIGGER_QUANTILE = 0.99
_NOT_PROVEN = (
    "that the data are clean: attacks other than those planted, or planted with more care, were not looked for",
    "that a suspect row is wrong: a rare patient looks like a wrong label",
    "power at other rates or for other models: it was measured for this rate, by this detector",
)


@dataclass(frozen=True)
class _Table:
    features: Floats
    labels: Codes
    classes: int


@stage(
    "ingestion.poisoning",
    predicate="data-anomaly-scan",
    extra="robustness",
    cost="seconds: five fits of a linear model for each repetition of each attack",
    not_proven=_NOT_PROVEN,
)
def poisoning(
    dataset: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    label: str,
    table: EntryPath = "",
    attacks: str = "label-flip,backdoor",
    rate: float = 0.05,
    repetitions: int = 5,
    minimum_power: float = 0.5,
    level: float = 0.95,
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Flag rows whose label disagrees with what the rest of the table teaches, and measure what that would have found.

    Confident learning (Northcutt, Jiang and Chuang, JAIR 70, 2021): scikit-learn's out-of-fold probabilities, and a row
    is flagged where another class is as probable as it is on average for rows of that class. The same detector is then
    tried on this very table with a share of rows poisoned.

    Args:
        dataset: the table, or a directory that holds it.
        label: the column that a model will learn.
        table: the table inside a data set directory, CSV or parquet.
        attacks: what is planted to measure the power: label-flip, backdoor, or both with a comma.
        rate: share of the rows that is planted.
        repetitions: how often, with other rows each time.
        minimum_power: what the lower bound of every power must reach to count as sufficient.
        level: coverage of the interval of the power.
        seed: of folds and planting; not part of the configuration digest.

    Guarantees:
        Counts and shares only, counts under 10 left out; no row, no value and no name of a class. Without power the
        finding says `sufficient: false`, whatever was flagged; it never says clean.

    Edge cases:
        Missing values raise `Misuse`, as in every stage that learns; fewer than 100 rows or 20 of a class `Unchecked`.
        Text columns of more than 50 values are no features; a table without a feature raises `Misuse`.
    """
    require("sklearn", "robustness")
    wanted = _asked(attacks, rate, repetitions, minimum_power, level)
    entry = tables.entry(context.measured["dataset"], table)
    data = _read(tables.read(context.private_file("dataset", entry)), label)
    suspects = int(_flag(data.features, data.labels, seed).sum())
    detectors = []
    for number, attack in enumerate(wanted):
        detectors.append(_try(attack, data, rate, repetitions, level, seed + number, context))
    for one in detectors:
        one["sufficient"] = one["ciLow"] >= minimum_power
        if not 0 < suspects < _SMALL_CELL:
            one |= {"suspects": suspects, "suspectShare": round(suspects / len(data.labels), 4)}
        enough = "enough" if one["sufficient"] else "not enough data for a verdict"
        context.log(f"{one['attack']}: power {one['power']:.2f}, at least {one['ciLow']:.2f}: {enough}")
    context.log(f"suspects: {f'under {_SMALL_CELL}' if 0 < suspects < _SMALL_CELL else suspects}")
    return Finding(
        subjects=("dataset",),
        fields={
            "label": label,
            **({"table": context.naming.of("path", entry)} if entry else {}),
            "n": len(data.labels),
            "features": int(data.features.shape[1]),
            "classes": data.classes,
            "rate": rate,
            "minimumPower": minimum_power,
            "detectors": detectors,
            "sufficient": all(one["sufficient"] for one in detectors),
        },
        libraries={"scikit-learn": importlib.metadata.version("scikit-learn")},
        seed=seed,
    )


def _asked(attacks: str, rate: float, repetitions: int, minimum_power: float, level: float) -> list[str]:
    wanted = [part.strip() for part in attacks.split(",") if part.strip()]
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(_PLANTS):
        raise Misuse("the attacks are unknown", got=attacks[:80] or "none", expected=" and ".join(_PLANTS))
    if not 0.005 <= rate <= 0.3 or not 1 <= repetitions <= 100 or not 0 < minimum_power <= 1 or not 0.5 <= level < 1:
        raise Misuse(
            "parameters of the scan are out of range",
            got=f"rate {rate}, {repetitions} repetitions, minimum power {minimum_power}, level {level}",
            expected="0.005 to 0.3, 1 to 100, above 0 to 1, 0.5 to below 1",
        )
    return wanted


def _read(frame: Any, label: str) -> _Table:
    """The table as numbers: whole and broken ones as they are, categories one by one."""
    import numpy as np
    import pandas as pd
    from pandas.api import types

    codes, names = pd.factorize(tables.column(frame, label, "label"), sort=True)
    sizes = np.bincount(codes)
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise Misuse(f"column {label!r} holds no classes", got=f"{len(names)} values", expected=f"2 to {_MOST_CLASSES}")
    if len(codes) < _FEWEST_ROWS or sizes.min() < _FEWEST_OF_A_CLASS:
        raise Unchecked(
            "the table is too small to say anything",
            got=f"{len(codes)} rows, {sizes.min()} in the smallest class",
            expected=f"at least {_FEWEST_ROWS} and {_FEWEST_OF_A_CLASS}",
        )
    rest = frame.drop(columns=[label])
    for name in rest.columns:
        tables.column(frame, name, "feature")
    kept = [c for c in rest.columns if types.is_numeric_dtype(rest[c]) or rest[c].nunique() <= _MOST_CATEGORIES]
    if not kept:
        raise Misuse("the table has no feature", expected="a column of numbers or of categories besides the label")
    numbers = pd.get_dummies(rest[kept], dtype=float).to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise Misuse("a feature of the table is not finite", expected="finite numbers")
    return _Table(numbers, codes.astype(np.int64), len(names))


def _flag(features: Floats, labels: Codes, seed: int) -> Flags:
    """Rows for which another class is confidently likelier than the one that they carry."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    likely = cross_val_predict(model, features, labels, cv=folds, method="predict_proba")
    threshold = np.array([likely[labels == c, c].mean() for c in range(likely.shape[1])])
    confident = likely >= threshold
    best = np.where(confident, likely, -1.0).argmax(axis=1)
    flagged: Flags = confident.any(axis=1) & (best != labels)
    return flagged


def _try(
    attack: str, data: _Table, rate: float, repetitions: int, level: float, seed: int, context: Context
) -> dict[str, Any]:
    """What the detector finds of rows that were planted, over all repetitions."""
    import numpy as np

    planted = detected = alarms = others = 0
    for number in range(repetitions):
        context.progress(number, repetitions, attack)
        rng = np.random.default_rng([seed, number])
        features, labels, rows = _PLANTS[attack](data, rate, rng)
        flagged = _flag(features, labels, seed + number)
        planted += len(rows)
        detected += int(flagged[rows].sum())
        alarms += int(flagged.sum() - flagged[rows].sum())
        others += len(labels) - len(rows)
    low, high = proportions.interval(detected, planted, level)
    return {
        "attack": attack,
        "method": "confident-learning",
        "planted": planted,
        "detected": detected,
        "power": round(detected / planted, 4),
        "ciLow": round(low, 4),
        "ciHigh": round(high, 4),
        "level": level,
        "falseAlarmShare": round(alarms / others, 4),
    }


Planted = tuple["Floats", "Codes", "Codes"]


def _flip(data: _Table, rate: float, rng: np.random.Generator) -> Planted:
    """Rows drawn at random get another label."""
    rows = rng.choice(len(data.labels), max(1, round(rate * len(data.labels))), replace=False)
    labels = data.labels.copy()
    labels[rows] = (labels[rows] + rng.integers(1, data.classes, len(rows))) % data.classes
    return data.features, labels, rows


def _backdoor(data: _Table, rate: float, rng: np.random.Generator) -> Planted:
    """Rows of other classes get a rare but possible combination of values, and the label of the attacker's choice."""
    import numpy as np

    target = int(rng.integers(data.classes))
    pool = np.flatnonzero(data.labels != target)
    rows = rng.choice(pool, min(len(pool) // 2, max(1, round(rate * len(data.labels)))), replace=False)
    width = data.features.shape[1]
    columns = rng.choice(width, min(_TRIGGER_COLUMNS, width), replace=False)
    features, labels = data.features.copy(), data.labels.copy()
    features[np.ix_(rows, columns)] = np.quantile(data.features[:, columns], _TRIGGER_QUANTILE, axis=0)
    labels[rows] = target
    return features, labels, rows


_PLANTS: Mapping[str, Callable[[_Table, float, Any], Planted]] = {"label-flip": _flip, "backdoor": _backdoor}
"""What can be planted; the attacker of each knows the table and not the detector."""
