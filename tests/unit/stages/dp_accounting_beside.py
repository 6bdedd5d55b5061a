"""Google's dp-accounting, beside what is installed: ``python -m tests.unit.stages.dp_accounting_beside`` fetches it once.

It asks for attrs below 24 and would pull the whole environment back to that, so it lies in a directory of its own, with
the attrs that it wants. Only a process that `figures` starts sees it; numpy, scipy and mpmath are the installed ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VERSION = "0.6.0"
_PACKAGES = (f"dp-accounting=={VERSION}", "absl-py==2.5.1", "attrs==23.2.0", "dm-tree==0.1.10")
_INTERVAL = 1e-3
"""Losses of the PLD accountant are rounded up to multiples of this: its answer stays an upper bound, a little larger."""

Point = tuple[float, float, int, float]
"""Sampling rate, noise multiplier, steps, delta."""


def place() -> Path:
    """The directory to put on ``PYTHONPATH``; filled from the package index on first use."""
    from tests.beside import packages  # not where this file answers as a program: there is no `tests` then

    return packages(f"dp-accounting-{VERSION}", _PACKAGES)


def figures(points: Sequence[Point], orders: Sequence[int]) -> list[tuple[float, float]]:
    """Epsilon of each of `points` by the Renyi accountant, at `orders`, and by the privacy loss distribution."""
    asked = json.dumps([VERSION, _INTERVAL, list(points), list(orders)])
    done = subprocess.run(
        [sys.executable, __file__, "answer"],
        input=asked,
        env={**os.environ, "PYTHONPATH": str(place())},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    return [(renyi, tight) for renyi, tight in json.loads(done.stdout)]


def _answer() -> None:
    from importlib.metadata import version

    from dp_accounting import dp_event, pld, rdp

    expected, interval, points, orders = json.load(sys.stdin)
    assert version("dp-accounting") == expected

    def epsilon(accountant, rate, noise, steps, delta):
        step = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
        return float(accountant.compose(dp_event.SelfComposedDpEvent(step, steps)).get_epsilon(delta))

    json.dump(
        [
            (
                epsilon(rdp.RdpAccountant(orders), *point),
                epsilon(pld.PLDAccountant(value_discretization_interval=interval), *point),
            )
            for point in points
        ],
        sys.stdout,
    )


if __name__ == "__main__":
    _answer() if sys.argv[1:] == ["answer"] else place()
