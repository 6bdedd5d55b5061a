"""Facts from an archive: every one of them a `VerifiedStatement`, made by `mlseal.evidence.verifying`."""

from __future__ import annotations

from collections.abc import Sequence

from mlseal.errors import Error
from mlseal.evidence import oms, project
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.identity import Identity
from mlseal.evidence.keyholder import KeyOutOfTerm, listed
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.predicates import revocation, revocation_snapshot
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocations
from mlseal.evidence.verifying import VerifiedStatement
from mlseal.policy.facts import Elsewhere, Found, Rejected, Target
from mlseal.policy.model import Matcher
from mlseal.policy.verdict import Input


class ArchiveSource:
    """A `Source` over an archive that was refreshed. Lives for one judgement: it remembers what it verified.

    Revocation is judged by the policy, which tells superseded from withdrawn, and not by the verifier's step 5;
    `Case.revoked` asks for every fact.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._verified: dict[tuple[str, str], VerifiedStatement] = {}
        self._revocations: dict[tuple[Matcher, ...], Revocations] = {}

    @property
    def tree_size(self) -> int:
        """Of the log, up to which the index reaches."""
        return self._archive.tree_size

    def find(self, target: Target, predicate_type: str, identities: Sequence[Matcher]) -> Found:
        """All evidence of a type about a target.

        Who signed is taken from the log, not from the bundle file: evidence of a listed identity that does not verify
        is reported, not passed over, or a spoilt file would hide a failed result. A listed key outside of its time is
        a stranger, by the time in the signed bytes and by the stamp: what a thief signs after its end stops nobody.
        """
        facts: list[VerifiedStatement] = []
        rejected: list[Rejected] = []
        others: list[Identity] = []
        for bundle in self._archive.candidates([_named(target, predicate_type)], [predicate_type]):
            if not self._archive.signed_by(bundle.evidence_id, identities):
                leaf = self._archive.index.leaf(bundle.evidence_id)
                others += [leaf.identity] if leaf else []
                continue
            try:
                facts.append(self._verify(bundle, target, predicate_type, identities))
            except KeyOutOfTerm:
                others.append(self._archive.verifier.signer(bundle))
            except Error as error:
                rejected.append(Rejected(bundle.evidence_id, error))
        return Found(tuple(facts), tuple(rejected), tuple(dict.fromkeys(others)))

    def signers(self, target: Target, predicate_type: str) -> frozenset[Identity]:
        """Whoever signed evidence of a type about a target, as the log knows it."""
        ids = self._archive.index.find([_named(target, predicate_type)], [predicate_type])
        return frozenset(leaf.identity for i in ids if (leaf := self._archive.index.leaf(i)) is not None)

    def revocations(self, revokers: Sequence[Matcher]) -> Revocations:
        """What the revokers took back."""
        key = tuple(revokers)
        if key not in self._revocations:
            self._revocations[key] = self._archive.revocations(key)
        return self._revocations[key]

    def revocation_inputs(self, revokers: Sequence[Matcher]) -> tuple[Input, ...]:
        """The revocations and snapshots of the revokers."""
        bundles = self._archive.of_type([revocation.URI, revocation_snapshot.URI])
        return tuple(
            Input(bundle.evidence_id, bundle.sha256, bundle.statement.predicate_type)
            for bundle in bundles
            if self._archive.signed_by(bundle.evidence_id, revokers)
        )

    def unresolved(self, revocations: Revocations) -> Sequence[Leaf]:
        """Leaves without a bundle that no revoker accounted for."""
        return self._archive.unresolved(revocations)

    def elsewhere(self) -> Elsewhere | None:
        """Why the store looks like another than the log's, and what mends it; never a revocation."""
        why = self._archive.elsewhere()
        if why is None:
            return None
        remedy = "run in the project, or pass --store DIR; lost: restore it from a copy"
        other = project.other_root(self._archive.trust)
        if other is not None:  # a hint: the tree has no say in what is believed
            remedy += f"; the project was made with another trust root than the one in force: {project.switch(other)}"
        return Elsewhere(why, remedy)

    def _verify(
        self, bundle: Bundle, target: Target, predicate_type: str, identities: Sequence[Matcher]
    ) -> VerifiedStatement:
        digest = _named(target, predicate_type)
        known = self._verified.get((bundle.evidence_id, digest))
        if known is not None and listed(identities, known.identity, *known.times):
            return known
        verified = self._archive.verifier.verify(
            bundle,
            predicate_type=predicate_type,
            identities=identities,
            subjects=[digest],
            revocations=NOTHING_REVOCABLE,
        )
        if predicate_type == oms.URI:
            oms.require_names(verified.statement, target.manifest)
        self._verified[(bundle.evidence_id, digest)] = verified
        return verified


def _named(target: Target, predicate_type: str) -> str:
    return oms.named_digest(predicate_type, target.sha256, target.manifest)
