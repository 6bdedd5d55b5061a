"""Whoever holds a key, for as long as a policy lets the key count; and what a key may say at all.

A key is not a person: whoever has a copy is its holder, and the holder can be several people or a thief. So a key makes
evidence of work, and decides nothing. Everything here is asked by step 8 of `mlseal.evidence.verifying`, wherever the
list of signers comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlseal.errors import UntrustedSigner
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import KEY_ISSUER, Identity, IdentityMatcher
from mlseal.evidence.predicates import (
    data_policy,
    human_approval,
    ownership,
    policy_release,
    revocation,
    revocation_snapshot,
    slsa_vsa,
    waiver,
)

DECISIONS = frozenset(
    module.URI
    for module in (
        data_policy,
        human_approval,
        ownership,
        policy_release,
        revocation,
        revocation_snapshot,
        slsa_vsa,
        waiver,
    )
)
"""What is decided by somebody who answers for it: a person, or a gate that proves anew each time what it is."""


class KeyOutOfTerm(UntrustedSigner):
    """A key that is listed signed at a time for which it is not."""


@dataclass(frozen=True)
class KeyHolder:
    """Whoever signs with the key of this fingerprint from ``since`` until ``until``, by verified time.

    None stands for no bound: the key counts from its first signature on, or until the policy says otherwise.
    """

    fingerprint: str
    since: datetime | None = None
    until: datetime | None = None

    @property
    def identity(self) -> Identity:
        """The holder, whatever the time."""
        return Identity(KEY_ISSUER, self.fingerprint)

    def matches(self, other: Identity) -> bool:
        """Whether `other` is this key, whatever the time; see `listed`."""
        return other == self.identity

    def covers(self, time: datetime) -> bool:
        """Whether the key counts at `time`. No skew: a key that was stolen ends a minute early, not late."""
        return (self.since is None or self.since <= time) and (self.until is None or time < self.until)

    def __str__(self) -> str:
        begin = f" from {rfc3339(self.since)}" if self.since else ""
        end = f" until {rfc3339(self.until)}" if self.until else ""
        return f"key {self.fingerprint}{begin}{end}"


def listed(signers: Sequence[IdentityMatcher], identity: Identity, time: datetime) -> bool:
    """Whether one of `signers` is `identity`, and counts at the verified `time`."""
    return any(
        signer.matches(identity) and (not isinstance(signer, KeyHolder) or signer.covers(time)) for signer in signers
    )


def require_work(identity: Identity, predicate_type: str) -> None:
    """Raise `UntrustedSigner` when a key decides something."""
    if identity.issuer == KEY_ISSUER and predicate_type in DECISIONS:
        raise UntrustedSigner(
            f"a key is no person and decides nothing: it may not sign {predicate_type}",
            got=f"key {identity.san}",
            expected="an identity that a certificate names",
            remedy="sign it with a token, without --key",
        )


def require_term(signers: Sequence[IdentityMatcher], identity: Identity, time: datetime) -> None:
    """Raise `KeyOutOfTerm` when `identity` is a key that is listed, but not for `time`."""
    terms = [signer for signer in signers if isinstance(signer, KeyHolder) and signer.matches(identity)]
    if terms and not listed(signers, identity, time):
        raise KeyOutOfTerm(
            "the key does not count for the time of this signature",
            got=f"signed {rfc3339(time)}",
            expected=" or ".join(map(str, terms)),
            remedy="sign with the key that is listed for now, or have the policy change from and until",
        )
