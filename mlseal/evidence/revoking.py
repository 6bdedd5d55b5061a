"""Take evidence back, and state what is taken back."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from mlseal.errors import NoEvidence
from mlseal.evidence import beginning, statement
from mlseal.evidence.archive import Archive, revocation_subject
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.digest import Subject
from mlseal.evidence.naming import PLAIN  # these subjects are no files: nothing to hide
from mlseal.evidence.predicates import revocation, revocation_snapshot
from mlseal.evidence.signing import Signer


def named(archive: Archive, typed: str) -> str:
    """The evidence id in the log that `typed` is the unique beginning of; see `mlseal.evidence.beginning`."""
    return beginning.full(typed, archive.index.ids, where="in the log")


def revoke(archive: Archive, signer: Signer, evidence_id: str, *, reason: str, comment: str | None = None) -> Bundle:
    """Sign a revocation of `evidence_id`. Raises `NoEvidence` unless the log holds it.

    Anybody can sign one; it counts where a policy lists the signer under ``revokers``.
    """
    if archive.index.leaf(evidence_id) is None:
        raise NoEvidence(
            f"the log holds no evidence {evidence_id[:16]}…",
            expected="a full evidence id of 64 hex digits",
            remedy="run 'mlseal log show' to find it",
        )
    claim = revocation.Predicate.model_validate(
        {"evidenceId": evidence_id, "reason": reason, "comment": comment, "nonce": secrets.token_hex(16)}
    )
    return signer.sign(statement.make([revocation_subject(evidence_id)], revocation.URI, claim.to_json(), names=PLAIN))


def snapshot(archive: Archive, signer: Signer, *, valid_for: timedelta) -> Bundle:
    """Sign the list of everything that this very identity revoked in the logs, up to their present sizes.

    Only its own: a snapshot that repeated the revocations of others would lend them its signer's authority, and a
    producer could have a failed result of its own taken off the books that way. Revocations by other listed identities
    count by themselves, from the log.

    Raises `Withheld` when the signer's own earlier statements are not all shown: one may be a revocation, and a list
    without it would be false.
    """
    archive.refresh()
    own = [signer.identity()]
    archive.require_shown(own)
    revoked = []
    for bundle in archive.of_type([revocation.URI]):
        if archive.signed_by(bundle.evidence_id, own):
            claim = revocation.Predicate.model_validate(dict(bundle.statement.predicate))
            revoked.append(revocation_snapshot.Entry(evidence_id=claim.evidence_id, reason=claim.reason))
    sizes = [
        revocation_snapshot.LogSize(origin=log.origin, tree_size=archive.index.size(log.origin))
        for log in archive.trust.logs
    ]
    now = archive.clock()
    claim_all = revocation_snapshot.Predicate(
        origin=sizes[-1].origin,
        tree_size=sizes[-1].tree_size,
        logs=sizes,
        issued_at=rfc3339(now),
        valid_until=rfc3339(now + valid_for),
        nonce=secrets.token_hex(16),
        revoked=sorted(set(revoked), key=lambda e: (e.evidence_id, e.reason)),
    )
    names = hashlib.sha256("\n".join(f"{e.evidence_id} {e.reason}" for e in claim_all.revoked).encode()).hexdigest()
    about = Subject("revocations", names)
    return signer.sign(statement.make([about], revocation_snapshot.URI, claim_all.to_json(), names=PLAIN))
