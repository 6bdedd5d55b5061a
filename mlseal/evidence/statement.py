"""An in-toto Statement v1: which subjects, which claim, in frozen bytes.

The bytes are the statement. They are written once (RFC 8785), signed, carried and verified unchanged; every parsed
view is made from them and never written back (in-toto attestation spec v1, section Statement).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlseal.errors import MalformedEvidence
from mlseal.evidence import canonical, naming
from mlseal.evidence.clock import parse_rfc3339
from mlseal.evidence.digest import Subject
from mlseal.evidence.naming import Naming

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_PREDICATE_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024  # an OMS signature of a directory lists every file
SIGNED_AT = "mlseal.dev/signedAt"
"""Annotation of the first subject: when it was signed, stated by a signer whom no certificate bounds in time."""
_HEX_64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Statement:
    """What is claimed about what. Build with `make` or `parse`, not by hand.

    Attributes:
        payload: the exact bytes that are signed.
        subjects: at least one; each with a SHA-256.
        predicate_type: URI of the claim's type.
        predicate: the claim, a parsed copy of the bytes.
    """

    payload: bytes
    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]

    @property
    def evidence_id(self) -> str:
        """Hex SHA-256 of the DSSE pre-authentication encoding: the digest the log leaf holds.

        This, not the digest of the bundle file, names a piece of evidence everywhere (index, revocation, store): a
        bundle can be re-encoded by anyone, the signed bytes cannot.
        """
        return hashlib.sha256(pae(self.payload)).hexdigest()


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """DSSE v1 pre-authentication encoding (secure-systems-lab/dsse, protocol.md)."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def make(
    subjects: Iterable[Subject], predicate_type: str, predicate: Mapping[str, Any], *, names: Naming | None = None
) -> Statement:
    """A statement with canonical bytes.

    `names` says how the subjects' names are written; None means as the user chose (`naming.in_force`), so that a caller
    who does not think of it cannot give a name away. The names inside `predicate` are the caller's.

    Raises `MalformedEvidence` if there is no subject, a name repeats, or the predicate exceeds 64 kB (bulk lies beside
    the evidence, by digest); an OMS signature, which lists every file, is exempt from the last.
    """
    said = (naming.in_force() if names is None else names).subjects(subjects)
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": s.name, "digest": {"sha256": s.sha256}} for s in said],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    return parse(canonical.dumps(document))


def parse(payload: bytes) -> Statement:
    """The statement in `payload`, checked member by member; unknown members of the statement are refused."""
    document = canonical.parse(payload, what="statement", limit=MAX_PAYLOAD_BYTES)
    if not isinstance(document, dict) or set(document) != {"_type", "subject", "predicateType", "predicate"}:
        raise MalformedEvidence("statement has missing or unknown members", expected="an in-toto Statement v1")
    if document["_type"] != STATEMENT_TYPE:
        raise MalformedEvidence("wrong statement type", got=document["_type"], expected=STATEMENT_TYPE)
    predicate, predicate_type = document["predicate"], document["predicateType"]
    if not isinstance(predicate, dict) or not isinstance(predicate_type, str) or ":" not in predicate_type:
        raise MalformedEvidence("predicate must be an object and predicateType a URI")
    if not predicate_type.startswith("https://model_signing/"):
        size = len(canonical.dumps(predicate))
        if size > MAX_PREDICATE_BYTES:
            raise MalformedEvidence(
                "predicate is too large", got=f"{size} bytes", expected=f"at most {MAX_PREDICATE_BYTES}"
            )
    subjects = tuple(_subject(entry) for entry in _nonempty_list(document["subject"]))
    if len({s.name for s in subjects}) != len(subjects):
        raise MalformedEvidence("two subjects share a name")
    return Statement(payload, subjects, predicate_type, predicate)


def at(said: Statement, moment: datetime) -> Statement:
    """`said`, stating that it is signed at `moment`; other bytes, so another evidence id.

    To the microsecond (RFC 3339), so that two signatures of the same claim are no one statement, of which a log would
    take the first only. It stands as an annotation of the first subject, the one place that in-toto's v1 leaves free in
    any type of claim.
    """
    document = canonical.parse(said.payload, what="statement", limit=MAX_PAYLOAD_BYTES)
    first = document["subject"][0]
    exact = moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    first["annotations"] = {**first.get("annotations", {}), SIGNED_AT: exact}
    return parse(canonical.dumps(document))


def signed_at(said: Statement) -> datetime | None:
    """When `said` states that it was signed; None if it does not. Raises `MalformedEvidence` if that is no time."""
    document = canonical.parse(said.payload, what="statement", limit=MAX_PAYLOAD_BYTES)
    notes = document["subject"][0].get("annotations")
    stated = notes.get(SIGNED_AT) if isinstance(notes, dict) else None
    if stated is None:
        return None
    try:
        return parse_rfc3339(stated)
    except (TypeError, ValueError, AttributeError) as error:
        raise MalformedEvidence(f"the annotation {SIGNED_AT} is no time", got=str(stated)[:60]) from error


def _nonempty_list(value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise MalformedEvidence("statement has no subject", expected="at least one")
    return value


def _subject(entry: object) -> Subject:
    if not isinstance(entry, dict) or not set(entry) <= {"name", "digest", "annotations"}:
        raise MalformedEvidence("subject has missing or unknown members", expected="name and digest.sha256")
    name, digest = entry.get("name"), entry.get("digest")
    # A digest set matches when *any* member matches, so a weak algorithm beside SHA-256 would be a way in.
    if not isinstance(name, str) or not name or not isinstance(digest, dict) or set(digest) != {"sha256"}:
        raise MalformedEvidence("subject needs a name and exactly one digest, sha256", got=str(entry)[:120])
    if not isinstance(digest["sha256"], str) or not _HEX_64.fullmatch(digest["sha256"]):
        raise MalformedEvidence("subject digest is not 64 lower-case hex digits", got=str(digest["sha256"])[:80])
    return Subject(name, digest["sha256"])
