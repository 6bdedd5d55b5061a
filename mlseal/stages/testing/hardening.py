"""Train a model anew so that it is harder to evade, and see under the same attacks whether it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked
from mlseal.stages import dense, scored, tables
from mlseal.stages.base import (
    Context,
    DatasetPath,
    EntryPath,
    Finding,
    ModelPath,
    OutputModel,
    Settings,
    require,
    stage,
)
from mlseal.stages.testing import attacked, attacking, retraining, space
from mlseal.stages.testing.attacked import Outcome
from mlseal.stages.testing.attacking import Plan
from mlseal.stages.testing.retraining import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_METHODS = {"adversarial-training": retraining.adversarially, "defensive-distillation": retraining.distilled}
_NOT_PROVEN = (
    "protection: the rates are of these attacks, budgets and rows, and another attack may get further",
    "that whoever withstands changes of this kind withstands others, such as larger ones or forged columns",
    "that the hardened model is fair, private or good for anything but these rows",
)
_INDEPENDENT = "how sure the rates are when rows are one person's or one household's: bounds take rows as independent"
_HIDDEN = (
    "that plain projected gradient descent getting less far means anything: the gradients are masked, and an attack "
    "that knows of it or needs none gets further"
)


@stage(
    "testing.hardening",
    predicate="security-evaluation",
    extra="robustness",
    cost="minutes: an attack at each step of training, then all attacks on the model before and after",
    not_proven=_NOT_PROVEN,
)
def hardening(
    model: ModelPath,  # noqa: ARG001 - read through the context, as a proven copy
    training: DatasetPath,  # noqa: ARG001 - same
    holdout: DatasetPath,  # noqa: ARG001 - same
    hardened: OutputModel,
    outcome: str,
    method: str = "adversarial-training",
    budget: float = 0.1,
    training_table: EntryPath = "",
    holdout_table: EntryPath = "",
    fixed: str = "",
    ranges: Settings | None = None,
    cluster: str = "",
    epochs: int = 20,
    batch: int = 64,
    learning_rate: float = 0.01,
    temperature: float = 100,
    rows: int = 300,
    queries: int = 300,
    minimum_rows: int = 100,
    level: float = 0.95,
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Train a hardened model, and measure it and the one before under the same attacks on the same held-out rows.

    Args:
        model: a directory of plain numbers, as training.dp makes; the one before.
        training: the table to learn from, or a directory that holds it.
        holdout: rows that neither model learnt from, or a directory that holds them.
        hardened: where the new model goes, a directory of plain numbers.
        outcome: column of 0 and 1 that the model predicts.
        method: adversarial-training, or defensive-distillation, which masks gradients and is shown to.
        budget: the most that a column may move, as a share of its range, in training and in the attacks.
        training_table: the table inside the training directory, CSV or parquet.
        holdout_table: the table inside the holdout's directory.
        fixed: columns that no attacker can change, separated by commas; all others may change.
        ranges: COLUMN=LOW:HIGH within which an attacker stays; needed where the model states none.
        cluster: column naming rows that depend on each other, such as person; one held-out row of each is used.
        epochs: passes over the training rows.
        batch: rows a step.
        learning_rate: of Adam.
        temperature: of distillation: how many times larger the logits become.
        rows: the most held-out rows that are attacked.
        queries: the most answers that the black-box attack may ask for, a row.
        minimum_rows: attacked rows that count as sufficient.
        level: coverage of the intervals.
        seed: of every random choice; not part of the configuration digest.

    Guarantees:
        The evidence is about the hardened model, names the one before by digest, and holds for both what plain
        projected gradient descent, one that scales the logits, HopSkipJump and noise achieved on rows that both decide
        rightly, and the accuracy on all held-out rows: what hardening costs stands beside what it brings. Success is
        decided by the models themselves, within the constraints. There is no verdict.

    Edge cases:
        Where an attack that scales logits or sees decisions alone gets further on the hardened model than plain
        gradients do, or noise as far, `maskingSuspected` is true and `sufficient` false; so it is for distillation on
        any model that is sure of its rows. A model that is not of plain numbers, tables that share rows, and rows none
        of which both models decide rightly stop it; there is no model then.
    """
    recipe = Recipe(budget, temperature, epochs, batch, learning_rate, seed)
    _require_sane(recipe, method, rows, queries, minimum_rows, level)
    require("art", "robustness")
    require("torch", "robustness")
    before = dense.read(scored.loadable(context, None))
    entries = [tables.entry(context.measured[n], t) for n, t in _named(training_table, holdout_table)]
    learnt, held = (
        attacked.shuffled(tables.read(context.private_file(n, entry)), seed)
        for n, entry in zip(("training", "holdout"), entries, strict=True)
    )
    known = attacked.rows(learnt, before.features, outcome)
    test = attacked.rows(held, before.features, outcome, cluster)
    attacked.require_apart(known, test)
    limits = {**before.ranges, **space.ranges_of(ranges or {})}
    allowed = space.of(before.features, known.numbers, attacked.names_of(fixed), limits)
    after = _METHODS[method](before, allowed, known, recipe, context.progress)
    right = [one.predict(test.frame) == test.truth for one in (before, after)]
    both = test.chosen(right[0] & right[1]).first(rows)
    if not len(both):
        raise Unchecked("no row is decided rightly by both models", expected="rows to attack", remedy="train longer")
    plan = Plan(both, allowed, [budget], queries, seed, context.progress)
    tried = [_tried(plan, one) for one in (before, after)]
    signs = attacked.masked(tried[1].plain, tried[1].others, tried[1].control)
    for sign in signs:
        context.log(f"gradients are masked: {sign}")
    after.write(hardened)
    fields = {
        "kind": "hardening",
        "dataset": context.resource("holdout"),
        **({"table": context.naming.of("path", entries[1])} if entries[1] else {}),
        "outcome": outcome,
        **({"cluster": cluster} if cluster else {}),
        "n": len(both),
        "attacks": attacked.stated(tried[1].all, level),
        "controls": attacked.stated(tried[1].control, level),
        "metrics": [*_compared(right, tried, budget, level), attacked.common(test.truth, level)],
        "hardening": {
            "method": method,
            "before": context.resource("model"),
            "training": context.resource("training"),
            **({"trainingTable": context.naming.of("path", entries[0])} if entries[0] else {}),
            "trainingN": len(known),
            "epochs": epochs,
            **({"temperature": temperature} if method == "defensive-distillation" else {}),
            "attacks": attacked.stated(tried[0].all, level),
            "controls": attacked.stated(tried[0].control, level),
            "metrics": _single(right[0], tried[0], budget, level),
        },
        "constraints": allowed.to_json(),
        "maskingSuspected": bool(signs),
        "minimumRows": minimum_rows,
        "sufficient": len(both) >= minimum_rows and not signs,
    }
    more = tuple(text for text, said in ((_INDEPENDENT, not cluster), (_HIDDEN, bool(signs))) if said)
    return Finding(("hardened",), fields, not_proven=more, libraries=attacking.libraries(), seed=seed)


