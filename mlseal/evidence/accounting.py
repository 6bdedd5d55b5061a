"""How much differential privacy DP-SGD spends: an accountant that needs nothing but arithmetic.

A verifier has no torch, and believes no epsilon that it did not work out. This is Renyi accounting of the Gaussian
mechanism under Poisson sampling, add-or-remove-one adjacency:

* one step, at integer order (Mironov, Talwar, Zhang 2019, arXiv 1908.10530, section 3.3): the divergence is a finite
  sum of binomial terms, exact up to rounding;
* steps add up;
* from Renyi to (epsilon, delta): Canonne, Kamath, Steinke 2020 (arXiv 2004.00010, proposition 12; also Balle et al.
  2020), the best over `ORDERS`.

The result is an upper bound of what the mechanism spends. It is not tight: a numerical accountant (PRV, PLD) comes out
lower by some tenths. Whoever signs states this bound, so that anybody can check it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from functools import cache

NAME = "renyi-integer-orders"
ORDERS = (*range(2, 65), *range(72, 129, 8), 160, 192, 256, 384, 512, 1024)
"""Renyi orders that are tried; few large ones, since those matter for small epsilons only."""
_DIGITS = Decimal("0.0001")
_MAX_NOISE = 10_000.0
_STEPS_OF_SEARCH = 60


def divergence(sample_rate: float, noise_multiplier: float, order: int) -> float:
    """Renyi divergence of one step at integer `order`; infinite without noise, 0 if nobody is ever sampled.

    Args:
        sample_rate: probability with which each unit is in a batch, 0 to 1.
        noise_multiplier: standard deviation of the noise over the clipping norm.
        order: at least 2.
    """
    if sample_rate == 0:
        return 0.0
    if noise_multiplier <= 0:
        return math.inf
    if sample_rate == 1:
        return order / (2 * noise_multiplier**2)
    log_in, log_out = math.log(sample_rate), math.log1p(-sample_rate)
    scale = 1 / (2 * noise_multiplier**2)
    terms = [
        log_choose + k * log_in + (order - k) * log_out + k * (k - 1) * scale
        for k, log_choose in enumerate(_binomials(order))
    ]
    largest = max(terms)
    total = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
    return max(total, 0.0) / (order - 1)


def epsilon(sample_rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Upper bound of epsilon after `steps` at `delta`; infinite where nothing bounds it.

    Raises `ValueError` for a rate or delta outside of 0 to 1, negative noise, or negative steps.
    """
    if not (0 <= sample_rate <= 1 and 0 <= delta < 1 and noise_multiplier >= 0 and steps >= 0):
        raise ValueError("sample rate and delta lie between 0 and 1, noise and steps are not negative")
    if sample_rate == 0 or steps == 0:
        return 0.0
    if delta == 0:
        return math.inf
    return max(0.0, min(_converted(sample_rate, noise_multiplier, steps, delta)))


def _converted(sample_rate: float, noise_multiplier: float, steps: int, delta: float) -> Iterator[float]:
    for order in ORDERS:
        spent = steps * divergence(sample_rate, noise_multiplier, order)
        yield spent + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def stated(value: float) -> str:
    """An epsilon as evidence states it: rounded up to four digits. Raises `ValueError` if it is not finite."""
    if not math.isfinite(value):
        raise ValueError("epsilon is not finite")
    return str(Decimal(value).quantize(_DIGITS, rounding=ROUND_CEILING))


def noise_for(target: float, delta: float, sample_rate: float, steps: int) -> float | None:
    """The least noise multiplier (three digits, rounded up) that keeps epsilon at most `target`; None if none does."""
    low, high = 0.0, 1.0
    while epsilon(sample_rate, high, steps, delta) > target:
        low, high = high, high * 2
        if high > _MAX_NOISE:
            return None
    for _ in range(_STEPS_OF_SEARCH):
        if high - low < 0.0005:
            break
        middle = (low + high) / 2
        low, high = (low, middle) if epsilon(sample_rate, middle, steps, delta) <= target else (middle, high)
    return math.ceil(high * 1000) / 1000


@cache
def _binomials(order: int) -> tuple[float, ...]:
    """Logarithms of ``order over k`` for every k."""
    logs = [math.lgamma(k + 1) for k in range(order + 1)]
    return tuple(logs[order] - logs[k] - logs[order - k] for k in range(order + 1))
