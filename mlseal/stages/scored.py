"""A model's answers on a table, from a child process: loading a pickle runs the model's code, so it never runs here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlseal.errors import Misuse, Unchecked, Unreadable
from mlseal.evidence.identity import Identity
from mlseal.stages import process, provenance
from mlseal.stages.base import Context

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUILTIN_SCORER = Path(__file__).with_name("scoring.py")
Kind = Literal["decision", "score", "probability"]
"""The class, the model's own score, or the probability of class 1."""


def loadable(context: Context, scorer: Path | None) -> Path:
    """A proven copy of input ``model``. Raises `Misuse` unless it is an MLflow directory or `scorer` can load it."""
    copy = context.private_copy("model")
    if scorer is None and not (copy / "MLmodel").is_file():
        raise Misuse("the model is no MLflow directory", remedy="pass --scorer PROGRAM that can load it")
    return copy


def producer(context: Context, issuer: str, san: str) -> str | None:
    """Evidence id of the verified provenance of input ``model``, or None when nobody asked for it."""
    if not issuer and not san:
        return None
    signer = Identity(issuer, san)
    return provenance.newest(context, context.measured["model"], "slsa-provenance", signer).evidence_id


def features_of(model: Path) -> list[str] | None:
    """Names of the columns that the model declares in its MLflow signature; None if it declares none."""
    import yaml

    file = model / "MLmodel"
    if not file.is_file():
        return None
    try:
        signature = yaml.safe_load(file.read_text(encoding="utf-8")).get("signature") or {}
        names = [column["name"] for column in json.loads(signature.get("inputs") or "[]") if "name" in column]
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise Unreadable("the model's MLmodel file cannot be read", got=str(error)[:200]) from error
    return names or None


def score(
    context: Context, model: Path, table: Any, scorer: Path | None, kind: Kind, timeout: float
) -> NDArray[np.float64]:
    """One number a row of `table`, from the scorer in a child process.

    Raises `Unchecked` when it fails, its output is not one finite number a row, or a probability is none.
    """
    data, out = context.workspace / "features.parquet", context.workspace / "scores"
    table.to_parquet(data, index=False)
    arguments = ["--model", str(model), "--data", str(data), "--kind", kind, "--out", str(out)]
    home, remedy = (
        context.workspace / "home",
        "mend the scorer" if scorer else "see whether the model takes these columns",
    )
    program = process.Program(scorer or BUILTIN_SCORER, arguments, home, timeout, remedy)
    process.run(program, context.log)
    found = _read(out, len(table))
    if kind == "probability" and not ((found >= 0) & (found <= 1)).all():
        raise Unchecked("the scorer's probabilities lie outside 0 to 1", remedy="mend the scorer")
    return found


def _read(out: Path, rows: int) -> NDArray[np.float64]:
    import numpy as np

    try:
        lines: Sequence[str] = out.read_text(encoding="utf-8").split()
        scores = np.array(lines, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise Unchecked("the scorer left no readable scores", got=str(error)[:200], expected="numbers") from error
    if len(scores) != rows or not np.isfinite(scores).all():
        raise Unchecked(
            "the scorer's output does not fit the table",
            got=f"{len(scores)} numbers, {int(np.isfinite(scores).sum())} of them finite",
            expected=f"{rows} finite numbers",
            remedy="mend the scorer",
        )
    return scores
