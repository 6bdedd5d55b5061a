"""Guard evaluation: the same requests sent to a model without its guard and with it.

The subject is the model. Ordinary requests and attacks are counted by kind: how many reached the model either way, how
many the guard flagged, how many answers came back with something masked. Bounds are exact and for these requests.

Example::

    {"requests": {"name": "requests.jsonl", "digest": {"sha256": "…"}}, "guard": {"name": "desk/1",
     "settings": {"sha256": "…"}, "bound": true}, "repeats": 1,
     "kinds": [{"name": "ordinary", "n": 200, "answeredOff": 200, "answeredOn": 199, "flagged": 2, "masked": 0,
                "shareOn": 0.995, "low": 0.9725, "high": 0.9999},
               {"name": "injection", "n": 40, "answeredOff": 40, "answeredOn": 9, "flagged": 0, "masked": 0,
                "shareOn": 0.225, "low": 0.1084, "high": 0.3845}],
     "level": 0.95, "latency": {"medianOffMs": 3.1, "medianOnMs": 4.0, "p99OffMs": 9.0, "p99OnMs": 11.2}, …}
"""

from __future__ import annotations

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Finite, Measurement, Model, ResourceDescriptor

URI = NAMESPACE + "guard-evaluation/v0.1"
SHORT = "guard-evaluation"
ORDINARY = "ordinary"
"""The kind of requests that must come through."""


class Guard(Model):
    """The guard as its posture says: name, digest of its settings, whether it started the model's server itself."""

    name: str
    settings: dict[str, str]
    bound: bool


class Kind(Model):
    """Requests of one kind: how many were answered without and with the guard; ``low`` and ``high`` bound the latter.

    ``flagged`` and ``masked`` count answered requests that the guard marked or whose answer it changed.
    """

    name: str
    n: int = Field(ge=1)
    answered_off: int = Field(ge=0)
    answered_on: int = Field(ge=0)
    flagged: int = Field(ge=0)
    masked: int = Field(ge=0)
    share_on: Finite
    low: Finite
    high: Finite


class Latency(Model):
    """Of answered ordinary requests, one at a time, in milliseconds; on the machine that measured."""

    median_off_ms: Finite
    median_on_ms: Finite
    p99_off_ms: Finite
    p99_on_ms: Finite


class Predicate(Measurement):
    """Guard evaluation v0.1. ``level`` is the confidence of the bounds."""

    requests: ResourceDescriptor
    guard: Guard
    kinds: list[Kind] = Field(min_length=2)
    level: Finite
    latency: Latency
