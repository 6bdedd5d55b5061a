"""Training with differential privacy: Opacus' DP-SGD on a table, epsilon stated so that anybody can recompute it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from pathlib import Path

from mlseal.errors import Misuse, Unchecked
from mlseal.evidence import accounting, canonical
from mlseal.evidence.planning import Privacy
from mlseal.stages import dense, tables
from mlseal.stages.base import (
    Bounds,
    Context,
    DatasetPath,
    EntryPath,
    Finding,
    OutputModel,
    Settings,
    require,
    stage,
)
from mlseal.stages.training import dpsgd, units
from mlseal.stages.training.begun import Begun
from mlseal.stages.training.dpsgd import Recipe, Trained
from mlseal.stages.training.units import Examples

FEWEST = 100
_SMALL_CELL = 10
_NOT_PROVEN = (
    "that the unit column names each person once and only once: two ids of one person are two units",
    "that ranges, features and settings were fixed before anybody looked at the data; trials before this run cost more",
    "strength against whoever predicts the noise: its generator is no cryptographic one (Opacus' needs torchcsprng)",
    "that floating-point noise behaves as the real numbers of the theorem: its lowest bits may tell more",
    "privacy of anything else made of the same data, earlier or later: each release adds its own epsilon",
    "that the model is good, fair or safe",
)
_RELEASED = (
    "the number of units and of rows, the names of columns, and how large the largest unit may be",
    "the digest of the data set: whoever guesses all of it can confirm the guess",
    "whether this run succeeded: missing values, several spellings of an id and the like stop it with a message",
)


@stage(
    "training.dp",
    predicate="dp-training",
    extra="privacy",
    releases=Bounds("epsilon", "delta", "unit"),
    resumable=True,
    cost="minutes: DP-SGD takes a gradient of each unit at every step, and torch takes seconds to start",
    not_proven=_NOT_PROVEN,
)
def private(
    dataset: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    out: OutputModel,
    outcome: str,
    features: str,
    unit_column: str,
    epsilon: str,
    delta: str = "0.00001",
    unit: str = "person",
    table: EntryPath = "",
    ranges: Settings | None = None,
    rows_per_unit: int = 1,
    truncate: bool = False,
    epochs: int = 20,
    batch: int = 256,
    clipping_norm: str = "1",
    learning_rate: float = 0.5,
    hidden: int = 0,
    also_released: str = "",
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Train a small classifier with differential privacy for each person, and state epsilon so that it can be checked.

    DP-SGD is Opacus'. All rows of a unit are one example, so that clipping bounds the influence of the whole person.

    Args:
        dataset: the table, or a directory that holds it.
        out: where the model goes, a directory that MLflow and governance.fairness load without unpickling.
        outcome: column of 0 and 1 to learn.
        features: columns to learn from, separated by commas.
        unit_column: column that names the person (or household) of a row.
        epsilon: the most that one unit may lose, a decimal; the noise is the least that keeps it.
        delta: a decimal below one over the number of units.
        unit: what the unit is called in data policies.
        table: the table inside a data set directory, CSV or parquet.
        ranges: FEATURE=LOW:HIGH, known beforehand and not from these data; values are cut to it and mapped to -1 … 1.
        rows_per_unit: places for rows in an example.
        truncate: leave out rows beyond those places instead of refusing.
        epochs: how often a unit is expected to be seen.
        batch: expected number of units in a batch.
        clipping_norm: the most that one unit moves a step, a decimal.
        learning_rate: step of the optimizer.
        hidden: width of a hidden layer; 0 for a logistic regression.
        also_released: what else of these data becomes public beside the model, not covered, separated by semicolons.
        seed: of the initial weights; noise and batches are seeded by the operating system, and nobody keeps that.

    Guarantees:
        The model that is published is the output of a mechanism with the stated epsilon and delta for one unit added or
        removed, under the premises of DP-SGD; those that can be looked at are (Poisson sampling at the stated rate,
        noise at every step, one gradient a unit, no layer that mixes units), on the objects that trained. Epsilon is a
        Renyi bound by an accountant of mlseal's own, which every verifier repeats; Opacus' must agree. No loss, no
        metric and no row leaves the stage. A run that goes on after a stop draws fresh noise and counts every epoch
        that ever began; it states no less than one that was never stopped (`mlseal.stages.training.begun`).

    Edge cases:
        An epsilon that no noise reaches, a delta that one unit could spend alone, fewer than 100 units, missing
        values, a unit with more rows than places and ids in several spellings stop it; there is no model then.
    """
    require("opacus", "privacy")
    names = units.names_of(features)
    bounds = units.ranges_of(ranges or {}, names)
    _require_sane(rows_per_unit, epochs, batch, learning_rate, hidden)
    entry = tables.entry(context.measured["dataset"], table)
    frame = tables.read(context.private_file("dataset", entry))
    examples = units.examples(frame, names, bounds, outcome, unit_column, rows_per_unit, truncate=truncate)
    figures = _figures(len(examples), epsilon, delta, clipping_norm)
    recipe = _recipe(len(examples), figures, epochs, batch, learning_rate, hidden, seed)
    begun = Begun(context.checkpoints)
    trained = dpsgd.train(examples, recipe, float(figures["delta"]), context.progress, begun)
    _write(out, names, bounds, trained)
    fields = {
        "dataset": context.resource("dataset"),
        **({"table": context.naming.of("path", entry)} if entry else {}),
        "outcome": outcome,
        "unit": unit,
        "unitColumn": unit_column,
        **_mechanism(examples, figures, recipe, trained),
        "preprocessing": {"source": "stated", "digest": _digest(bounds), "columns": len(bounds)},
        "nonPrivateReleases": [*_RELEASED, *(text.strip() for text in also_released.split(";") if text.strip())],
    }
    spent = Privacy(str(fields["epsilon"]), str(fields["delta"]), unit)
    lost = f"that the model learnt from all steps: from {begun.learnt} of {epochs} epochs, for a stop lost the others"
    more = (lost,) if begun.learnt < epochs else ()
    return Finding(("out",), fields, not_proven=more, libraries=dpsgd.versions(), seed=seed, spent=spent)


