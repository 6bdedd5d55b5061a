"""Tables as stages read them: one file, or one file of a data set directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
    """The table as a pandas frame. Raises `Misuse` for an unknown format, `Unreadable` as `parsed` does."""
    if path.suffix not in {".csv", ".parquet"}:
        raise Misuse(f"{path.name} is no table", expected=".csv or .parquet")
    return parsed(path, path.name)


def parsed(source: Path | IO[bytes], name: str) -> Any:
    """The frame in a file of comma-separated UTF-8 or, where `name` ends so, of parquet.

    Raises `Unreadable` for a damaged or empty one, and for one of which pandas would keep values where no stage looks:
    fields beyond the header and the index of a parquet file become labels of rows, and a table with another separator
    is one column of text.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(source) if name.endswith(".parquet") else pd.read_csv(source)
    except (OSError, ValueError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        raise Unreadable(
            f"table {name} cannot be read", got=str(error)[:200], expected="comma-separated UTF-8, or parquet"
        ) from error
    if frame.empty:
        raise Unreadable(f"table {name} has no rows")
    _require_all_in_columns(frame, name)
    return frame


def _require_all_in_columns(frame: Any, name: str) -> None:
    import pandas as pd

    if not (isinstance(frame.index, pd.RangeIndex) and frame.index.name is None):
        if name.endswith(".parquet"):
            kept = ", ".join(str(label) for label in frame.index.names if label is not None)
            raise Unreadable(
                f"table {name} keeps values in an index, which no stage reads",
                got=f"index {kept}" if kept else "an index without a name",
                remedy="write it after frame.reset_index(), or reset_index(drop=True) if it means nothing",
            )
        raise Unreadable(
            f"rows of table {name} have more fields than its header",
            got=f"{len(frame.columns)} names, {len(frame.columns) + frame.index.nlevels} fields",
            remedy="name each column, and take separators off the ends of rows",
        )
    if len(frame.columns) == 1 and (found := [mark for mark in ";\t|" if mark in str(frame.columns[0])]):
        raise Unreadable(
            f"table {name} is one column",
            got=f"a header with {found[0]!r} in it",
            expected="columns separated by commas",
            remedy=f"write it again: pandas.read_csv(FILE, sep={found[0]!r}).to_csv(NEW, index=False)",
        )


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
