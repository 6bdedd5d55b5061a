"""Source verification: before this data set was used, its provenance was verified against these bytes.

Example::

    {"source": {"evidenceId": "…", "predicateType": "https://mlseal.dev/data-provenance/v0.1",
       "issuer": "https://demo.mlseal.local/issuer", "san": "https://demo.mlseal.local/roles/producer",
       "signedOn": "2026-11-23T04:00:00Z"}, "assurance": {"identity": "local", "log": "pinned", "time": "local"},
     "files": 2, "size": 48213, "harness": {…}, "strength": "measured", "runId": "r1", "notProven": ["…"]}
"""

from __future__ import annotations

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Measurement, Model, Sha256, Timestamp

URI = NAMESPACE + "source-verification/v0.1"
SHORT = "source-verification"


class Source(Model):
    """The evidence that was verified, and who had signed it when (verified time)."""

    evidence_id: Sha256
    predicate_type: str
    issuer: str
    san: str
    signed_on: Timestamp


class Predicate(Measurement):
    """Source verification v0.1. ``assurance`` holds the levels that the verifier computed."""

    source: Source
    assurance: dict[str, str]
    files: int = Field(ge=1)
    size: int = Field(ge=1)
