"""Data anomaly scan: rows of a labelled table that look wrong, and whether planted ones would have been seen.

The subject is the data set. Each detector stands beside the attack that it is meant for, which was tried on this very
table: a stated share of rows was altered, and the detector had to find them. Where the lower bound of what it found is
below ``minimumPower``, ``sufficient`` is false, and whatever ``suspects`` says means nothing: that is no "clean".

Example::

    {"label": "sick", "n": 5912, "features": 31, "classes": 2, "rate": 0.05, "minimumPower": 0.7, "sufficient": true,
     "detectors": [{"attack": "label-flip", "method": "confident-learning", "planted": 296, "detected": 251,
                    "power": 0.848, "ciLow": 0.802, "ciHigh": 0.887, "level": 0.95, "falseAlarmShare": 0.011,
                    "suspects": 61, "suspectShare": 0.0103, "sufficient": true}],
     "harness": {…}, "strength": "measured", "runId": "r1", "notProven": ["…"]}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Finite, Measurement, Model

URI = NAMESPACE + "data-anomaly-scan/v0.1"
SHORT = "data-anomaly-scan"


class Detector(Model):
    """One attack and the detector that looks for it, at one operating point.

    Attributes:
        attack: what was planted to measure the power.
        planted: rows that were altered, over all repetitions; ``detected`` of them were flagged.
        power: their share, with its exact binomial interval.
        false_alarm_share: of the rows that were not altered, the share flagged while the others were planted.
        suspects: rows of the table as it is that are flagged; absent when 1 to 9.
        suspect_share: their share, absent likewise.
    """

    attack: Literal["label-flip", "backdoor"]
    method: Literal["confident-learning", "activation-clustering"]
    planted: int = Field(ge=1)
    detected: int = Field(ge=0)
    power: Finite
    ci_low: Finite
    ci_high: Finite
    level: Finite
    false_alarm_share: Finite
    suspects: int | None = None
    suspect_share: Finite | None = None
    sufficient: bool


class Predicate(Measurement):
    """Data anomaly scan v0.1.

    Attributes:
        label: the column that was learnt.
        rate: the share of rows that was planted.
        minimum_power: what the caller asked of every ``ciLow``.
        sufficient: every detector reached it; false means not enough data for a verdict, whatever was found.
    """

    label: str
    table: str | None = None
    n: int = Field(ge=1)
    features: int = Field(ge=1)
    classes: int = Field(ge=2)
    rate: Finite
    minimum_power: Finite
    detectors: list[Detector] = Field(min_length=1)
    sufficient: bool
