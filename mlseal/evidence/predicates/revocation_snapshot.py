"""Revocation snapshot: everything that its signer revoked in the logs up to their tree sizes, stated at a time.

Absence of a revocation is only known up to a snapshot; a policy says how old one may be. ``logs`` holds the size of
every log of the trust root, retired ones included; ``origin`` and ``treeSize`` repeat the newest one's. A snapshot
without ``logs`` was made before they were told apart: its ``treeSize`` is the sum over all logs.

Example::

    {"origin": "log1.demo.mlseal.local", "treeSize": 17,
     "logs": [{"origin": "log1.demo.mlseal.local", "treeSize": 17}],
     "issuedAt": "2026-11-23T04:00:00Z", "validUntil": "2026-11-24T04:00:00Z",
     "revoked": [{"evidenceId": "…", "reason": "withdrawn"}], "nonce": "…"}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, Sha256, Timestamp

URI = NAMESPACE + "revocation-snapshot/v0.1"
SHORT = "revocation-snapshot"


class Entry(Model):
    """One revoked piece of evidence."""

    evidence_id: Sha256
    reason: Literal["superseded", "expired", "withdrawn"]


class LogSize(Model):
    """How much of one log was looked at."""

    origin: str
    tree_size: int = Field(ge=0)


class Predicate(Model):
    """Revocation snapshot v0.1."""

    origin: str
    tree_size: int = Field(ge=0)
    logs: list[LogSize] = Field(default_factory=list)
    issued_at: Timestamp
    valid_until: Timestamp
    revoked: list[Entry] = Field(default_factory=list)
    nonce: Nonce
