"""Evidence that was taken back, and how fresh that knowledge is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from mlseal.errors import Revoked, StaleEvidence
from mlseal.evidence.clock import SKEW, parse_rfc3339

Reason = Literal["superseded", "expired", "withdrawn"]


class EvidenceRevoked(Revoked):
    """Raised for one piece of evidence; ``reason`` tells a superseded result from a withdrawn one."""

    def __init__(self, message: str, *, reason: Reason, got: str, remedy: str) -> None:
        super().__init__(message, got=got, remedy=remedy)
        self.reason: Reason = reason


@dataclass(frozen=True)
class Revocation:
    """One revocation by a listed identity."""

    evidence_id: str
    reason: Reason
    by: str


@dataclass(frozen=True)
class Revocations:
    """What is revoked, as far as the verifier knows. Made by `mlseal.evidence.archive`.

    Attributes:
        revoked: by evidence id, from verified statements only.
        snapshot_time: verified time of the newest snapshot of a listed identity; None if there is none.
        snapshot_end: its ``validUntil``.
        flaw: why a newer snapshot does not count (`mlseal.evidence.snapshots`); None if there is no such.
    """

    revoked: Mapping[str, Revocation] = field(default_factory=dict)
    snapshot_time: datetime | None = None
    snapshot_end: datetime | None = None
    flaw: str | None = None

    def of(self, evidence_id: str) -> Revocation | None:
        """The revocation of this evidence, if any."""
        return self.revoked.get(evidence_id)

    def require_fresh(self, max_age: timedelta, now: datetime) -> None:
        """Raise `StaleEvidence` unless a snapshot is younger than `max_age` and still valid."""
        remedy = "run 'mlseal revoke --snapshot' as an identity that the policy lists under revokers"
        if self.snapshot_time is None or self.snapshot_end is None:
            raise StaleEvidence(
                "no revocation snapshot", got=self.flaw, expected=f"one younger than {max_age}", remedy=remedy
            )
        age = now - self.snapshot_time
        if age > max_age + SKEW or now > self.snapshot_end + SKEW or age < -SKEW:
            raise StaleEvidence(
                "the revocation snapshot is stale",
                got=f"age {age}, valid until {self.snapshot_end:%Y-%m-%dT%H:%M:%SZ}"
                + (f"; {self.flaw}" if self.flaw else ""),
                expected=f"younger than {max_age}",
                remedy=remedy,
            )

    def require_not_revoked(self, evidence_id: str) -> None:
        """Raise `EvidenceRevoked` if this evidence was taken back."""
        found = self.of(evidence_id)
        if found is not None:
            raise EvidenceRevoked(
                f"evidence {evidence_id[:16]}… was {found.reason}",
                reason=found.reason,
                got=f"revoked by {found.by}",
                remedy="make new evidence",
            )


NOTHING_REVOCABLE = Revocations()
"""For statements that are checked before revocations are known: the revocations themselves, and self-verification."""


def merge(items: Iterable[Revocation]) -> dict[str, Revocation]:
    """By evidence id; a withdrawal or expiry outweighs a supersession of the same evidence."""
    result: dict[str, Revocation] = {}
    for item in items:
        if item.evidence_id not in result or result[item.evidence_id].reason == "superseded":
            result[item.evidence_id] = item
    return result


def snapshot_end(text: str) -> datetime:
    """``validUntil`` of a snapshot predicate as a moment."""
    return parse_rfc3339(text)
