"""Tables as stages read them: one file, or one file of a data set directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unreadable
from mlseal.evidence.digest import Measured

if TYPE_CHECKING:
    from numpy.typing import NDArray


def entry(measured: Measured, inside: str) -> str:
    """The manifest path of the table in a data set directory, "" for a single file. Raises `Misuse`.

    Only what the manifest lists can be named, so that no path leads out of what was measured.
    """
    if measured.manifest is None:
        if inside:
            raise Misuse("--table is for data set directories", got=inside, expected="no --table with a single file")
        return ""
    known = [f.path for f in measured.manifest.files]
    if inside not in known:
        tables = [path for path in known if path.endswith((".csv", ".parquet"))]
        raise Misuse("the data set has no such table", got=inside or "no --table", expected=", ".join(tables[:8]))
    return inside


def read(path: Path) -> Any:
    """The table as a pandas frame. Raises `Misuse` for an unknown format, `Unreadable` for a damaged or empty one."""
    import pandas as pd

    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise Misuse(f"{path.name} is no table", expected=".csv or .parquet")
    try:
        frame = readers[path.suffix](path)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise Unreadable(f"table {path.name} cannot be read", got=str(error)[:200]) from error
    if frame.empty:
        raise Unreadable(f"table {path.name} has no rows")
    return frame


def column(frame: Any, name: str, purpose: str) -> NDArray[Any]:
    """One column without gaps. Raises `Misuse` when it is absent or has missing values: rows are never dropped here."""
    if name not in frame.columns:
        known = ", ".join(map(str, list(frame.columns)[:30]))
        raise Misuse(f"the table has no column {name!r} for the {purpose}", expected=f"one of {known}")
    series = frame[name]
    if series.isna().any():
        raise Misuse(
            f"column {name!r} has missing values",
            got=f"{int(series.isna().sum())} of {len(series)} rows",
            remedy="decide about them in the data, where the decision is signed",
        )
    values: NDArray[Any] = series.to_numpy()
    return values


def require_columns(frame: Any, wanted: Sequence[str]) -> Any:
    """The columns that a model declares, in its order. Raises `Misuse` naming those that are absent."""
    absent = [name for name in wanted if name not in frame.columns]
    if absent:
        raise Misuse("the table lacks features of the model", got="no " + ", ".join(absent[:8]))
    return frame[list(wanted)]
