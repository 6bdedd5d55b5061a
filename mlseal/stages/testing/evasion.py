"""Can a row be moved a little so that a model decides wrongly? One attack sees parameters, one decisions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlseal.errors import Unchecked
from mlseal.stages import asking, dense, scored, tables
from mlseal.stages.base import (
    Context,
    DatasetPath,
    EntryPath,
    Finding,
    ModelPath,
    Settings,
    require,
    stage,
)
from mlseal.stages.testing import attacked, attacking, space
from mlseal.stages.testing.attacked import Outcome, Rows
from mlseal.stages.testing.attacking import Plan
from mlseal.stages.testing.perturbing import Ask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NOT_PROVEN = (
    "that no attack gets further: these are two, with the steps and queries that they were given",
    "that the constraints are those of the world: what is fixed here somebody may be able to forge",
    "anything about changes that no share of each column's range measures, or about people unlike these rows",
)
_BLACK_BOX_ONLY = (
    "whether gradients are masked, or how far an attacker gets who has the parameters: this model gave decisions alone"
)
_UNVERIFIED = "that the model's provenance was verified before its code ran here"
_INDEPENDENT = "how sure the rates are when rows are one person's or one household's: bounds take rows as independent"
_HIDDEN = "how robust the model is: its gradients lead nowhere, so the rate of the gradient attack says nothing"


@stage(
    "testing.evasion",
    predicate="security-evaluation",
    extra="robustness",
    cost="minutes: the black-box attack asks the model a few hundred times for each row attacked",
    not_proven=_NOT_PROVEN,
)
def evasion(
    model: ModelPath,  # noqa: ARG001 - read through the context, as a proven copy
    dataset: DatasetPath,  # noqa: ARG001 - same
    outcome: str,
    table: EntryPath = "",
    budgets: str = "0.05,0.1",
    fixed: str = "",
    ranges: Settings | None = None,
    cluster: str = "",
    rows: int = 300,
    queries: int = 300,
    producer_issuer: str = "",
    producer_san: str = "",
    minimum_rows: int = 100,
    level: float = 0.95,
    seed: int = 0,
    timeout: int = 1800,
    *,
    context: Context,
) -> Finding:
    """Measure how many rows attacks move across the model's boundary, within what the columns of the table allow.

    Args:
        model: an MLflow directory of plain numbers or of scikit-learn; a private copy is attacked.
        dataset: rows that the model did not learn from, or a directory that holds them.
        outcome: column of 0 and 1 that the model predicts; rows that it gets right are attacked.
        table: the table inside a data set directory, CSV or parquet.
        budgets: the most that a column may move, as shares of its range, rising, separated by commas.
        fixed: columns that no attacker can change, separated by commas; all others may change.
        ranges: COLUMN=LOW:HIGH within which an attacker stays; needed where the model states none.
        cluster: column naming rows that depend on each other, such as person; one row of each is attacked.
        rows: the most rows that are drawn for the attacks.
        queries: the most answers that the black-box attack may ask for, a row.
        producer_issuer: OIDC issuer of the identity that must have signed the model's provenance before it is loaded.
        producer_san: subject alternative name of that identity; without both, the finding says it was not verified.
        minimum_rows: attacked rows that count as sufficient.
        level: coverage of the intervals.
        seed: of every random choice; not part of the configuration digest.
        timeout: seconds for all answers of a model that is not of plain numbers.

    Guarantees:
        What counts as success keeps every constraint and is decided by the model itself. Columns that hold whole
        numbers in these rows move in whole numbers. Only rates leave this stage, and ranges that the caller or the
        model stated. A model of plain numbers is read; any other is loaded in a child process. There is no verdict.

    Edge cases:
        A model that is not of plain numbers gives no gradient here: only the black-box attack runs, masking is not
        checked, and the finding says both. Fewer rows than asked for, or signs of masked gradients, give
        `sufficient: false`. Columns of texts and missing values raise `Misuse`, a model that decides no row rightly
        raises `Unchecked`.
    """
    attacked.require_sane(rows, queries, minimum_rows, level)
    wanted, held = attacked.budgets_of(budgets), attacked.names_of(fixed)
    require("art", "robustness")
    require("torch", "robustness")
    verified = scored.producer(context, producer_issuer, producer_san)
    target = _Target.of(context, timeout)
    entry = tables.entry(context.measured["dataset"], table)
    frame = attacked.shuffled(tables.read(context.private_file("dataset", entry)), seed)
    names = target.names or [name for name in frame.columns if name not in {outcome, cluster}]
    everything = attacked.rows(frame, names, outcome, cluster)
    allowed = space.of(names, everything.numbers, held, {**target.ranges, **space.ranges_of(ranges or {})})
    drawn = everything.first(rows)
    right = target.decided(drawn) == drawn.truth
    if not right.any():
        raise Unchecked("the model decides no row rightly", got=f"0 of {len(drawn)}", expected="rows to attack")
    plan = Plan(drawn.chosen(right), allowed, wanted, queries, seed, context.progress)
    tried = _tried(plan, target, names)
    signs = attacked.masked(tried.white, tried.black, tried.control) if tried.white else []
    for sign in signs:
        context.log(f"masking suspected: {sign}")
    outcomes = [*tried.white, *tried.black]
    fields = {
        "kind": "evasion",
        "dataset": context.resource("dataset"),
        **({"table": context.naming.of("path", entry)} if entry else {}),
        "outcome": outcome,
        **({"cluster": cluster} if cluster else {}),
        "n": len(plan.rows),
        **({"modelProvenance": verified} if verified else {}),
        "attacks": attacked.stated(outcomes, level),
        "controls": attacked.stated(tried.control, level),
        "metrics": [
            attacked.metric("accuracy", right, level),
            attacked.common(drawn.truth, level),
            *attacked.rates(outcomes, wanted, level),
        ],
        "constraints": allowed.to_json(),
        **({"maskingSuspected": bool(signs)} if tried.white else {}),
        "minimumRows": minimum_rows,
        "sufficient": len(plan.rows) >= minimum_rows and not signs,
    }
    return Finding(
        subjects=("model",),
        fields=fields,
        seed=seed,
        libraries=attacking.libraries(() if target.model else ("scikit-learn",)),
        not_proven=tuple(
            text
            for text, said in (
                (_BLACK_BOX_ONLY, not tried.white),
                (_UNVERIFIED, not (verified or target.model)),
                (_INDEPENDENT, not cluster),
                (_HIDDEN, bool(signs)),
            )
            if said
        ),
    )


@dataclass(frozen=True)
class _Target:
    """The model under attack; `model` is None unless it is of plain numbers."""

    context: Context
    copy: Path
    model: dense.Dense | None
    timeout: float

    @classmethod
    def of(cls, context: Context, timeout: float) -> _Target:
        copy = scored.loadable(context, None)
        plain = (copy / dense.WEIGHTS).is_file()
        return cls(context, copy, dense.read(copy) if plain else None, timeout)

    @property
    def names(self) -> list[str] | None:
        return list(self.model.features) if self.model else scored.features_of(self.copy)

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return self.model.ranges if self.model else {}

    def decided(self, rows: Rows) -> NDArray[np.float64]:
        """Its classes, of the table as it is."""
        if self.model:
            return self.model.predict(rows.frame).astype(float)
        return scored.score(self.context, self.copy, rows.frame, None, "decision", self.timeout)

    def opened(self, names: Sequence[str]) -> Ask:
        """What answers about any values."""
        return self.model.decided if self.model else asking.Asked(self.context, self.copy, names, self.timeout)


@dataclass(frozen=True)
class _Tried:
    white: list[Outcome]
    black: list[Outcome]
    control: list[Outcome]


def _tried(plan: Plan, target: _Target, names: Sequence[str]) -> _Tried:
    white = attacking.gradient(plan, target.model, aware=True) if target.model else []
    ask = target.opened(names)
    return _Tried(white, attacking.decisions(plan, ask), attacking.noise(plan, ask))
