"""What verified evidence says of a model: the only source of its card.

1. The log is read up to its present end, and what listed identities took back is known.
2. Every piece of evidence about the model that a listed identity signed is verified in full; one that does not verify
   stops, for a card that left it out would look better than the truth.
3. Evidence of others is counted and not repeated.
4. Inputs that provenance names by digest are followed one step: what listed identities said of them stands beside.
5. A part that its own signer merged is told by what it became, and by itself not again; any other part stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlseal.errors import Misuse, NoEvidence, Withheld
from mlseal.evidence import predicates
from mlseal.evidence.archive import Archive
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocations
from mlseal.evidence.verifying import VerifiedStatement

_JUDGEMENTS = frozenset({"revocation", "revocation-snapshot", "ownership"})


@dataclass(frozen=True)
class Record:
    """One verified statement, as a card shows it.

    Attributes:
        kind: short name of its type.
        said: the predicate as it was signed.
        about: name of the subject in it.
        taken_back: the reason, if it was revoked.
    """

    evidence_id: str
    kind: str
    said: Mapping[str, Any]
    about: str
    signer: str
    issuer: str
    time: str
    assurance: Mapping[str, str]
    taken_back: str | None

    @property
    def outcome(self) -> str:
        """What a type with a verdict of its own says; "" for measurements."""
        found = (self.said.get(name) for name in ("result", "verificationResult", "decision"))
        return next((str(text) for text in found if text), "")

    @property
    def parts(self) -> list[str]:
        """Evidence ids of the parts that it says it was merged from."""
        if self.kind != "test-result":  # whose format is not ours, and has no harness
            return list((self.said.get("harness") or {}).get("partials") or [])
        listed = [one.get("annotations") or {} for one in self.said["configuration"] if one.get("name") == "partials"]
        return [str(evidence_id) for annotations in listed for evidence_id in annotations.values()]

    @property
    def about_what(self) -> str:
        """Which of several of its type: the kind of attack, or the attribute compared; else the day."""
        return str(self.said.get("kind") or self.said.get("attribute") or self.time[:10])

    @property
    def not_proven(self) -> list[str]:
        """What the signer says must not be concluded."""
        found = self.said.get("notProven", [])
        return [str(text) for text in found] if isinstance(found, list) else []


@dataclass(frozen=True)
class Records:
    """Everything for the card: about the model, about its data by digest, and how much others said."""

    model: tuple[Record, ...]
    data: Mapping[str, tuple[Record, ...]]
    inputs: tuple[Mapping[str, Any], ...]
    others: int

    def of(self, kind: str) -> list[Record]:
        """Records of that type about the model that stand, newest last."""
        return [record for record in self.model if record.kind == kind and record.taken_back is None]


def gather(archive: Archive, sha256: str, signers: Mapping[str, str]) -> Records:
    """Verified records about the model with digest `sha256`.

    Args:
        archive: brought up to the log here.
        sha256: of the model.
        signers: SAN → issuer of the identities whose word the card repeats, and whose revocations count.

    Raises `NoEvidence` if none of them said anything, `Withheld` if one of them signed what nobody shows, and whatever
    the verifier raises.
    """
    if not signers:
        raise Misuse("nobody is named whose evidence counts", expected="--signers SAN=ISSUER, repeated")
    listed = [Identity(issuer, san) for san, issuer in signers.items()]
    archive.refresh()  # (1)
    revoked = archive.revocations(listed)
    for leaf in archive.unresolved(revoked):
        if leaf.identity in listed:
            raise Withheld(
                f"the log holds evidence by {leaf.identity} that nobody shows",
                got=f"evidence {leaf.evidence_id[:16]}…",
                remedy="put its bundle into the store, or have it revoked",
            )
    about, others = _about(archive, sha256, listed, revoked)
    if not about:
        raise NoEvidence(
            "no listed identity said anything about this model",
            got=f"{others} pieces of evidence by others",
            remedy="run its stages first, or name who signed: --signers SAN=ISSUER",
        )
    inputs = _inputs(about)
    data = {digest: _about(archive, digest, listed, revoked)[0] for digest in inputs}  # (4)
    return Records(about, data, tuple(inputs.values()), others)


def _about(
    archive: Archive, sha256: str, listed: Sequence[Identity], revoked: Revocations
) -> tuple[tuple[Record, ...], int]:
    found, others = [], 0
    for bundle in archive.candidates([sha256], list(predicates.MODELS)):
        evidence_id = bundle.evidence_id
        if not archive.signed_by(evidence_id, listed):
            others += 1  # (3)
            continue
        said = bundle.statement
        verified = archive.verifier.verify(
            bundle,
            predicate_type=said.predicate_type,
            identities=listed,
            subjects=[sha256],
            revocations=NOTHING_REVOCABLE,
        )  # (2)
        revocation = revoked.of(evidence_id)
        record = _record(verified, sha256, revocation.reason if revocation else None)
        if record.kind not in _JUDGEMENTS:
            found.append(record)
    merged = {(one.signer, one.issuer, part) for one in found for part in one.parts}
    left = [
        one for one in found if one.kind != "partial-result" or (one.signer, one.issuer, one.evidence_id) not in merged
    ]
    return tuple(left), others  # (5)


def _record(verified: VerifiedStatement, sha256: str, taken_back: str | None) -> Record:
    levels = verified.assurance
    return Record(
        evidence_id=verified.evidence_id,
        kind=next(short for short, uri in predicates.SHORT.items() if uri == verified.predicate_type),
        said=verified.statement.predicate,
        about=next(subject.name for subject in verified.subjects if subject.sha256 == sha256),
        signer=verified.identity.san,
        issuer=verified.identity.issuer,
        time=rfc3339(verified.time),
        assurance={"identity": levels.identity, "log": levels.log, "time": levels.time},
        taken_back=taken_back,
    )


def _inputs(about: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    """Digest → resource of everything that the model's records name as what they worked on."""
    found: dict[str, Mapping[str, Any]] = {}
    for record in (r for r in about if r.taken_back is None):
        definition = record.said.get("buildDefinition", {})
        resources = [*definition.get("resolvedDependencies", []), record.said.get("dataset")]
        for resource in resources:
            digest = (resource or {}).get("digest", {}).get("sha256")
            if digest:
                found.setdefault(digest, resource)
    return found
