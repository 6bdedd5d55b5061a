"""Whoever holds a key, for as long as a policy lets the key count; and what a key may say at all.

A key is not a person: whoever has a copy is its holder, and the holder can be several people or a thief. So a key makes
evidence of work, and decides nothing. Everything here is asked by steps 3 and 8 of `mlseal.evidence.verifying`,
wherever the list of signers comes from.

Two times speak of one signature: what the signed bytes state, and the stamp, which comes up to minutes later and which
anybody can have made anew in those minutes. A term asks for both. Evidence with one time inside and one outside is
neither the owner's nor a stranger's: were it passed over, a failed result signed just before ``until`` could be stamped
again after it, by anybody, and be gone.
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
    """A key that is listed signed at a time for which it is not, by what the signed bytes state and by the stamp."""


class KeyTimesDisagree(UntrustedSigner):
    """Of stated time and stamp one lies in the time of a key and one does not: it does not count, and it stops."""


@dataclass(frozen=True)
class KeyHolder:
    """Whoever signs with the key of this fingerprint from ``since`` until ``until``, by stated and by verified time.

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


def listed(signers: Sequence[IdentityMatcher], identity: Identity, *times: datetime) -> bool:
    """Whether one of `signers` is `identity`, and counts at each of the `times` of its signature."""
    same = [signer for signer in signers if signer.matches(identity)]
    return any(not isinstance(signer, KeyHolder) for signer in same) or (
        bool(same and times) and all(_covered(same, time) for time in times)
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


def require_term(signers: Sequence[IdentityMatcher], identity: Identity, *times: datetime) -> None:
    """Raise when `identity` is a key that is listed, but not for all of the `times` of its signature.

    Raises `KeyOutOfTerm` if it is listed for none of them, `KeyTimesDisagree` if for some.
    """
    terms = [signer for signer in signers if isinstance(signer, KeyHolder) and signer.matches(identity)]
    if not terms or listed(signers, identity, *times):
        return
    got, expected = f"signed {' and '.join(map(rfc3339, times))}", " or ".join(map(str, terms))
    if any(_covered(terms, time) for time in times):
        raise KeyTimesDisagree(
            "the key does not count for both the time that the signed bytes state and the time of the stamp",
            got=got,
            expected=expected,
            remedy="restore the bundle as it was signed, or have the policy move from and until off these minutes",
        )
    raise KeyOutOfTerm(
        "the key does not count for the time of this signature",
        got=got,
        expected=expected,
        remedy="sign with the key that is listed for now, or have the policy change from and until",
    )


def _covered(signers: Sequence[IdentityMatcher], time: datetime) -> bool:
    return any(isinstance(signer, KeyHolder) and signer.covers(time) for signer in signers)
