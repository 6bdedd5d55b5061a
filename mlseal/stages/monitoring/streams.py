"""Detectors over tables: every column of a stream watched by one detector of the library river.

Columns are brought to the reference's mean and standard deviation first, so one sensitivity suits all of them, and cut
at `FAR` deviations: a detector that keeps a variance, as ADWIN does, would be blind for long after a single huge value,
and anybody can send one who can ask the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DETECTORS = ("adwin", "kswin", "page-hinkley")
FAR = 10.0
"""Standard deviations of the reference beyond which values count alike."""
_PAGE_HINKLEY_START = 30  # river's own default: rows before the mean counts
_HALF = 0.5  # drift tolerated by Page-Hinkley, in standard deviations


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each reference column."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def apply(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """The table in standard deviations of the reference, at most `FAR` up or down."""
        import numpy as np

        with np.errstate(over="ignore"):
            scaled: NDArray[np.float64] = ((table - self.mean) / self.deviation).clip(-FAR, FAR)
        return scaled


def scale_of(reference: NDArray[np.float64], columns: list[str]) -> Scale:
    """The scale of the reference. Raises `Unchecked` for a column that never varies: nothing could be told from it."""
    deviation = reference.std(axis=0)
    if still := [name for name, spread in zip(columns, deviation, strict=True) if not spread > 0]:
        raise Unchecked(f"column {still[0]!r} never varies in the reference", remedy="watch another column")
    return Scale(reference.mean(axis=0), deviation)


def numbers(frame: Any, columns: list[str], what: str) -> NDArray[np.float64]:
    """The columns as finite numbers, in the order of the rows. Raises `Misuse`; rows are never dropped."""
    import numpy as np

    from mlseal.stages import tables

    found = []
    for name in columns:
        values = tables.column(frame, name, what)
        try:
            found.append(np.asarray(values, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise Misuse(f"column {name!r} of the {what} holds no numbers", got=str(values[0])[:40]) from error
        if not np.isfinite(found[-1]).all():
            raise Misuse(f"column {name!r} of the {what} holds numbers that are not finite")
    return np.column_stack(found)


def alarms(table: NDArray[np.float64], make: Callable[[], Any]) -> list[list[int]]:
    """For each column the rows at which its detector raised an alarm; `make` gives a fresh detector."""
    found: list[list[int]] = []
    for column in table.T:
        detector, rows = make(), []
        update = detector.update
        for row, value in enumerate(column.tolist()):
            update(value)
            if detector.drift_detected:
                rows.append(row)
        found.append(rows)
    return found


def factory(name: str, sensitivity: float, seed: int) -> Callable[[], Any]:
    """What makes detectors called `name`. A smaller `sensitivity` alarms less often.

    It is ADWIN's delta (Bifet and Gavaldà 2007), KSWIN's alpha (Raab and others 2020), and for Page-Hinkley (Page 1954)
    the inverse of the threshold in standard deviations.
    """
    from river import drift

    if name not in DETECTORS or not 0 < sensitivity < 1:
        raise Misuse("no such detector", got=f"{name} at {sensitivity}", expected=f"{', '.join(DETECTORS)}; 0 to 1")
    if name == "adwin":
        return lambda: drift.ADWIN(delta=sensitivity)
    if name == "kswin":
        return lambda: drift.KSWIN(alpha=sensitivity, seed=seed)
    return lambda: drift.PageHinkley(
        min_instances=_PAGE_HINKLEY_START, delta=_HALF, threshold=1 / sensitivity, mode="both"
    )
