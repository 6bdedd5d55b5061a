"""Rows unlike the reference: Mahalanobis distance for numbers, unseen values for texts. A signal, not a defence.

The covariance is scikit-learn's Ledoit-Wolf estimate (Ledoit and Wolf 2004) over one half of the reference rows, drawn
with a fixed seed; the threshold is the quantile of the other half at the stated false positive rate, so the rate holds
for rows like the reference and says nothing of any other. Inputs crafted to lie near the data pass.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import DigestMismatch, Misuse, Unchecked, Unreadable
from mlseal.services.guard.payload import Rows
from mlseal.services.guard.settings import OutliersPart
from mlseal.services.guard.signature import TEXT, Signature
from mlseal.stages import tables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MINIMUM = 200
"""Rows that the reference needs; fewer calibrate nothing."""
_MOST_VALUES = 1000  # a text column with more values is free text, of which "unseen" says nothing
_SEED = 0


@dataclass(frozen=True)
class Outliers:
    """The reference as far as requests are compared with it."""

    numbers: tuple[str, ...]
    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    threshold: float
    values: Mapping[str, frozenset[str]]

    def count(self, rows: Rows) -> int:
        """How many of `rows` are far from the reference; a missing number counts as the mean."""
        import numpy as np

        place = {name: index for index, name in enumerate(rows.columns)}
        table = np.tile(self.mean, (len(rows), 1))
        for column, name in enumerate(self.numbers):
            if name in place:
                cells = [row[place[name]] for row in rows.data]
                table[:, column] = [self.mean[column] if cell is None else float(cell) for cell in cells]
        far = ~(self._distance(table) <= self.threshold)  # a distance that overflows to NaN is no near one
        for name, known in self.values.items():
            if name in place:
                far |= np.array([row[place[name]] is not None and row[place[name]] not in known for row in rows.data])
        return int(far.sum())

    def _distance(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            centred = table - self.mean
            return np.asarray(np.einsum("ij,jk,ik->i", centred, self.precision, centred))


def fit(part: OutliersPart, file: Path, signature: Signature) -> Outliers:
    """Calibrate on the reference table in `file`, CSV or parquet.

    Raises `DigestMismatch` unless the file has the digest that the settings state, `Misuse` if it lacks a column of
    the model, `Unchecked` with fewer than `MINIMUM` complete rows.
    """
    import numpy as np
    from sklearn.covariance import LedoitWolf

    frame = _read(part, file)
    if missing := [column.name for column in signature.columns if column.name not in frame.columns]:
        raise Misuse(f"the reference has no column {missing[0]!r}", got=str(file))
    numbers = tuple(c.name for c in signature.columns if c.type not in {TEXT, "datetime"})
    table = frame[list(numbers)].dropna().to_numpy(dtype=np.float64)
    if len(table) < MINIMUM or not numbers:
        raise Unchecked("the reference is too small", got=f"{len(table)} complete rows", expected=f"{MINIMUM} or more")
    order = np.random.default_rng(_SEED).permutation(len(table))
    half = len(table) // 2
    model = LedoitWolf().fit(table[order[:half]])
    found = Outliers(numbers, model.location_, model.precision_, 0.0, _values(frame, signature))
    distances = found._distance(table[order[half:]])  # noqa: SLF001 - the same class, before it has its threshold
    threshold = float(np.quantile(distances, 1 - part.false_positive_rate, method="higher"))
    return Outliers(numbers, model.location_, model.precision_, threshold, found.values)


def _values(frame: Any, signature: Signature) -> dict[str, frozenset[str]]:
    listed = {name: frozenset(map(str, frame[name].dropna().unique())) for name in signature.texts}
    return {name: known for name, known in listed.items() if len(known) <= _MOST_VALUES}


def _read(part: OutliersPart, file: Path) -> Any:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read the reference {file}", got=error.strerror) from error
    if (found := hashlib.sha256(data).hexdigest()) != part.sha256:
        raise DigestMismatch(
            "the reference is not the one that the settings state",
            got=found,
            expected=part.sha256,
            remedy="restore the file, or state its digest after looking at it",
        )
    return tables.parsed(io.BytesIO(data), file.name)
