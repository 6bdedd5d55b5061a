"""Exact bounds of shares, beside scipy's."""

import pytest
from scipy.stats import binomtest

from mlseal.stages import proportions


@pytest.mark.parametrize(
    ("hits", "trials"),
    [(0, 1), (1, 1), (0, 30), (30, 30), (7, 40), (399, 400), (912, 2311), (3, 200_000), (99_000, 200_000)],
)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bounds_are_those_of_scipy(hits, trials, level):
    peer = binomtest(hits, trials).proportion_ci(level, method="exact")
    assert proportions.interval(hits, trials, level) == pytest.approx((peer.low, peer.high), abs=1e-9)


def test_nothing_tried_says_nothing():
    assert proportions.interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("wrong", [(2, 1, 0.95), (-1, 1, 0.95), (1, 2, 1.0)])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(ValueError, match="no share"):
        proportions.interval(*wrong)
