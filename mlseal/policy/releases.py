"""Which version of a policy its owners say is in force: signed statements, numbered, on the log.

1. Everything that an owner signed after a release must be shown: it may be the next one.
2. The owners' releases of the policy are verified like all evidence; one that does not verify stops.
3. Numbers only rise. Two releases under one number are two stories, and neither is believed.
4. Bytes that were released before come back only by a rollback, which has a reason.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlseal.errors import MalformedEvidence, Misuse, RuleBroken, SplitView, Withheld
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.naming import PLAIN  # a policy's name is no secret
from mlseal.evidence.predicates import policy_release
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.verifying import VerifiedStatement
from mlseal.policy.model import Policy

if TYPE_CHECKING:
    from mlseal.evidence.signing import Signer

NOT_PROVEN = ["that the policy asks for the right thing", "that every machine has pinned it"]


@dataclass(frozen=True)
class Release:
    """One verified release: of the bytes `sha256` as number `serial`; `place` is where it stands on the log."""

    policy: str
    sha256: str
    serial: int
    act: str
    reason: str | None
    evidence_id: str
    place: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.act} {self.serial} of {self.policy} (sha256 {self.sha256[:16]}…)"


def verified(archive: Archive, bundle: Bundle, sha256: str, owners: Sequence[Identity]) -> Release:
    """`bundle` as a release of the bytes `sha256` by one of `owners`. Raises whatever keeps it from being one."""
    fact = archive.verifier.verify(
        bundle,
        predicate_type=policy_release.URI,
        identities=owners,
        subjects=[sha256],
        revocations=NOTHING_REVOCABLE,
    )
    return _release(archive, fact, sha256)


def known(archive: Archive, name: str, owners: Sequence[Identity], *, since: Release | None = None) -> list[Release]:
    """All releases of the policy `name` by `owners`, the newest last (1, 2, 3). `archive` must be up to date.

    `since`: what comes before it on the log need not be shown. Raises `Withheld`, `SplitView`, and what verifying does.
    """
    _require_shown(archive, owners, since)  # (1)
    found = []
    for bundle in archive.of_type([policy_release.URI]):
        if not archive.signed_by(bundle.evidence_id, owners) or bundle.statement.predicate.get("policy") != name:
            continue
        found.append(verified(archive, bundle, bundle.statement.subjects[0].sha256, owners))  # (2)
    ordered = sorted(found, key=lambda release: release.serial)
    for one, other in itertools.pairwise(ordered):
        _require_one_story(one, other)
    return ordered


def require_newest(release: Release, others: Sequence[Release]) -> None:
    """Raise unless `release` is ahead of `others` (3), and brings old bytes back only as a rollback (4)."""
    for other in others:
        _require_one_story(release, other)
    newest = max(others, key=lambda other: other.serial, default=release)
    if newest.serial > release.serial:
        raise RuleBroken(
            f"this is an older version of {release.policy}: going back is a signed act of its own",
            got=str(release),
            expected=str(newest),
            remedy="pin the newest; its owner goes back with 'mlseal policy rollback FILE --reason TEXT'",
        )
    before = [other for other in others if other.sha256 == release.sha256 and other.serial < release.serial]
    if before and release.act != "rollback":
        raise RuleBroken(
            f"the release brings an earlier version of {release.policy} back without saying so",
            got=f"{release}, the same bytes as number {before[0].serial}",
            expected="a rollback, with a reason",
            remedy="mlseal policy rollback FILE --reason TEXT, as its owner",
        )


def _require_one_story(one: Release, other: Release) -> None:
    if one.serial == other.serial and one.sha256 != other.sha256:
        raise SplitView(
            f"two releases of {one.policy} have the number {one.serial}",
            got=f"sha256 {one.sha256[:16]}… and {other.sha256[:16]}…",
            expected="each number once",
            remedy="ask its owners which is theirs, and have them release it under a higher number",
        )


def sign(archive: Archive, signer: Signer, policy: Policy, *, owners: Sequence[Identity], reason: str | None) -> Bundle:
    """Release `policy` as the next version. Raises `Misuse` if these bytes were released before."""
    earlier = known(archive, policy.name, owners)
    if any(release.sha256 == policy.sha256 for release in earlier):
        raise Misuse(
            f"these bytes of {policy.name} were released before",
            got=f"sha256 {policy.sha256[:16]}…",
            expected="a changed file",
            remedy="to go back to them: mlseal policy rollback FILE --reason TEXT",
        )
    return _signed(signer, policy, earlier, "release", reason)


def roll_back(archive: Archive, signer: Signer, policy: Policy, *, owners: Sequence[Identity], reason: str) -> Bundle:
    """Put an earlier version in force again. Raises `Misuse` unless these bytes were released, and something since."""
    earlier = known(archive, policy.name, owners)
    if not any(release.sha256 == policy.sha256 for release in earlier) or earlier[-1].sha256 == policy.sha256:
        raise Misuse(
            f"there is nothing to go back to: these bytes of {policy.name} are "
            + ("in force" if earlier and earlier[-1].sha256 == policy.sha256 else "no earlier release"),
            expected="the file of an earlier release by the same owners",
            remedy="mlseal policy release FILE, for a new version",
        )
    return _signed(signer, policy, earlier, "rollback", reason)


def _signed(signer: Signer, policy: Policy, earlier: Sequence[Release], act: str, reason: str | None) -> Bundle:
    claim = policy_release.Predicate.model_validate(
        {
            "policy": policy.name,
            "serial": earlier[-1].serial + 1 if earlier else 1,
            "act": act,
            "replaces": earlier[-1].sha256 if earlier else None,
            "reason": reason,
            "notProven": NOT_PROVEN,
            "nonce": secrets.token_hex(16),
        }
    )
    about = Subject(policy.name, policy.sha256)
    return signer.sign(statement.make([about], policy_release.URI, claim.to_json(), names=PLAIN))


def _release(archive: Archive, fact: VerifiedStatement, sha256: str) -> Release:
    claim = fact.predicate
    if not isinstance(claim, policy_release.Predicate):
        raise MalformedEvidence("not a policy release", got=fact.predicate_type, expected=policy_release.URI)
    origins = [log.origin for log in archive.trust.logs]  # oldest first
    place = (origins.index(fact.log.origin), fact.log.index)
    return Release(claim.policy, sha256, claim.serial, claim.act, claim.reason, fact.evidence_id, place)


def _require_shown(archive: Archive, owners: Sequence[Identity], since: Release | None) -> None:
    origins = [log.origin for log in archive.trust.logs]
    for leaf in archive.unresolved():
        later = since is None or (origins.index(leaf.origin), leaf.index) > since.place
        if later and leaf.identity in owners:
            raise Withheld(
                "an owner of the policy signed something that nobody shows: it may be a newer version",
                got=f"evidence {leaf.evidence_id} by {leaf.identity}",
                expected=f"its bundle in {archive.store}",
                remedy="copy the bundle into the store, or pass --store DIR",
            )
