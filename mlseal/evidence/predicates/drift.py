"""Drift: whether a stream of inputs or scores still looks like the reference, and how well that could be told.

The subject is the model that is watched. A detector without alarms says little unless it would have raised one: so
both its false alarms and its power are measured on rows of the same reference, with exact bounds. Positions are row
numbers of the stream. There is no verdict here: policy judges, and whoever watches takes evidence back.

Example::

    {"reference": {"name": "year1.csv", "digest": {"sha256": "…"}}, "stream": {"name": "june.csv",
     "digest": {"sha256": "…"}}, "columns": ["age", "score"], "observations": 4000,
     "detector": {"name": "adwin", "sensitivity": 0.002}, "alarmed": true,
     "alarms": [{"column": "score", "count": 1, "first": 2143}],
     "falseAlarms": {"streams": 100, "alarmed": 1, "high": 0.0545, "perThousand": 0.005},
     "power": {"shift": 0.5, "streams": 100, "detected": 98, "low": 0.9296, "medianDelay": 160},
     "knownChange": {"at": 2000, "delay": 143, "earlier": 0}, "sufficient": true, …}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Finite, Measurement, Model, ResourceDescriptor

URI = NAMESPACE + "drift/v0.1"
SHORT = "drift"


class Detector(Model):
    """Which detector of the library in ``harness.libraries`` watched each column, and its one setting."""

    name: Literal["adwin", "kswin", "page-hinkley"]
    sensitivity: Finite


class Alarms(Model):
    """Alarms of one column: how many, and the row of the first."""

    column: str
    count: int = Field(ge=1)
    first: int = Field(ge=0)


class FalseAlarms(Model):
    """Streams drawn from the reference without a change: how many raised an alarm, with the bound of their share.

    ``perThousand`` is alarms in a thousand rows of such streams.
    """

    streams: int = Field(ge=1)
    alarmed: int = Field(ge=0)
    high: Finite
    per_thousand: Finite


class Power(Model):
    """Streams drawn from the reference with every column shifted half-way through, by ``shift`` standard deviations.

    ``low`` is the lower bound of the share that was detected; ``medianDelay`` counts rows, absent if none was.
    """

    shift: Finite
    streams: int = Field(ge=1)
    detected: int = Field(ge=0)
    low: Finite
    median_delay: int | None = None


class KnownChange(Model):
    """A change that the caller knows of: rows until the first alarm from there on (absent: none), alarms before it."""

    at: int = Field(ge=1)
    delay: int | None = None
    earlier: int = Field(ge=0)


class Predicate(Measurement):
    """Drift v0.1.

    Attributes:
        observations: rows of the stream.
        alarmed: whether any column raised an alarm.
        level: confidence of the bounds.
        sufficient: the power's lower bound reaches ``minimumPower`` and the false alarms' upper bound stays below
            ``maximumFalseAlarms``; without that, silence means nothing.
    """

    reference: ResourceDescriptor
    stream: ResourceDescriptor
    columns: list[str] = Field(min_length=1)
    observations: int = Field(ge=1)
    detector: Detector
    alarmed: bool
    alarms: list[Alarms] = Field(default_factory=list)
    false_alarms: FalseAlarms
    power: Power
    known_change: KnownChange | None = None
    level: Finite
    minimum_power: Finite
    maximum_false_alarms: Finite
    sufficient: bool