@dataclass(frozen=True)
class _Tried:
    """What attacks did to one model; `others` know more than `plain`, or less."""

    plain: list[Outcome]
    others: list[Outcome]
    control: list[Outcome]

    @property
    def all(self) -> list[Outcome]:
        return [*self.plain, *self.others]


def _tried(plan: Plan, model: dense.Dense) -> _Tried:
    plain = attacking.gradient(plan, model, aware=False)
    others = [*attacking.gradient(plan, model, aware=True), *attacking.decisions(plan, model.decided)]
    return _Tried(plain, others, attacking.noise(plan, model.decided))


def _single(right: NDArray[np.bool_], tried: _Tried, budget: float, level: float) -> list[dict[str, Any]]:
    return [attacked.metric("accuracy", right, level), *attacked.rates(tried.all, [budget], level)]


def _compared(right: list[NDArray[np.bool_]], tried: list[_Tried], budget: float, level: float) -> list[dict[str, Any]]:
    """The figures of the hardened model, and what changed: of the attack that got furthest, and of plain gradients."""
    share = attacked.percent(budget)
    whole = [attacked.furthest(one.all, budget) for one in tried]
    plain = [attacked.furthest(one.plain, budget) for one in tried]
    return [
        *_single(right[1], tried[1], budget, level),
        attacked.difference("accuracyLoss", right[0], right[1], level),
        attacked.difference(f"evasionRateDropAt{share}", whole[0], whole[1], level),
        attacked.difference(f"plainGradientRateDropAt{share}", plain[0], plain[1], level),
    ]


def _named(training: str, holdout: str) -> list[tuple[str, str]]:
    return [("training", training), ("holdout", holdout)]


def _require_sane(recipe: Recipe, method: str, rows: int, queries: int, minimum_rows: int, level: float) -> None:
    if method not in _METHODS:
        raise Misuse("the method is unknown", got=method[:40], expected=" or ".join(_METHODS))
    trains = 1 <= recipe.epochs <= 10_000 and recipe.batch >= 1 and recipe.rate > 0 and recipe.temperature >= 1
    if not (trains and 0 < recipe.budget <= 1):
        raise Misuse(
            "training parameters are out of range",
            got=f"budget {recipe.budget:g}, epochs {recipe.epochs}, batch {recipe.batch}, rate {recipe.rate:g}, "
            f"temperature {recipe.temperature:g}",
            expected="a budget in 0 to 1, 1 to 10000 epochs, a batch, a rate above 0, temperature ≥ 1",
        )
    attacked.require_sane(rows, queries, minimum_rows, level)
