"""Group metrics and their bootstrap intervals from counts, never from rows.

Every metric here depends on the data only through the table of counts (group x truth x decision). Resampling n rows
with replacement therefore *is* one multinomial draw over the cells of that table, and resampling clusters is one
multinomial draw over the distinct tables that clusters have. Both give the distribution that resampling rows or
clusters gives, at a cost that does not grow with the number of rows.

A replicate in which a rate has no denominator is undefined; it is counted as 0 for the lower and 1 for the upper end of
an interval, so that too few cases widen the interval instead of vanishing from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.float64]
    Codes = NDArray[np.int64]

_CHUNK = 300_000
"""Numbers that one chunk of resampled clusters holds: it stays in the processor cache, which halves the time."""
_DRAW_COST = 12
"""A binomial draw of numpy's multinomial costs about as much as drawing and counting this many clusters one by one."""


@dataclass(frozen=True)
class Estimate:
    """A metric: value from the data, percentile interval from the replicates, replicates in which it was undefined."""

    name: str
    value: float
    low: float
    high: float
    undefined: int


def count(groups: Codes, truth: Codes, decision: Codes, n_groups: int) -> Counts:
    """Counts of shape (group, truth, decision) from three columns of codes, each counting from 0."""
    cells = (groups * 2 + truth) * 2 + decision
    return np.bincount(cells, minlength=n_groups * 4).reshape(n_groups, 2, 2).astype(np.float64)


def resample_rows(counts: Counts, replicates: int, rng: np.random.Generator) -> Counts:
    """`replicates` tables as if the rows had been drawn anew, each row on its own."""
    n = int(counts.sum())
    drawn = rng.multinomial(n, counts.ravel() / n, size=replicates)
    return drawn.reshape(replicates, *counts.shape).astype(np.float64)


def resample_clusters(
    groups: Codes,
    truth: Codes,
    decision: Codes,
    clusters: Codes,
    n_groups: int,
    replicates: int,
    rng: np.random.Generator,
) -> Counts:
    """`replicates` tables as if whole clusters had been drawn anew; `clusters` holds codes from 0."""
    tables, multiplicity = _distinct_tables((groups * 2 + truth) * 2 + decision, clusters, n_groups * 4)
    common = _worth_a_draw(multiplicity)
    m, rare = int(multiplicity.sum()), multiplicity[common:]
    # First how many of the m clusters have each common table and how many any rare one, then which rare ones.
    shares = np.append(multiplicity[:common], rare.sum()) / m
    drawn = rng.multinomial(m, shares, size=replicates)
    totals = drawn[:, :common].astype(np.float64) @ tables[:common]
    if len(rare):
        totals += _draw_singly(tables[common:], rare, drawn[:, common], rng)
    return totals.reshape(replicates, n_groups, 2, 2)


def _worth_a_draw(multiplicity: Codes) -> int:
    """How many of the commonest tables to draw as numbers of clusters; `multiplicity` falls."""
    left = np.append(multiplicity.sum(), multiplicity.sum() - np.cumsum(multiplicity))
    return int(np.argmin(left + _DRAW_COST * np.arange(len(left))))


def _distinct_tables(cells: Codes, clusters: Codes, n_cells: int) -> tuple[Counts, Codes]:
    """The different tables that clusters have, and how many clusters have each."""
    n_clusters = int(clusters.max()) + 1
    per_cluster = np.bincount(clusters * n_cells + cells, minlength=n_clusters * n_cells).reshape(n_clusters, n_cells)
    # One integer per table (mixed radix) sorts fifty times faster than rows do.
    radix = [int(top) + 1 for top in per_cluster.max(axis=0)]
    key = np.zeros(n_clusters, dtype=np.int64)
    size = 1
    for column, base in enumerate(radix):
        size *= base
        if size > 2**62:
            _, first, multiplicity = np.unique(per_cluster, axis=0, return_index=True, return_counts=True)
            break
        key = key * base + per_cluster[:, column]
    else:
        _, first, multiplicity = np.unique(key, return_index=True, return_counts=True)
    falling = np.argsort(-multiplicity, kind="stable")
    return per_cluster[first[falling]].astype(np.float64), multiplicity[falling]


