"""Partial result: what a stage found in one part of its input. It is no evidence about the whole.

A long stage may run in shards, side by side. Each signs one of these; merging verifies all of them and signs the result
as evidence of the stage's own type. The wrapper keeps them apart: a policy that wants ``fairness`` never sees a part.

Example::

    {"partialType": "https://mlseal.dev/fairness/v0.1",
     "shard": {"index": 2, "count": 4, "input": "dataset", "inputDigest": "…", "partDigest": "…"},
     "fields": {"rows": 250}, "harness": {"…": "…"}, "strength": "measured", "runId": "…",
     "startedOn": "2026-11-23T12:00:00Z", "finishedOn": "2026-11-23T12:00:05Z",
     "notProven": ["anything about the whole input"]}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Measurement, Model, Sha256

URI = NAMESPACE + "partial-result/v0.1"
SHORT = "partial-result"


class Part(Model):
    """Which part of which input.

    Attributes:
        input: the parameter whose input is divided.
        input_digest: of the whole input.
        part_digest: of what belongs to this part: the manifest of its files, or of one file its digest and the shard.
    """

    index: int = Field(ge=1)
    count: int = Field(ge=1, le=1000)
    input: str
    input_digest: Sha256
    part_digest: Sha256


class Predicate(Measurement):
    """Partial result v0.1.

    Attributes:
        partial_type: of the evidence that all parts together will be.
        fields: what the stage found in this part, as it hands it to its merging.
        outputs: what it made of this part, such as a report, by the name of the output: SHA-256 of the file, or of the
            manifest of a directory.
    """

    partial_type: str
    shard: Part
    fields: dict[str, Any]
    outputs: dict[str, Sha256] = Field(default_factory=dict)