def _require_sane(rows: int, epochs: int, batch: int, learning_rate: float, hidden: int) -> None:
    if not (1 <= rows <= 1000 and 1 <= epochs <= 10_000 and batch >= 1 and learning_rate > 0 and 0 <= hidden <= 1024):
        raise Misuse(
            "training parameters are out of range",
            got=f"rows per unit {rows}, epochs {epochs}, batch {batch}, rate {learning_rate}, hidden {hidden}",
            expected="1 to 1000 rows, 1 to 10000 epochs, a batch, a rate above 0, hidden 0 to 1024",
        )


def _figures(count: int, epsilon: str, delta: str, clip: str) -> dict[str, Decimal]:
    """The decimals of the caller. Raises `Misuse` for what is none, `Unchecked` for too few units."""
    figures = {}
    for name, text in (("epsilon", epsilon), ("delta", delta), ("clipping_norm", clip)):
        try:
            value = Decimal(text)
        except InvalidOperation:
            value = Decimal(0)
        if not value.is_finite() or not 0 < value < 1_000_000:
            raise Misuse(f"--{name.replace('_', '-')} is no positive decimal", got=text[:40], expected="such as 0.5")
        figures[name] = value
    if count < FEWEST:
        raise Unchecked(
            "there are too few units for differential privacy to leave anything",
            got=f"fewer than {FEWEST}",
            expected=f"at least {FEWEST} people or whatever the unit is",
        )
    if figures["delta"] * count >= 1:
        raise Misuse(
            "delta is so large that one unit could be published whole",
            got=f"delta {delta} with {count} units",
            expected=f"below {1 / count:.2g}",
        )
    return figures


def _recipe(
    count: int, figures: Mapping[str, Decimal], epochs: int, batch: int, rate: float, hidden: int, seed: int
) -> Recipe:
    batches = math.ceil(count / min(batch, count))
    # Evidence states epsilon rounded up to four digits, and that may not be over what was asked for either.
    target = float(figures["epsilon"].quantize(Decimal("0.0001"), rounding=ROUND_FLOOR))
    delta = float(figures["delta"])
    noise = accounting.noise_for(target, delta, 1 / batches, batches * epochs)
    if noise is None:
        raise Unchecked(
            "no noise keeps this epsilon",
            got=f"epsilon {figures['epsilon']} at delta {figures['delta']} over {batches * epochs} steps",
            expected="a larger epsilon or delta, or fewer epochs",
            remedy="raise --epsilon, or train for fewer --epochs with a smaller --batch",
        )
    return Recipe(noise, batches, epochs, float(figures["clipping_norm"]), rate, hidden, seed)


def _mechanism(
    examples: Examples, figures: Mapping[str, Decimal], recipe: Recipe, trained: Trained
) -> dict[str, object]:
    rate, left_out = 1 / recipe.batches, examples.left_out
    spent = accounting.epsilon(rate, recipe.noise, recipe.steps, float(figures["delta"]))
    opacus = dpsgd.versions()["opacus"]
    return {
        "mechanism": "dp-sgd",
        "adjacency": "add-or-remove-one-unit",
        "epsilon": accounting.stated(spent),
        "delta": format(figures["delta"], "f"),
        "accountant": accounting.NAME,
        "sampling": "poisson",
        "units": len(examples),
        "examplesPerUnit": 1,
        "rowsPerUnit": examples.labels.shape[1],
        **({"rowsLeftOut": left_out} if left_out == 0 or left_out >= _SMALL_CELL else {}),
        "expectedBatch": f"{len(examples) / recipe.batches:.6f}",
        "sampleRate": f"{rate:.18f}",
        "steps": recipe.steps,
        "noiseMultiplier": f"{recipe.noise:.3f}",
        "clippingNorm": format(figures["clipping_norm"], "f"),
        "normalization": False,
        "noiseSource": dpsgd.NOISE,
        "noiseIsCryptographic": False,
        "estimates": [
            {"accountant": name, "version": opacus, "epsilon": accounting.stated(value)}
            for name, value in trained.estimates.items()
        ],
    }


def _write(out: Path, names: Sequence[str], ranges: Mapping[str, tuple[float, float]], trained: Trained) -> None:
    import numpy as np

    layers = tuple(dense.Layer(np.array(weight), np.array(bias)) for weight, bias in trained.layers)
    dense.Dense(tuple(names), ranges, layers).write(out)


def _digest(ranges: Mapping[str, tuple[float, float]]) -> str:
    return hashlib.sha256(canonical.dumps({name: list(ends) for name, ends in ranges.items()})).hexdigest()
