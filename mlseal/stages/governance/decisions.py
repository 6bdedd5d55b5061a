"""From a model and a table to decisions: who would be chosen.

The rule is one of

``predict``           the model's own classes, which must be 0 and 1
``top:FRACTION``      the given share of rows with the highest scores; ties at the cut go by row order, and are counted
``threshold:NUMBER``  every row whose score is at least that
``column:NAME``       a column of 0 and 1 in the table; no model runs, so the finding is declared, not measured
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mlseal.errors import Misuse
from mlseal.stages.scored import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RuleName = Literal["predict", "top-fraction", "threshold", "column"]


@dataclass(frozen=True)
class Rule:
    """How scores become decisions; ``amount`` is the fraction or threshold, ``column`` the column."""

    name: _RuleName
    amount: float | None = None
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule that `text` spells; see the module. Raises `Misuse`."""
        word, _, rest = text.partition(":")
        if word == "predict" and not rest:
            return cls("predict")
        if word == "column" and rest:
            return cls("column", column=rest)
        try:
            amount = float(rest)
        except ValueError:
            amount = math.nan
        if word == "top" and 0 < amount < 1:
            return cls("top-fraction", amount)
        if word == "threshold" and math.isfinite(amount):
            return cls("threshold", amount)
        raise Misuse(
            "the selection rule is unknown",
            got=text[:80],
            expected="predict, top:FRACTION, threshold:NUMBER or column:NAME",
        )

    @property
    def kind(self) -> Kind:
        """What the scorer is asked for."""
        return "decision" if self.name == "predict" else "score"

    def to_json(self) -> dict[str, Any]:
        """The rule as the predicate holds it."""
        fields: dict[str, Any] = {"rule": self.name}
        if self.name == "top-fraction":
            fields["fraction"] = self.amount
        if self.name == "threshold":
            fields["threshold"] = self.amount
        return fields


def apply(rule: Rule, scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """Decisions 0 and 1, and how many rows share the score at the cut of a top fraction."""
    import numpy as np

    if rule.amount is None:
        return binary(scores, "the model's decisions"), 0
    if rule.name == "top-fraction":
        chosen = np.argsort(-scores, kind="stable")[: round(rule.amount * len(scores))]
        decisions = np.zeros(len(scores), dtype=np.int64)
        decisions[chosen] = 1
        ties = int((scores == scores[chosen[-1]]).sum()) if len(chosen) else 0
        return decisions, ties if ties > 1 else 0
    return (scores >= rule.amount).astype(np.int64), 0


def binary(values: NDArray[Any], what: str) -> NDArray[np.int64]:
    """`values` as 0 and 1. Raises `Misuse` that counts what else is there: values are people's, and logs are kept."""
    import numpy as np

    found = np.unique(values)
    if not set(found.tolist()) <= {0, 1}:
        kind = "numbers" if np.issubdtype(found.dtype, np.number) else "texts"
        raise Misuse(f"{what} must be 0 and 1", got=f"{len(found)} different {kind}")
    return values.astype(np.int64)
