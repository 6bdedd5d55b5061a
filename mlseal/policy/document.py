"""What an OPA server is shown: one canonical JSON document of verified facts, the same that conditions in CEL see.

Whatever stands under ``requirements`` was verified: signature, log entry, time, schema, listed signer, revocation. All
results that count are there, the worst among them; what was superseded or is not meant by ``where`` is not. ``action``
is what the caller is about to do, in the form in which names are compared, so that ``Champion`` is ``champion`` here.

The document holds what evidence holds and nothing more: no file's content, no name of a person beyond the signers of
certificates. Where names are committed (``MLSEAL_NAMES``), that of the subject is too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from mlseal.errors import Unchecked
from mlseal.evidence import canonical, naming
from mlseal.evidence.clock import rfc3339
from mlseal.policy.case import Case
from mlseal.policy.facts import VerifiedFact

URI = "https://mlseal.dev/opa-input/v0.1"
LARGEST = 4 * 1024 * 1024
"""Bytes of a document; evidence is under 64 kB a piece, so this is some sixty pieces at their largest."""


@dataclass(frozen=True)
class Document:
    """The document about one policy and one subject, as bytes (RFC 8785) and as a value."""

    raw: bytes
    value: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the bytes; stands in the verdict."""
        return hashlib.sha256(self.raw).hexdigest()


def of(case: Case) -> Document:
    """The document of a case whose requirements were judged. Raises `Unchecked` if it is too large."""
    requirements = {
        requirement.id: {
            "predicateType": requirement.predicate_type,
            "facts": [_fact(case, requirement.id, fact) for fact in case.counted.get(requirement.id, {}).values()],
        }
        for requirement in case.policy.binding(case.now)
    }
    value: dict[str, Any] = {
        "document": URI,
        "policy": {"name": case.policy.name, "sha256": case.policy.sha256},
        "now": rfc3339(case.now),
        "action": None if case.action is None else dict(case.action),
        "subject": {"name": naming.in_force().subject(case.target.name), "sha256": case.target.sha256},
        "requirements": requirements,
        "treeSize": case.source.tree_size,
    }
    raw = canonical.dumps(value)
    if len(raw) > LARGEST:
        raise Unchecked(
            "the document for OPA is too large",
            got=f"{len(raw)} bytes",
            expected=f"at most {LARGEST}",
            remedy="select with 'where' which results the requirements are about",
        )
    return Document(raw, value)


def _fact(case: Case, requirement: str, fact: VerifiedFact) -> dict[str, Any]:
    """One verified statement; ``satisfies`` says whether the requirement stands on it, ``revoked`` why not."""
    standing = {other.evidence_id for other in case.support.get(requirement, ())}
    return {
        "evidenceId": fact.evidence_id,
        "bundleSha256": fact.bundle_sha256,
        "signer": {"issuer": fact.identity.issuer, "san": fact.identity.san},
        "signedOn": rfc3339(fact.time),
        "assurance": {axis: str(getattr(fact.assurance, axis)) for axis in ("identity", "log", "time")},
        "subjects": [{"name": subject.name, "sha256": subject.sha256} for subject in fact.subjects],
        "predicate": fact.predicate.model_dump(by_alias=True, exclude_none=True, mode="json"),
        "revoked": case.revoked(fact),
        "satisfies": fact.evidence_id in standing,
    }
