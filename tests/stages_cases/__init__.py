"""What every stage is tried with: one file for each, ``MOMENT_STAGE.py``, that holds its `CASE`.

`tests/unit/stages/test_every_stage.py` runs each registered stage through these. A new stage brings its file here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Error

KINDS = ("empty", "nan", "wrong shape", "missing column", "wrong type")
"""Bad inputs that every case answers: with a `Bad`, or with a sentence that says why it cannot be given to it."""


@dataclass(frozen=True)
class World:
    """Where a case makes its inputs.

    Attributes:
        root: a fresh folder.
        canary: to be put into cells, labels, texts and printed lines, not into column names and arguments.
        authority: a running trust service.
        mark: what the names of files begin with; it must not come out where names are committed.
    """

    root: Path
    canary: str
    authority: Any
    mark: str = ""

    def path(self, name: str) -> Path:
        """A path of that name, marked, in the fresh folder."""
        return self.root / f"{self.mark}{name}"


@dataclass(frozen=True)
class Bad:
    """An input that a stage cannot use.

    Attributes:
        spoil: gets the world and the good arguments; changes files in place, or returns other arguments.
        error: what is raised.
        match: regular expression found in its sentence.
    """

    spoil: Callable[[World, dict[str, Any]], dict[str, Any] | None]
    error: type[Error]
    match: str


@dataclass(frozen=True)
class Case:
    """How a stage is tried.

    Attributes:
        make: good arguments on data full of the canary, without the outputs.
        bad: one for each of `KINDS`, and more if you like.
        repeats: True if the same seed gives the same predicate apart from times and run id, else a sentence why not.
        varies: dotted fields of the predicate that may differ all the same.
        shows: a sentence if lines of a foreign program are shown to the person who waits; otherwise none may hold data.
        extra_case: arguments for the run without the libraries of the stage's extra; default `make`.
        slow: whether a run takes ten seconds or more.
    """

    make: Callable[[World], dict[str, Any]]
    bad: Mapping[str, Bad | str]
    repeats: bool | str = True
    varies: tuple[str, ...] = ()
    shows: str = ""
    extra_case: Callable[[World], dict[str, Any]] | None = None
    slow: bool = False


def case_of(name: str) -> Case:
    """The case of stage `name`; `ModuleNotFoundError` if nobody wrote it."""
    case = importlib.import_module(f"tests.stages_cases.{name.replace('.', '_')}").CASE
    assert isinstance(case, Case)
    assert set(KINDS) <= set(case.bad), f"{name} does not answer {set(KINDS) - set(case.bad)}"
    return case
