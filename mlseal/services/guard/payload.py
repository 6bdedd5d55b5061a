"""The body of a scoring request as a table: MLflow's four JSON forms, read strictly.

``dataframe_split``    ``{"columns": […], "data": [[…], …]}``; ``index`` only as MLflow writes it, 0 to n - 1
``dataframe_records``  ``[{"column": value, …}, …]``
``instances``          a list of mappings
``inputs``             column → list of values

Anything else is refused: two forms at once, a tensor, a duplicate key, a number that is not finite, rows of different
length, and any other ``index``: pandas makes as many rows as it names, and the model reads what stands in it. What
passes is sent on as the bytes that were read, so nobody downstream parses something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlseal.errors import MalformedEvidence, Misuse
from mlseal.evidence import canonical

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Rows:
    """A table: column names, and rows of as many cells."""

    columns: tuple[str, ...]
    data: Sequence[Sequence[Cell]]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.data)


def read(body: bytes, limit: int, max_rows: int) -> Rows:
    """The rows in `body`, of at most `limit` bytes. Raises `Misuse` with what is wrong with it."""
    try:
        document = canonical.parse(body, what="request", limit=limit)
    except MalformedEvidence as error:
        raise Misuse(error.message, got=error.got, expected=error.expected) from error
    given = [form for form in FORMS if isinstance(document, dict) and form in document]
    if len(given) != 1 or set(document) - {given[0], "params"}:
        raise Misuse("not a scoring request", expected=f"one of {', '.join(FORMS)}, and nothing else but params")
    if document.get("params"):
        raise Misuse("parameters are not let through", remedy="leave params out")
    rows = _split(document[given[0]]) if given[0] == "dataframe_split" else _named(document[given[0]], given[0])
    if not 0 < len(rows) <= max_rows:
        raise Misuse("too many rows, or none", got=len(rows), expected=f"1 to {max_rows}")
    for row in rows.data:
        if len(row) != len(rows.columns) or not all(_is_cell(cell) for cell in row):
            raise Misuse("a row does not fit the columns", expected=f"{len(rows.columns)} plain values")
    return rows


def _split(value: Any) -> Rows:
    if not isinstance(value, dict) or not {"columns", "data"} <= set(value) <= {"columns", "data", "index"}:
        raise Misuse("dataframe_split needs columns and data", got=type(value).__name__)
    columns, data = value["columns"], value["data"]
    if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
        raise Misuse("dataframe_split's data is not a list of rows")
    if "index" in value and not _counts(value["index"], len(data)):
        raise Misuse(
            "dataframe_split's index is not let through",
            expected=f"0 to {len(data) - 1}" if data else "none",
            remedy="leave index out",
        )
    return Rows(_names(columns), data)


def _counts(index: Any, rows: int) -> bool:
    """Whether `index` numbers the rows from nought; ``true`` and ``1.0`` are equal to 1 and no numbers of rows."""
    return isinstance(index, list) and all(type(place) is int for place in index) and index == list(range(rows))


def _named(value: Any, form: str) -> Rows:
    if form == "inputs" and isinstance(value, dict):
        columns = _names(list(value))
        cells = list(value.values())
        if not all(isinstance(column, list) for column in cells) or len({len(column) for column in cells}) > 1:
            raise Misuse("inputs needs lists of one length", expected="column → list of values")
        return Rows(columns, [list(row) for row in zip(*cells, strict=True)])
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise Misuse(f"{form} is not a list of named values", expected="[{column: value, …}, …]")
    columns = _names(list(value[0]))
    if any(row.keys() != value[0].keys() for row in value):
        raise Misuse(f"the rows of {form} name different columns")
    return Rows(columns, [[row[name] for name in columns] for row in value])


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise Misuse("columns is not a list of names")
    if len(set(value)) != len(value):
        raise Misuse("a column is named twice")
    return tuple(value)


def _is_cell(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