def _draw_singly(tables: Counts, multiplicity: Codes, how_many: Codes, rng: np.random.Generator) -> Counts:
    """For tables that few clusters have: draw clusters one by one and count them, in chunks of bounded size.

    `how_many` clusters are drawn for each replicate.
    """
    kinds = len(multiplicity)
    kind_of = np.repeat(np.arange(kinds, dtype=np.int32), multiplicity)
    totals = np.empty((len(how_many), tables.shape[1]))
    step = max(1, _CHUNK // max(int(how_many.max()), kinds))
    for start in range(0, len(how_many), step):
        part = how_many[start : start + step]
        drawn = kind_of[rng.integers(0, len(kind_of), size=int(part.sum()), dtype=np.int32)]
        drawn += np.repeat(np.arange(len(part), dtype=np.int32) * np.int32(kinds), part)
        weights = np.bincount(drawn, minlength=len(part) * kinds).reshape(len(part), kinds)
        totals[start : start + step] = weights.astype(np.float64) @ tables
    return totals


# --- metrics ----------------------------------------------------------------------------------------------------------


def selection_rates(counts: Counts) -> Counts:
    """P(decision = 1) per group; NaN for an empty group."""
    return _divide(counts[..., 1].sum(-1), counts.sum((-1, -2)))


def true_positive_rates(counts: Counts) -> Counts:
    """P(decision = 1 | truth = 1) per group."""
    return _divide(counts[..., 1, 1], counts[..., 1, :].sum(-1))


def false_positive_rates(counts: Counts) -> Counts:
    """P(decision = 1 | truth = 0) per group."""
    return _divide(counts[..., 0, 1], counts[..., 0, :].sum(-1))


def _divide(part: Counts, whole: Counts) -> Counts:
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Counts = part / whole
    return quotient


def _spread(rates: Counts) -> Counts:
    spread: Counts = rates.max(-1) - rates.min(-1)
    return spread


def _ratio(rates: Counts) -> Counts:
    return _divide(rates.min(-1), rates.max(-1))


METRICS: dict[str, Callable[[Counts], Counts]] = {
    "equalizedOddsDifference": lambda c: np.maximum(_spread(true_positive_rates(c)), _spread(false_positive_rates(c))),
    "truePositiveRateDifference": lambda c: _spread(true_positive_rates(c)),
    "falsePositiveRateDifference": lambda c: _spread(false_positive_rates(c)),
    "selectionRateDifference": lambda c: _spread(selection_rates(c)),
    "selectionRateRatio": lambda c: _ratio(selection_rates(c)),
    "truePositiveRate": lambda c: true_positive_rates(c.sum(-3)),
    "falsePositiveRate": lambda c: false_positive_rates(c.sum(-3)),
}
"""Metric → function of counts (…, group, truth, decision). Differences are between the extreme groups."""


def estimates(counts: Counts, replicates: Counts, level: float) -> list[Estimate]:
    """Every metric that the data define, with its interval."""
    tail = (1 - level) / 2
    found = []
    for name, metric in METRICS.items():
        value = float(metric(counts))
        if not np.isfinite(value):
            continue
        drawn = metric(replicates)
        missing = ~np.isfinite(drawn)
        undefined = int(missing.sum())
        if undefined:
            low, high = (
                np.quantile(np.where(missing, 0.0, drawn), tail),
                np.quantile(np.where(missing, 1.0, drawn), 1 - tail),
            )
        else:
            low, high = np.quantile(drawn, [tail, 1 - tail])
        found.append(Estimate(name, value, float(low), float(high), undefined))
    return found
