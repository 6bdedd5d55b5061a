"""Everything a judge needs in one place: trust root, store, index, verifier."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from mlseal.errors import Error, NoEvidence, Unchecked, Withheld
from mlseal.evidence import predicates, revocation, snapshots
from mlseal.evidence import store as stores
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import KEY_ISSUER, IdentityMatcher
from mlseal.evidence.index import Index
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.predicates import revocation as revocation_predicate
from mlseal.evidence.predicates import revocation_snapshot
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocation, Revocations
from mlseal.evidence.store import BundleStore, Progress, quiet
from mlseal.evidence.tiles import service_tiles
from mlseal.evidence.trust import Trust
from mlseal.evidence.verifying import VerifiedStatement, Verifier
from mlseal.tlog.tiles import TileSource


class Archive:
    """The evidence that is known here, under one trust root. Open with `open`.

    Call `refresh` before judging: it brings the index up to the log. Everything read is untrusted until `verifier` has
    verified it. ``progress`` is told while many bundles are fetched.
    """

    def __init__(self, trust: Trust, store: BundleStore, tiles: Mapping[str, TileSource], clock: Clock) -> None:
        self.trust, self.store, self.clock = trust, store, clock
        self._tiles = dict(tiles)
        self.verifier = Verifier(trust, tiles=self._tiles, clock=clock, doubted=store.doubted)
        self.index = Index(trust.state_directory() / f"index-{store.name}.db", store, self.verifier.checkpoints)
        self.progress: Progress = quiet
        self.tree_size = 0

    @classmethod
    def open(
        cls,
        trust: Trust,
        store: BundleStore | str | os.PathLike[str] | None = None,
        *,
        tiles: Mapping[str, TileSource] | None = None,
        clock: Clock = utcnow,
    ) -> Archive:
        """The archive of `store` under `trust`; tiles come from the trust's services unless given."""
        chosen = store if isinstance(store, BundleStore) else stores.resolve(store or None)
        return cls(trust, chosen, service_tiles(trust) if tiles is None else tiles, clock)

    def close(self) -> None:
        """Close the index; nothing can be looked up any more."""
        self.index.close()

    def refresh(self) -> int:
        """Index every log up to its checkpoint; returns the tree sizes' sum, the size a verdict records.

        Raises `Unchecked` when a log of the trust root cannot be read: what it holds is then unknown.
        """
        self.trust.require_current(self.clock())
        total = 0
        for log in self.trust.logs:
            tiles = self._tiles.get(log.origin)
            if tiles is None:
                raise Unchecked(
                    f"log {log.origin} cannot be read",
                    expected="its service or a copy of its tiles",
                    remedy="use the operator's trust_config.json, or pass a directory with the log's tiles",
                )
            total += self.index.update(log, tiles, self.progress)
        self.tree_size = total
        return total

    def candidates(self, sha256s: Collection[str], predicate_types: Collection[str]) -> list[Bundle]:
        """Unverified bundles that name any of the digests, in log order.

        Raises `Withheld` when the index knows one that the store no longer holds.
        """
        return self._bundles(self.index.find(sha256s, _uris(predicate_types)))

    def of_type(self, predicate_types: Collection[str]) -> list[Bundle]:
        """Unverified bundles of these types, in log order."""
        return self._bundles(self.index.of_type(_uris(predicate_types)))

    def unresolved(self, revocations: Revocations = NOTHING_REVOCABLE) -> list[Leaf]:
        """Leaves that nobody shows a bundle for and that no listed identity accounted for by a revocation."""
        return [leaf for leaf in self.index.unresolved() if revocations.of(leaf.evidence_id) is None]

    def elsewhere(self) -> str | None:
        """Why this looks like another store than the log's: it is not there, or never showed any entry of the log."""
        if isinstance(self.store, stores.Store) and not self.store.root.is_dir():
            return f"the store {self.store.absolute()} does not exist"
        if self.tree_size and not self.index.resolved():
            return f"the store {self.store.absolute()} holds none of the {self.tree_size} entries of the log"
        return None

    def accounted(self, leaf: Leaf, revokers: Sequence[IdentityMatcher]) -> bool:
        """Whether its own signer or one of `revokers` took back what nobody shows at `leaf`.

        Nobody else is asked: who could take back what somebody else signed could hide a withdrawal, by withholding it.
        """
        return self.revocations([leaf.identity, *revokers]).of(leaf.evidence_id) is not None

    def require_shown(self, identities: Sequence[IdentityMatcher]) -> None:
        """Raise `Withheld` when one of `identities` signed something that nobody shows: it may be a revocation."""
        for leaf in self.index.unresolved():
            if any(matcher.matches(leaf.identity) for matcher in identities):
                raise Withheld(
                    f"nobody shows entry {leaf.index} of {leaf.origin}, by somebody who may revoke",
                    got=f"evidence {leaf.evidence_id} signed by {leaf.identity}",
                    expected=f"its bundle in {self.store}",
                    remedy="pass --store DIR, or copy the bundle there",
                )

    def revocations(self, revokers: Sequence[IdentityMatcher]) -> Revocations:
        """What the listed identities revoked, with the newest snapshot of theirs that can be true.

        Revocations by others are ignored: anyone can sign one. So are those by keys, which take nothing back: whoever
        stole one would make all that its owner signed unverifiable. What a snapshot lists counts, whatever its sizes.
        """
        found: list[Revocation] = []
        stated: list[tuple[VerifiedStatement, revocation_snapshot.Predicate]] = []
        for bundle in self.of_type([revocation_predicate.URI, revocation_snapshot.URI]):
            leaf = self.index.leaf(bundle.evidence_id)
            if leaf is None or leaf.identity.issuer == KEY_ISSUER:
                continue
            verified = self._by(bundle, revokers)
            if verified is None:
                continue
            predicate = verified.predicate
            if isinstance(predicate, revocation_predicate.Predicate):
                found.append(Revocation(predicate.evidence_id, predicate.reason, str(verified.identity)))
            elif isinstance(predicate, revocation_snapshot.Predicate):
                found += [Revocation(e.evidence_id, e.reason, str(verified.identity)) for e in predicate.revoked]
                stated.append((verified, predicate))
        revoked, flaw = revocation.merge(found), None
        for verified, claim in sorted(stated, key=lambda pair: (pair[0].time, pair[0].log.index), reverse=True):
            reason = snapshots.flaw_of(verified, claim, self.trust, self.index, self._signed_at)
            if reason is None:
                return Revocations(revoked, verified.time, revocation.snapshot_end(claim.valid_until), flaw)
            flaw = flaw or f"snapshot {verified.evidence_id[:16]}… does not count: {reason}"
        return Revocations(revoked, flaw=flaw)

    def signed_by(self, evidence_id: str, identities: Sequence[IdentityMatcher]) -> bool:
        """Whether the *log* says that one of `identities` signed this evidence.

        The log entry holds the certificate and was checked by the index, so this does not depend on the bundle file.
        Evidence that a listed identity signed must be verified or stop the judge; only evidence of others may be
        passed over. Otherwise a spoilt bundle would hide a failed result.
        """
        leaf = self.index.leaf(evidence_id)
        return leaf is not None and any(matcher.matches(leaf.identity) for matcher in identities)

    def _by(self, bundle: Bundle, identities: Sequence[IdentityMatcher]) -> VerifiedStatement | None:
        said = bundle.statement
        if not self.signed_by(said.evidence_id, identities):
            return None
        return self.verifier.verify(
            bundle,
            predicate_type=said.predicate_type,
            identities=identities,
            subjects=[said.subjects[0].sha256],
            revocations=NOTHING_REVOCABLE,
        )

    def _signed_at(self, leaf: Leaf) -> datetime | None:
        try:
            verified = self._by(self._bundle(leaf.evidence_id), [leaf.identity])
        except Error:
            return None
        return verified.time if verified else None

    def _bundle(self, evidence_id: str) -> Bundle:
        return self._bundles([evidence_id])[0]

    def _bundles(self, ids: Sequence[str]) -> list[Bundle]:
        """The bundles of `ids`, in that order; all must be had."""
        found = dict(self.store.fetch(ids, self.progress)) if ids else {}
        return [self._had(evidence_id, found[evidence_id]) for evidence_id in ids]

    def _had(self, evidence_id: str, found: Bundle | Error) -> Bundle:
        if isinstance(found, Bundle):
            return found
        if not isinstance(found, NoEvidence):
            raise found
        leaf = self.index.leaf(evidence_id)
        raise Withheld(
            f"the log holds evidence {evidence_id[:16]}… that the store no longer shows",
            got=f"leaf {leaf.index} of {leaf.origin}" if leaf else None,
            expected=self.store.where(evidence_id),
            remedy="restore the bundle from a copy",
        ) from found


def revocation_subject(evidence_id: str) -> Subject:
    """The subject of a revocation: the evidence itself."""
    return Subject(f"evidence:{evidence_id[:16]}", evidence_id)


def _uris(names: Collection[str]) -> list[str]:
    return [predicates.uri_of(name) for name in names]
