"""The texts of a data set, and the data set again with other texts in their place.

A data set is a table (CSV or parquet; the whole of a file or one file of a directory) or a directory of ``.txt`` files.
In a table each column is looked at by its header first: where that says what the values are, every value is that, since
"sansa" in a column ``first_name`` is a name that no model would know. Texts and whole numbers are scanned; numbers with
fractions, times and truth values are not, and are listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlseal.errors import Misuse, Unreadable
from mlseal.stages import tables
from mlseal.stages.base import Context
from mlseal.stages.ingestion.personal.recognizers import ADDRESS, DATE_OF_BIRTH, RECORD

_HEADERS: tuple[tuple[str, str], ...] = (
    (
        r"(.*_)?(first|last|middle|maiden|given|family|full|patient|person|contact|doctor|physician|fore|sur)_?names?",
        "PERSON",
    ),
    (r"names?|surname|forename|patient|attending", "PERSON"),
    (r"(.*_)?(mrn|medical_?record(_?(number|no|id))?|chart_?(no|number)|patient_?(number|no))", RECORD),
    (r"(.*_)?(dob|birth_?da(te|y)|date_?of_?birth|born(_on)?)", DATE_OF_BIRTH),
    (r"(.*_)?(ssn|social_?security(_?(number|no))?)", "US_SSN"),
    (r"(.*_)?(phone|telephone|mobile|cell|fax|tel)(_?(number|no))?", "PHONE_NUMBER"),
    (r"(.*_)?e_?mail(_?address)?", "EMAIL_ADDRESS"),
    (r"(home_?|street_?|postal_?|mailing_?)?address(_?line)?(_?\d)?|street", ADDRESS),
    (r"(.*_)?(zip|zip_?code|post_?code|postal_?code)", "LOCATION"),
    (r"(.*_)?ip(_?address)?", "IP_ADDRESS"),
)
By = Literal["header", "content"]


@dataclass(frozen=True)
class Part:
    """A column of a table, or all files of a directory.

    Attributes:
        name: of the column; None for files.
        texts: one for each value that is there.
        kind: what every value is, by the header; None if the content has to say.
        context: words that stand beside every value.
        put: writes the texts that stand in place of `texts`.
    """

    name: str | None
    texts: list[str]
    kind: str | None
    context: tuple[str, ...]
    put: Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Source:
    """A data set, open: its parts, the columns that are not looked at, and how it is written with other texts."""

    unit: Literal["cell", "file"]
    parts: tuple[Part, ...]
    not_scanned: tuple[str, ...]
    write: Callable[[Path], None]


def read(context: Context, table: str) -> Source:
    """The data set of `context`. Raises `Misuse` for neither table nor texts, `Unreadable` for what is damaged."""
    measured = context.measured["dataset"]
    files = [f.path for f in measured.manifest.files] if measured.manifest else []
    if not table and files and all(path.endswith(".txt") for path in files):
        return _texts(context.private_copy("dataset"), sorted(files))
    entry = tables.entry(measured, table)
    file = context.private_file("dataset", entry)
    if file.suffix == ".txt":
        return _texts(file.parent, [file.name])
    return _table(tables.read(file), file.suffix)


def kind_of(header: str) -> str | None:
    """What a column's header says of its values."""
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", header).lower()).strip("_")
    return next((kind for pattern, kind in _HEADERS if re.fullmatch(pattern, plain)), None)


def _texts(folder: Path, names: list[str]) -> Source:
    try:
        texts = [(folder / name).read_text(encoding="utf-8") for name in names]
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable("a text of the data set cannot be read", got=type(error).__name__, expected="UTF-8") from error
    if not any(text.strip() for text in texts):
        raise Unreadable("the data set has no text", expected="at least one .txt file that is not empty")
    replaced: list[str] = list(texts)

    def put(others: Sequence[str]) -> None:
        replaced[:] = others

    def write(target: Path) -> None:
        # Files are called after people; numbers say as much as a redacted text may.
        target.mkdir()
        for number, text in enumerate(replaced, 1):
            (target / f"{number:06d}.txt").write_text(text, encoding="utf-8")

    return Source("file", (Part(None, texts, None, (), put),), (), write)


def _table(frame: Any, suffix: str) -> Source:
    parts, skipped = [], []
    if len(set(map(str, frame.columns))) != len(frame.columns):
        raise Misuse("two columns of the table have one name")
    replaced = frame.copy()
    for column in frame.columns:
        kind = kind_of(str(column))
        values = frame[column].dropna()
        if kind is None and not _scannable(values):
            skipped.append(str(column))
        elif len(values):
            parts.append(_part(str(column), column, values, kind, replaced))
    if not parts:
        raise Unreadable("the table holds nothing that can be looked at", expected="a column of texts or whole numbers")

    def write(target: Path) -> None:
        # In a directory: an artifact of a pipeline has a name of its own, and a table is known by its suffix.
        target.mkdir()
        if suffix == ".csv":
            replaced.to_csv(target / "table.csv", index=False)
        else:
            replaced.to_parquet(target / "table.parquet", index=False)

    return Source("cell", tuple(parts), tuple(skipped), write)


def _part(name: str, column: Any, values: Any, kind: str | None, replaced: Any) -> Part:
    texts = [_text(value) for value in values]

    def put(others: Sequence[str]) -> None:
        if list(others) == texts:  # the column keeps its type
            return
        changed = replaced[column].astype(object)
        changed.loc[values.index] = list(others)
        replaced[column] = changed

    context = tuple(word for word in re.split(r"[^A-Za-z]+", name) if word)
    return Part(name, texts, kind, context, put)


def _scannable(values: Any) -> bool:
    from pandas.api import types

    if types.is_bool_dtype(values) or types.is_datetime64_any_dtype(values) or types.is_timedelta64_dtype(values):
        return False
    # Whole numbers beside a gap are read as floats: a column of phone numbers must not slip through for that.
    return not types.is_float_dtype(values) or bool(len(values) and (values % 1 == 0).all())


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
