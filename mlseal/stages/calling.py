"""The call of a stage's function: whatever happens in there is a finding or one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlseal.errors import Error, Misuse, Unchecked, Unreadable
from mlseal.evidence.digest import Measured, measure
from mlseal.stages.base import Context, Finding, Stage


def call(stage: Stage, arguments: Mapping[str, Any], context: Context) -> Finding:
    """What `stage` found. Raises its own `Error`, `Cancelled` if it was stopped, `Unchecked` for anything else."""
    try:
        finding = stage.function(**arguments, context=context)
    except Error:
        context.check()  # a child that was ended because the run is to stop did not fail
        raise
    except MemoryError as error:
        raise Unchecked(f"stage {stage.name} ran out of memory", remedy="give it more, or a smaller input") from error
    except Exception as error:
        context.check()
        # A bug or a foreign library's exception is one sentence too, and never a pass; `__cause__` keeps the trace. Its
        # message may quote the data, and sentences end in the logs of clusters: the place says enough.
        raise Unchecked(
            f"stage {stage.name} stopped on an unexpected {type(error).__name__}",
            got=_place(error),
            remedy="run again with MLSEAL_DEBUG=1 to see where, and report it",
        ) from error
    if not isinstance(finding, Finding):
        raise Misuse(f"stage {stage.name} returned no finding", got=type(finding).__name__)
    context.check()
    return finding


def _place(error: Exception) -> str:
    """Module and line that raised `error`."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f"line {frame.tb_lineno} of {frame.tb_frame.f_globals.get('__name__')}" if frame else "no place"


def output(stage: Stage, key: str, path: Path, name: str) -> Measured:
    """What `stage` left as output `key` at `path`, measured under its final `name`. Raises `Unchecked`."""
    if path.is_symlink():
        raise Unchecked(f"stage {stage.name} left a link as output {key}", expected="a file or directory of its own")
    try:
        return measure(path, name=name)
    except Unreadable as error:
        raise Unchecked(f"stage {stage.name} left no usable output {key}", got=error.message) from error
