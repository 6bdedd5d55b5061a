"""Attacks on one model, carried out and counted: by its gradient, by its decisions alone, and noise as the control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlseal.stages.testing import perturbing
from mlseal.stages.testing.attacked import Outcome, Rows
from mlseal.stages.testing.perturbing import Ask
from mlseal.stages.testing.space import Space

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlseal.stages.dense import Dense

GRADIENT, AWARE, DECISIONS, NOISE = (
    "projected-gradient-descent",
    "projected-gradient-descent-scaled",
    "hop-skip-jump",
    "noise",
)
"""Names of attacks in evidence. The scaled one divides the logits by their usual size before it differentiates."""
LIBRARIES = ("adversarial-robustness-toolbox", "numpy", "pandas", "torch")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What is tried: the rows, what may become of them, how far, and how often the model may be asked for a row."""

    rows: Rows
    space: Space
    budgets: Sequence[float]
    queries: int
    seed: int
    progress: Progress


def gradient(plan: Plan, model: Dense, *, aware: bool) -> list[Outcome]:
    """Projected gradient descent with the model's parameters, for each budget.

    An `aware` attacker sees when logits are so large that their loss is flat in single precision, scales them, and
    starts from several places; the other one does as the attack was published.
    """
    import numpy as np

    starts = plan.space.shares(plan.rows.numbers)
    size = float(np.abs(model.decision_function(plan.rows.frame)).mean())
    network = perturbing.twin(model, plan.space, max(size, 1e-12) if aware else 1.0)
    ends = np.minimum(starts.min(axis=0), 0).astype(np.float32), np.maximum(starts.max(axis=0), 1).astype(np.float32)
    target = perturbing.target_of(network, starts.shape[1], ends)
    outcomes = []
    for number, budget in enumerate(plan.budgets):
        plan.progress(number, len(plan.budgets), "budgets of the gradient attack")
        restarts = perturbing.RESTARTS if aware else 1
        found = perturbing.by_gradient(target, plan.space, starts, plan.rows.truth, budget, plan.seed, restarts)
        moved = _counted(plan, model.decided, found, budget)
        outcomes.append(Outcome(AWARE if aware else GRADIENT, "white-box", budget, moved))
    return outcomes


def decisions(plan: Plan, ask: Ask) -> list[Outcome]:
    """HopSkipJump with the model's decisions alone; one walk for all budgets."""
    found = perturbing.by_decisions(
        plan.space,
        plan.rows.numbers,
        plan.rows.truth,
        ask,
        plan.queries,
        plan.seed,
        lambda number: plan.progress(number, len(plan.rows), "rows of the black-box attack"),
    )
    return [
        Outcome(DECISIONS, "black-box-decisions", budget, _counted(plan, ask, [found], budget), plan.queries)
        for budget in plan.budgets
    ]


def noise(plan: Plan, ask: Ask) -> list[Outcome]:
    """The control: one random change of the whole budget."""
    starts = plan.space.shares(plan.rows.numbers)
    return [
        Outcome(
            NOISE,
            "no-model",
            budget,
            _counted(plan, ask, [perturbing.by_noise(plan.space, starts, budget, plan.seed)], budget),
        )
        for budget in plan.budgets
    ]


def _counted(plan: Plan, ask: Ask, wanted: Iterable[NDArray[np.float64]], budget: float) -> NDArray[np.bool_]:
    """For each row whether anything of `wanted`, projected, makes the model decide otherwise."""
    import numpy as np

    reach = plan.space.around(plan.rows.numbers, budget)
    moved = np.zeros(len(plan.rows), dtype=bool)
    for shares in wanted:
        for rounding in ("near", "far") if plan.space.integer[plan.space.changeable].any() else ("near",):
            moved |= ask(reach.valued(reach.projected(shares, rounding))) != plan.rows.truth
    return moved


def libraries(more: Sequence[str] = ()) -> dict[str, str]:
    """The libraries that attacked, with versions."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in (*LIBRARIES, *more)}
