"""What was in production at a moment, and why, from the gate's signed verdicts alone: no server, no database.

For each alias and stage of a model the newest verdict of the gate until then that let a promotion through is what stood
there, as far as evidence goes. A refusal leaves things as they were. Of what nobody signs (an alias taken away, a
version deleted, a write that failed after its verdict, whatever was done past the gate) evidence knows nothing, and the
answer says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse
from mlseal.evidence.clock import parse_rfc3339, rfc3339
from mlseal.evidence.identity import Identity, IdentityMatcher

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.trust import Trust
    from mlseal.evidence.verifying import VerifiedStatement

PROMOTIONS = {"alias": "alias", "stage": "stage", "create": "source", "rename": "renamedFrom"}
"""Actions that put a version in front of consumers, and the fact that says where."""

NOT_KNOWN = (
    "whether it was taken back since: nobody signs that an alias, version or model is deleted, or a version archived",
    "whether the write followed the verdict: what changed meanwhile is answered 409 after the verdict was signed",
    "what was done past the gate: by SQL, by a second server, by dissolving a workspace, by overwriting artifacts",
    "who loaded what: only loads that a policy governs are judged, and they leave no verdict in the log",
)


@dataclass(frozen=True)
class Event:
    """One verdict that let a promotion through, and what it rests on; ``sha256`` binds the files and their names."""

    what: str
    value: str
    version: str | None
    sha256: str
    since: datetime
    evidence_id: str
    verdict: str
    mode: str
    policies: tuple[tuple[str, str], ...]
    inputs: tuple[tuple[str, str], ...]
    requester: dict[str, str] | None
    objections: tuple[str, ...]
    revoked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            self.what: self.value,
            "version": self.version,
            "sha256": self.sha256,
            "since": rfc3339(self.since),
            "verdict": {"evidenceId": self.evidence_id, "said": self.verdict, "mode": self.mode},
            "policies": [{"name": name, "sha256": sha256} for name, sha256 in self.policies],
            "restsOn": [{"evidenceId": one, "predicateType": kind} for one, kind in self.inputs],
            "requester": self.requester,
            "objections": list(self.objections),
            "revokedByThen": list(self.revoked),
        }


@dataclass(frozen=True)
class History:
    """What stood at ``at``, what the gate refused until then, and what evidence cannot say."""

    model: str
    workspace: str
    at: datetime
    tree_size: int
    standing: tuple[Event, ...]
    refused: int
    withheld: int
    renamed_to: tuple[tuple[str, datetime], ...] = ()
    not_known: tuple[str, ...] = field(default=NOT_KNOWN)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "model": self.model,
            "workspace": self.workspace,
            "at": rfc3339(self.at),
            "treeSize": self.tree_size,
            "standing": [event.to_dict() for event in self.standing],
            "refusedUntilThen": self.refused,
            "withheld": self.withheld,
            "renamedTo": [{"model": model, "time": rfc3339(time)} for model, time in self.renamed_to],
            "notKnown": list(self.not_known),
        }


@dataclass(frozen=True)
class _Local:
    """Whoever the authority's own issuer vouches for: as for a loader, any of them may have taken evidence back."""

    trust: Trust

    def matches(self, other: Identity) -> bool:
        return self.trust.local_issuer(other.issuer)


