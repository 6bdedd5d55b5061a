"""The accountant: published figures, bounds that must hold, and what it refuses to answer."""

import math
from decimal import Decimal
from itertools import pairwise

import pytest

from mlseal.errors import MalformedEvidence
from mlseal.evidence import accounting, predicates

RENYI = [
    # rate, noise, steps, delta, epsilon of Opacus 1.6.0 at the same orders, PRV epsilon of Opacus 1.6.0
    (1 / 12, 2.017, 240, 1e-5, 3.2822522884171694, 2.9974369954868587),
    (0.01, 1.0, 2000, 1e-5, 2.867644783017942, 2.5940111990801706),
    (1 / 12, 5.04, 240, 1e-5, 1.0780707760532175, 0.9929557428494892),
    (0.1, 0.7, 100, 1e-6, 18.911398494448502, 16.61826575657085),
    (1.0, 4.0, 10, 1e-5, 3.6278518728252274, 3.351597914031129),
    (0.001, 0.6, 10_000, 1e-7, 5.037048382779288, 3.855208102469793),
]


@pytest.mark.parametrize(("rate", "noise", "steps", "delta", "renyi", "tight"), RENYI)
def test_it_agrees_with_the_library_and_lies_above_a_tight_accountant(rate, noise, steps, delta, renyi, tight):
    found = accounting.epsilon(rate, noise, steps, delta)
    assert found == pytest.approx(renyi, rel=1e-9)
    assert tight < found < 1.35 * tight


@pytest.mark.parametrize("order", [2, 3, 17, 64, 1024])
@pytest.mark.parametrize(("rate", "noise"), [(0.01, 0.5), (0.3, 1.0), (0.9, 3.0)])
def test_sampling_never_costs_privacy(order, rate, noise):
    whole = accounting.divergence(1.0, noise, order)
    assert whole == pytest.approx(order / (2 * noise**2))
    assert 0 < accounting.divergence(rate, noise, order) < whole
    assert accounting.divergence(rate, noise, order) < accounting.divergence(rate * 1.1, noise, order)


def test_order_two_is_the_closed_form():
    """log(1 + q² (exp(1/σ²) - 1)): the sum worked out by hand."""
    for rate, noise in [(0.01, 1.0), (0.2, 0.8), (0.5, 4.0)]:
        by_hand = math.log1p(rate**2 * math.expm1(1 / noise**2))
        assert accounting.divergence(rate, noise, 2) == pytest.approx(by_hand, rel=1e-9)


def test_more_steps_less_noise_or_a_smaller_delta_cost_more():
    base = accounting.epsilon(0.05, 1.2, 100, 1e-5)
    assert accounting.epsilon(0.05, 1.2, 101, 1e-5) > base
    assert accounting.epsilon(0.05, 1.1, 100, 1e-5) > base
    assert accounting.epsilon(0.05, 1.2, 100, 1e-6) > base
    assert all(a < b for a, b in pairwise(accounting.ORDERS))


def test_the_ends_of_the_scale():
    assert accounting.epsilon(0.0, 1.0, 10, 1e-5) == accounting.epsilon(0.1, 1.0, 0, 1e-5) == 0
    assert accounting.epsilon(0.1, 0.0, 1, 1e-5) == accounting.epsilon(0.1, 1.0, 1, 0.0) == math.inf
    for wrong in [(-0.1, 1, 1, 1e-5), (1.1, 1, 1, 1e-5), (0.1, -1, 1, 1e-5), (0.1, 1, -1, 1e-5), (0.1, 1, 1, 1.0)]:
        with pytest.raises(ValueError, match="lie between"):
            accounting.epsilon(*wrong)
    with pytest.raises(ValueError, match="not finite"):
        accounting.stated(math.inf)


@pytest.mark.parametrize("target", [0.3, 1.0, 3.0, 8.0])
def test_the_noise_found_is_the_least_that_keeps_the_target(target):
    noise = accounting.noise_for(target, 1e-5, 1 / 12, 240)
    assert accounting.epsilon(1 / 12, noise, 240, 1e-5) <= target
    assert accounting.epsilon(1 / 12, noise - 0.003, 240, 1e-5) > target


def test_no_noise_reaches_an_epsilon_that_delta_does_not_allow():
    assert accounting.noise_for(0.001, 1e-5, 1 / 12, 240) is None


def test_what_is_stated_is_rounded_up():
    assert accounting.stated(1.00001) == "1.0001" and accounting.stated(1.0) == "1.0000"
    assert Decimal(accounting.stated(2.9985673)) >= Decimal("2.9985673")


# --- what a verifier makes of it -------------------------------------------------------------------------------------


def claim(**changes):
    said = {
        "harness": {"name": "training.dp", "version": "0", "provider": "x", "configDigest": "0" * 64},
        "strength": "measured",
        "runId": "r",
        "startedOn": "2026-11-27T12:00:00Z",
        "finishedOn": "2026-11-27T12:00:00Z",
        "notProven": ["anything"],
        "dataset": {"name": "d", "digest": {"sha256": "0" * 64}},
        "outcome": "need",
        "mechanism": "dp-sgd",
        "unit": "person",
        "adjacency": "add-or-remove-one-unit",
        "epsilon": "3.2823",
        "delta": "0.00001",
        "accountant": "renyi-integer-orders",
        "sampling": "poisson",
        "units": 1200,
        "examplesPerUnit": 1,
        "rowsPerUnit": 1,
        "expectedBatch": "100",
        "sampleRate": "0.083333333333333333",
        "steps": 240,
        "noiseMultiplier": "2.017",
        "clippingNorm": "1",
        "normalization": False,
        "noiseSource": "x",
        "noiseIsCryptographic": False,
        "preprocessing": {"source": "stated", "digest": "0" * 64, "columns": 0},
        "estimates": [],
        "nonPrivateReleases": ["the number of units"],
    }
    return said | changes


def test_a_statement_whose_epsilon_the_figures_give_is_read():
    assert predicates.check("dp-training", claim()).epsilon == "3.2823"
    assert predicates.check("dp-training", claim(epsilon="9")).epsilon == "9"


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": "3.2822"},
        {"epsilon": "2.9975"},  # what a tight accountant says: true perhaps, but nobody can check it here
        {"epsilon": "0"},
        {"epsilon": "-1"},
        {"noiseMultiplier": "2.016"},
        {"noiseMultiplier": "0"},
        {"noiseMultiplier": "-2.017"},
        {"steps": 260},
        {"delta": "0.000005"},
        {"delta": "0"},
        {"delta": "-0.00001"},
        {"delta": "1"},
        {"sampleRate": "0.1", "expectedBatch": "120"},
        {"sampleRate": "0.01"},  # a rate other than batch over units, as opacus#813 had it
        {"units": 120},
        {"sampling": "shuffled"},
        {"examplesPerUnit": 4},
        {"normalization": True},
        {"nonPrivateReleases": []},
        {"accountant": "prv"},
        {"epsilon": "3e0"},
        {"epsilon": 3.2823},
    ],
    ids=str,
)
def test_a_statement_that_claims_too_little_is_refused(change):
    with pytest.raises(MalformedEvidence):
        predicates.check("dp-training", claim(**change))
