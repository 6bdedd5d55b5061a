"""Does a model in use still see what it was made for? Drift detectors whose silence was measured to mean something."""

from __future__ import annotations

import importlib.metadata
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse
from mlseal.stages import proportions, tables
from mlseal.stages.base import Context, DatasetPath, EntryPath, Finding, ModelPath, require, stage
from mlseal.stages.monitoring import streams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LIBRARIES = ("river", "numpy", "pandas")
_LONGEST = 4000
"""Rows of a stream that is drawn for calibration."""
_NOT_PROVEN = (
    "that the model's decisions got worse: inputs may drift without harm, and harm may come without drift",
    "changes in columns that were not watched, or in how watched ones depend on each other",
    "power against other changes than a shift of the mean of all watched columns",
    "false alarms on streams whose rows depend on each other: calibration draws rows independently",
)


@stage(
    "monitoring.drift",
    predicate="drift",
    extra="monitor",
    cost="seconds: the detector over twice as many drawn streams as trials, then over the stream",
    not_proven=_NOT_PROVEN,
)
def drift(
    model: ModelPath,  # noqa: ARG001 - the subject; its digest is what the runner takes
    reference: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    stream: DatasetPath,  # noqa: ARG001 - same
    columns: str,
    reference_table: EntryPath = "",
    stream_table: EntryPath = "",
    detector: str = "adwin",
    sensitivity: float = 0.002,
    shift: float = 0.5,
    trials: int = 100,
    minimum_power: float = 0.8,
    maximum_false_alarms: float = 0.1,
    known_change: int = 0,
    level: float = 0.95,
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Watch columns of a stream for drift from a reference, and measure false alarms and power on that reference.

    Args:
        model: the model that is watched; only its digest counts here.
        reference: a table of what the model was made for.
        stream: a table of what it sees now, rows in the order of their coming.
        columns: names of the columns to watch, separated by commas; inputs, or a column of scores.
        reference_table: the table inside a reference directory, CSV or parquet.
        stream_table: the table inside a stream directory.
        detector: adwin, kswin or page-hinkley.
        sensitivity: of the detector, between 0 and 1; a smaller one alarms less often.
        shift: in standard deviations, the change against which power is measured.
        trials: streams drawn from the reference without the change, and as many with it.
        minimum_power: share of changed streams that must be detected, by its lower bound; 0.5 or more.
        maximum_false_alarms: share of unchanged streams that may alarm, by its upper bound; 0.5 or less.
        known_change: row of the stream at which something is known to have changed; 0 for none.
        level: confidence of the bounds.
        seed: of the drawing; not part of the configuration digest.

    Guarantees:
        Only counts, row numbers and rates leave this stage. A silent stream whose detector has no power says
        `sufficient: false`. Values farther than ten standard deviations of the reference count as ten, so that one row
        cannot blind a detector to those after it.

    Edge cases:
        Missing or infinite values raise `Misuse`; a column that never varies in the reference raises `Unchecked`.
    """
    require("river", "monitor")
    import numpy as np

    names = [name.strip() for name in columns.split(",") if name.strip()]
    _require_sane(names, shift, trials, level, known_change)
    _require_meaning(minimum_power, maximum_false_alarms)
    known, seen = _table(context, "reference", reference_table, names), _table(context, "stream", stream_table, names)
    if known_change >= len(seen):
        raise Misuse("the known change lies beyond the stream", got=known_change, expected=f"below {len(seen)}")
    scale = streams.scale_of(known, names)
    make = streams.factory(detector, sensitivity, seed)
    rng = np.random.default_rng(seed)
    quiet, changed = _calibrate(
        scale.apply(known), min(len(seen), _LONGEST), shift, trials, make, rng, context.progress
    )
    found = streams.alarms(scale.apply(seen), make)
    high = proportions.interval(quiet["alarmed"], trials, level)[1]
    low = proportions.interval(changed["detected"], trials, level)[0]
    rows = sorted(row for column in found for row in column)
    fields: dict[str, Any] = {
        "reference": context.resource("reference"),
        "stream": context.resource("stream"),
        "columns": names,
        "observations": len(seen),
        "detector": {"name": detector, "sensitivity": sensitivity},
        "alarmed": bool(rows),
        "alarms": [
            {"column": name, "count": len(column), "first": column[0]}
            for name, column in zip(names, found, strict=True)
            if column
        ],
        "falseAlarms": {"streams": trials, **quiet, "high": round(high, 4)},
        "power": {"shift": shift, "streams": trials, **changed, "low": round(low, 4)},
        **({"knownChange": _known_change(rows, known_change)} if known_change else {}),
        "level": level,
        "minimumPower": minimum_power,
        "maximumFalseAlarms": maximum_false_alarms,
        "sufficient": low >= minimum_power and high <= maximum_false_alarms,
    }
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return Finding(subjects=("model",), fields=fields, seed=seed, libraries=libraries)


def _require_sane(names: list[str], shift: float, trials: int, level: float, known_change: int) -> None:
    if not names or len(set(names)) != len(names):
        raise Misuse("no columns to watch, or one twice", got=", ".join(names), expected="--columns a,b")
    if not 0 < shift <= 100 or not 20 <= trials <= 10_000 or not 0.5 <= level < 1 or known_change < 0:
        raise Misuse(
            "drift parameters are out of range",
            got=f"shift {shift}, trials {trials}, level {level}, known change {known_change}",
            expected="0 < shift ≤ 100, 20 to 10000 trials, 0.5 ≤ level < 1, known change ≥ 0",
        )


def _require_meaning(minimum_power: float, maximum_false_alarms: float) -> None:
    """A silence of a detector that notices less than every second change is no silence."""
    if not (0.5 <= minimum_power < 1 and 0 < maximum_false_alarms <= 0.5):
        raise Misuse(
            "with these thresholds silence would mean nothing",
            got=f"power {minimum_power}, false alarms {maximum_false_alarms}",
            expected="0.5 ≤ --minimum-power < 1, 0 < --maximum-false-alarms ≤ 0.5",
        )


def _table(context: Context, name: str, inside: str, columns: list[str]) -> NDArray[np.float64]:
    entry = tables.entry(context.measured[name], inside)
    return streams.numbers(tables.read(context.private_file(name, entry)), columns, name)


def _calibrate(
    reference: NDArray[np.float64],
    length: int,
    shift: float,
    trials: int,
    make: Callable[[], Any],
    rng: np.random.Generator,
    progress: Callable[[int, int, str], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Streams of `length` rows drawn from the reference: what happens without a change, and with one half-way.

    An alarm before the change does not count as its detection.
    """
    alarmed, alarms, delays, half = 0, 0, [], length // 2
    for trial in range(trials):
        progress(trial, trials, "streams")
        drawn = reference[rng.integers(0, len(reference), length)]
        rows = [row for column in streams.alarms(drawn, make) for row in column]
        alarmed, alarms = alarmed + bool(rows), alarms + len(rows)
        drawn[half:] += shift
        if after := [row for column in streams.alarms(drawn, make) for row in column if row >= half]:
            delays.append(min(after) - half)
    quiet = {"alarmed": alarmed, "perThousand": round(1000 * alarms / (trials * length), 4)}
    changed: dict[str, Any] = {"detected": len(delays)}
    if delays:
        changed["medianDelay"] = int(statistics.median(delays))
    return quiet, changed


def _known_change(rows: list[int], at: int) -> dict[str, Any]:
    after = [row - at for row in rows if row >= at]
    return {"at": at, "earlier": len(rows) - len(after), **({"delay": after[0]} if after else {})}