def moment(text: str) -> datetime:
    """``2026-11-27`` (the end of that day, UTC) or an RFC 3339 time with its zone. Raises `Misuse`."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1, seconds=-1)
        return parse_rfc3339(text)
    except ValueError as error:
        raise Misuse("no moment", got=text[:60], expected="2026-11-27 or 2026-11-27T12:00:00Z") from error


def read(archive: Archive, trusted: Sequence[Identity], model: str, workspace: str, at: datetime) -> History:
    """What stood at `at` under the canonical name `model` in `workspace`.

    Every verdict used is verified. Raises what verifying raises for one that the log says the gate signed.
    """
    from mlseal.evidence.predicates import slsa_vsa

    size = archive.refresh()
    said = [one for one in _verdicts(archive, trusted, slsa_vsa.URI) if one.time <= at]
    said.sort(key=lambda one: (one.time, one.log.index))
    mine = [one for one in said if _about(one, model, workspace)]
    taken_back = _taken_back(archive, trusted, at)
    standing: dict[tuple[str, ...], Event] = {}
    for one in mine:
        if _let_through(one) and (event := _event(one, taken_back)) is not None:
            per_version = () if event.what == "alias" else (event.version or event.sha256,)
            standing[(event.what, event.value, *per_version)] = event
    moved = tuple(
        (str(_action(one)["model"]), one.time)
        for one in said
        if _let_through(one)
        and _action(one).get("renamedFrom") == model
        and _action(one).get("workspace") == workspace
        and _action(one).get("tool") == "mlflow"
    )
    return History(
        model,
        workspace,
        at,
        size,
        tuple(sorted(standing.values(), key=lambda event: (event.what, event.value, event.since))),
        sum(not _let_through(one) for one in mine),
        sum(any(gate.matches(leaf.identity) for gate in trusted) for leaf in archive.unresolved()),
        tuple(dict(moved).items()),
    )


def _verdicts(archive: Archive, trusted: Sequence[Identity], uri: str) -> Iterator[VerifiedStatement]:
    for bundle in archive.of_type([uri]):
        if archive.signed_by(bundle.evidence_id, trusted):
            yield _verified(archive, bundle, trusted)


def _verified(archive: Archive, bundle: Bundle, identities: Sequence[Any]) -> VerifiedStatement:
    from mlseal.evidence.revocation import NOTHING_REVOCABLE

    said = bundle.statement
    return archive.verifier.verify(
        bundle,
        predicate_type=said.predicate_type,
        identities=identities,
        subjects=[subject.sha256 for subject in said.subjects],
        revocations=NOTHING_REVOCABLE,
    )


def _taken_back(archive: Archive, trusted: Sequence[Identity], at: datetime) -> frozenset[str]:
    """Evidence that somebody of the authority's own had revoked by `at`."""
    from mlseal.evidence.predicates import revocation

    revokers: list[IdentityMatcher] = [*trusted, _Local(archive.trust)]
    found = set()
    for bundle in archive.of_type([revocation.URI]):
        if archive.signed_by(bundle.evidence_id, revokers):
            said = _verified(archive, bundle, revokers)
            if said.time <= at and isinstance(said.predicate, revocation.Predicate):
                found.add(str(said.predicate.evidence_id))
    return frozenset(found)


def _action(said: VerifiedStatement) -> dict[str, str]:
    details = getattr(said.predicate, "mlseal", None)
    return dict(details.action) if details is not None else {}


def _about(said: VerifiedStatement, model: str, workspace: str) -> bool:
    action = _action(said)
    return (
        action.get("tool") == "mlflow"
        and action.get("action") in PROMOTIONS
        and (action.get("model"), action.get("workspace")) == (model, workspace)
    )


def _let_through(said: VerifiedStatement) -> bool:
    """Allowed, or objected to by policies that only observe: the promotion went on."""
    predicate: Any = said.predicate
    return bool(predicate.mlseal and (predicate.mlseal.verdict == "allowed" or predicate.mlseal.mode == "observe"))


def _event(said: VerifiedStatement, taken_back: frozenset[str]) -> Event | None:
    predicate: Any = said.predicate
    details, action = predicate.mlseal, _action(said)
    value = action.get(PROMOTIONS[action["action"]])
    if value is None:
        return None
    inputs = tuple(
        (str(notes.get("evidenceId", "")), str(notes.get("predicateType", "")))
        for notes in (one.annotations or {} for one in predicate.input_attestations)
    )
    return Event(
        action["action"],
        value,
        action.get("version"),
        said.statement.subjects[-1].sha256,
        said.time,
        said.evidence_id,
        details.verdict,
        details.mode,
        tuple((policy.name, str(policy.sha256)) for policy in details.policies),
        inputs,
        None if details.requester is None else details.requester.to_json(),
        tuple(reason.message for reason in details.reasons),
        tuple(one for one in (said.evidence_id, *(given for given, _ in inputs)) if one in taken_back),
    )
