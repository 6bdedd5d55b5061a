"""How sure a counted share is: exact binomial bounds (Clopper and Pearson, Biometrika 26, 1934), with no library.

An exact bound errs on the careful side: a true share lies outside the interval at most as often as `level` allows,
however few the trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

_STEPS = 60
"""Halvings of [0, 1]: more than the 53 bits that a float has."""


def interval(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper bound of a share of which `hits` of `trials` were seen; (0, 1) without any trial.

    Raises `ValueError` unless 0 ≤ hits ≤ trials and 0 < level < 1.
    """
    if not 0 <= hits <= trials or not 0 < level < 1:
        raise ValueError(f"no share: {hits} of {trials} at level {level}")
    if trials == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: _at_least(hits, trials, p) < tail)
    high = 1.0 if hits == trials else _solve(lambda p: 1 - _at_least(hits + 1, trials, p) >= tail)
    return low, high


def _solve(below: Callable[[float], bool]) -> float:
    """Where the monotone predicate `below` turns from true to false on [0, 1]."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def _at_least(hits: int, trials: int, share: float) -> float:
    """P(X ≥ hits) for X binomial; the tail that leads away from the mean is summed."""
    if not 0 < share < 1:
        return float(share >= 1)
    odds = share / (1 - share)
    if hits > trials * share:
        return _tail(_mass(hits, trials, share), ((trials - k) / (k + 1) * odds for k in range(hits, trials)))
    fewer = (k / (trials - k + 1) / odds for k in range(hits - 1, 0, -1))
    return 1 - (_tail(_mass(hits - 1, trials, share), fewer) if hits else 0.0)


def _tail(first: float, ratios: Iterable[float]) -> float:
    """The sum of `first` and what follows by `ratios`, all below 1; ended where it no longer changes the sum."""
    total = term = first
    for ratio in ratios:
        term *= ratio
        if total + term == total:
            break
        total += term
    return total


def _mass(k: int, n: int, p: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
