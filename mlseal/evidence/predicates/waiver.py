"""Waiver: a named identity excuses one rule for one subject until a date, with a reason.

Example::

    {"rule": "gap", "policy": "production-clinical/3", "reason": "pilot of 40 people, supervised",
     "expires": "2026-12-31T00:00:00Z", "notProven": ["that the rule holds"], "nonce": "…"}
"""

from __future__ import annotations

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, Text, Timestamp

URI = NAMESPACE + "waiver/v0.1"
SHORT = "waiver"


class Predicate(Model):
    """Waiver v0.1: of rule id ``rule`` in policy ``policy``, for the statement's subjects, until ``expires``."""

    rule: str
    policy: str
    reason: Text
    expires: Timestamp
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce
