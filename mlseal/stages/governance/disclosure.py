"""What may leave the stage: counts and rates in which nobody can be singled out.

A count under `SMALL_CELL` is not published, nor a rate whose numerator, denominator or remainder is that small, since
a rate of a known whole gives its parts away. When one group's size is hidden alone it could be had from the total, so
the next smallest is hidden with it. A metric over a denominator that small is left out: a policy's condition on it
then cannot hold.

What remains open: the gap between two groups is published when both denominators suffice, and narrows down a small
numerator. A gate that must not see such a gap could not refuse because of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlseal.errors import Unchecked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlseal.stages.governance.contingency import Counts, Estimate

SMALL_CELL = 10
"""Counts below this are not published."""


def describe(counts: Counts, names: list[str], minimum_positives: int) -> dict[str, Any]:
    """Sizes and groups of the predicate, small cells suppressed; `counts` is (group, truth, decision)."""
    positives, negatives = counts[:, 1].sum(-1), counts[:, 0].sum(-1)
    fewest_positives, fewest_negatives = int(positives.min()), int(negatives.min())
    hidden = _hidden_sizes(counts.sum((1, 2)))
    return {
        "n": int(counts.sum()),
        "groups": [_group(name, cells, hide) for name, cells, hide in zip(names, counts, hidden, strict=True)],
        "smallestGroupPositives": fewest_positives if fewest_positives >= SMALL_CELL else 0,
        "smallestGroupNegatives": fewest_negatives if fewest_negatives >= SMALL_CELL else 0,
        "minimumPositives": minimum_positives,
        "sufficient": min(fewest_positives, fewest_negatives) >= max(minimum_positives, 1),
    }


def publishable(counts: Counts, estimates: list[Estimate]) -> list[Estimate]:
    """The metrics whose every denominator reaches the small-cell limit. Raises `Unchecked` if none does."""
    enough = {
        "truePositive": counts[:, 1].sum(-1).min() >= SMALL_CELL,
        "falsePositive": counts[:, 0].sum(-1).min() >= SMALL_CELL,
        "selection": counts.sum((1, 2)).min() >= SMALL_CELL,
    }
    enough["equalizedOdds"] = enough["truePositive"] and enough["falsePositive"]
    kept = [e for e in estimates if any(ok and e.name.startswith(prefix) for prefix, ok in enough.items())]
    if not kept:
        raise Unchecked(
            "a group is too small for any figure to be published",
            got=f"under {SMALL_CELL} rows",
            remedy="evaluate on more people, or on coarser groups",
        )
    return kept


def _hidden_sizes(sizes: NDArray[np.float64]) -> list[bool]:
    """Which group sizes to hide: the small ones, and the next if one alone could be had from the total."""
    hidden = [size < SMALL_CELL for size in sizes]
    if sum(hidden) == 1:
        rest = [i for i, hide in enumerate(hidden) if not hide]
        hidden[min(rest, key=lambda i: sizes[i])] = True
    return hidden


def _group(name: str, cells: Counts, hide_size: bool) -> dict[str, Any]:
    """One group; `cells` is (truth, decision)."""
    fields: dict[str, Any] = {"name": name}
    positives, negatives, chosen = (float(cells[1].sum()), float(cells[0].sum()), float(cells[:, 1].sum()))
    size = positives + negatives
    if not hide_size:
        fields["n"] = int(size)
        if min(positives, negatives) >= SMALL_CELL:
            # Either count with the size would give the other, and both together the size.
            fields |= {"positives": int(positives), "negatives": int(negatives)}
    rates = {
        "selectionRate": (chosen, size),
        "truePositiveRate": (float(cells[1, 1]), positives),
        "falsePositiveRate": (float(cells[0, 1]), negatives),
    }
    for rate, (part, whole) in rates.items():
        # A rate of a known whole reveals its part and the remainder.
        if whole >= SMALL_CELL and part >= SMALL_CELL and whole - part >= SMALL_CELL:
            fields[rate] = round(part / whole, 3)
    return fields
