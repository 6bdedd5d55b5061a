"""Revocation: a listed identity takes one piece of evidence back.

The subject's digest is the evidence id (SHA-256 of the signed bytes), so re-encoding a bundle does not escape it.

Example::

    {"evidenceId": "…", "reason": "withdrawn", "comment": "drift alarm 2026-11-22", "nonce": "…"}
"""

from __future__ import annotations

from typing import Literal

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, Sha256, Text

URI = NAMESPACE + "revocation/v0.1"
SHORT = "revocation"


class Predicate(Model):
    """Revocation v0.1. ``superseded`` lets a newer result of the same kind count alone; the others end it."""

    evidence_id: Sha256
    reason: Literal["superseded", "expired", "withdrawn"]
    comment: Text | None = None
    nonce: Nonce
