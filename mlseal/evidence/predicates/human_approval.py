"""Human approval: a person looked at this evidence about this subject and says yes, for a while.

The signer is the person's own identity, never a pipeline's. People are named by issuer and subject URI only.

Example::

    {"decision": "approve", "role": "clinical-safety", "scope": "production", "reviewed": ["…"],
     "expires": "2027-02-23T00:00:00Z", "commentDigest": "…", "nonce": "…",
     "notProven": ["that the person understood what was read"]}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, Sha256, Text, Timestamp

URI = NAMESPACE + "human-approval/v0.1"
SHORT = "human-approval"


class Predicate(Model):
    """Human approval v0.1. ``reviewed`` holds evidence ids; ``expires`` ends the approval."""

    decision: Literal["approve", "reject"]
    role: str | None = None
    scope: str | None = None
    reviewed: list[Sha256] = Field(default_factory=list)
    expires: Timestamp
    comment_digest: Sha256 | None = None
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce
