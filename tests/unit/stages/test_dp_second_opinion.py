"""The epsilon of training.dp beside Google's dp-accounting: the same Renyi bound, and above its tight accountant."""

from itertools import product

import pytest

from mlseal.evidence import accounting
from tests.unit.stages import dp_accounting_beside

GRID = [
    *((rate, noise, steps, 1e-5) for rate, noise, steps in product((0.01, 1 / 12), (0.8, 4.0), (1, 240, 3000))),
    *((rate, 1.5, steps, 1e-7) for rate, steps in product((0.001, 0.5, 1.0), (1, 60))),
]
"""Sampling rate, noise multiplier, steps, delta: from one step to far more than anybody should do."""


def test_the_renyi_bounds_agree_and_the_tight_accountant_lies_below():
    wanted = accounting.noise_for(3.0, 1e-5, 1 / 12, 240)  # as training.dp chooses it
    points = [*GRID, (1 / 12, wanted, 240, 1e-5)]
    theirs = dp_accounting_beside.figures(points, accounting.ORDERS)
    ours = [accounting.epsilon(*point) for point in points]
    for point, epsilon, (renyi, tight) in zip(points, ours, theirs, strict=True):
        assert epsilon == pytest.approx(renyi, rel=1e-9), point
        assert float(accounting.stated(epsilon)) >= renyi, f"what is stated is rounded up: {point}"
        assert 0 < tight < epsilon, point
    assert ours[-1] <= 3 < 1.2 * theirs[-1][1], "the bound is not so loose that any accountant would lie below it"
