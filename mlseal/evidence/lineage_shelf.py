"""Statements for a lineage: found by what they name, verified before they are believed.

1. The archive's index knows, from the log, which evidence has a digest as its subject. Who *used* a digest, or rests
   on a piece of evidence, stands inside the statements: for that, each is read once, unverified, to know where to look.
2. What is believed was verified (`mlseal.evidence.verifying`), by whomever the log says signed it, at the entry that
   the index holds. Anything else becomes a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from mlseal.errors import Error, ForgedEvidence, MalformedEvidence, NoEvidence
from mlseal.evidence import predicates
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.identity import Identity
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.lineage import Gap, GapReason, Step, TakenBack, evidence_node
from mlseal.evidence.lineage_links import Links, Thing, kind_of, links_of
from mlseal.evidence.predicates import revocation, revocation_snapshot
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.verifying import VerifiedStatement

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Statement:
    """A verified statement: the step that it is, and its links."""

    step: Step
    links: Links


class Shelf:
    """Every statement of an archive, by what it names. The archive must have been refreshed.

    Answers are remembered; a shelf serves one reading. Statements can add links and never take any away: a stranger who
    pairs somebody's OMS root with other names adds those names, and is shown.
    """

    def __init__(self, archive: Archive, progress: Progress) -> None:
        self._archive, self._progress = archive, progress
        self._known: dict[str, Statement | Gap] = {}
        self._roots: dict[str, set[str]] = {}
        self._manifests: dict[str, set[str]] = {}
        self._users: dict[str, list[str]] | None = None
        self._readers: dict[str, list[str]] = {}
        self._inputs: dict[str, tuple[Thing, ...]] = {}
        self.unread: list[str] = []

    def statement(self, evidence_id: str) -> Statement | Gap:
        """The verified statement, or why there is none."""
        if evidence_id not in self._known:
            self._known[evidence_id] = self._read(evidence_id)
        return self._known[evidence_id]

    def roots_of(self, sha256: str) -> set[str]:
        """OMS roots under which the directory with this manifest was signed."""
        self._learn(sha256)
        return self._roots[sha256]

    def manifests_of(self, digest: str) -> list[str]:
        """Manifests that somebody signed together with this OMS root; the digest itself if there are none."""
        self._learn(digest)
        return sorted(self._manifests[digest]) or [digest]

    def pair(self, manifest: str, root: str) -> None:
        """Note an OMS root that was measured here."""
        self._learn(manifest)
        self._learn(root)
        self._roots[manifest].add(root)
        self._manifests[root].add(manifest)

    def about(self, sha256: str) -> list[str]:
        """Evidence about exactly this artifact, in log order; what cannot be read is among it."""
        roots = self.roots_of(sha256)
        return [
            evidence_id
            for evidence_id in self._archive.index.about([sha256, *sorted(roots)])
            if isinstance(found := self.statement(evidence_id), Gap) or _names(found.links.things, sha256, roots)
        ]

    def using(self, sha256: str) -> list[str]:
        """Evidence that names this artifact as an input, in log order."""
        self.scan()
        assert self._users is not None
        roots = self.roots_of(sha256)
        found = dict.fromkeys(user for digest in [sha256, *sorted(roots)] for user in self._users.get(digest, ()))
        return [user for user in found if _names(self._inputs[user], sha256, roots)]

    def readers(self, evidence_id: str) -> list[str]:
        """Evidence that rests on this one, in log order."""
        self.scan()
        return self._readers.get(evidence_id, [])

    def digests(self) -> Iterator[str]:
        """Every digest and evidence id that any statement or log entry names."""
        self.scan()
        assert self._users is not None
        yield from self._users
        for leaf in self._archive.index.leaves():
            yield leaf.evidence_id

    def scan(self) -> None:
        """Read every statement, once; `unread` then holds those that could not be."""
        if self._users is not None:
            return
        self._users, self._readers = defaultdict(list), defaultdict(list)
        open_leaves = {leaf.evidence_id for leaf in self._archive.index.unresolved()}
        ids = [leaf.evidence_id for leaf in self._archive.index.leaves() if leaf.evidence_id not in open_leaves]
        for done, evidence_id in enumerate(dict.fromkeys(ids), 1):
            self._note(evidence_id)
            self._progress(done, len(ids))

    def taken_back(self) -> dict[str, list[TakenBack]]:
        """By evidence id, who took what back. A snapshot adds only what no revocation of its signer says."""
        uris = [revocation.URI, revocation_snapshot.URI]
        found = [self.statement(evidence_id) for evidence_id in self._archive.index.of_type(uris)]
        result: dict[str, list[TakenBack]] = defaultdict(list)
        read = [one for one in found if isinstance(one, Statement)]
        for one in sorted(read, key=lambda s: s.step.predicate_type != revocation.URI):
            for target, reason in one.links.revokes:
                by = one.step.signer
                if one.step.predicate_type == revocation.URI or by not in {said.by for said in result[target]}:
                    counts = self._counts(by, target)
                    result[target].append(TakenBack(by, reason, one.step.evidence_id, counts))
        self.unread += [one.evidence_id for one in found if isinstance(one, Gap)]
        return result

    def _counts(self, by: Identity, evidence_id: str) -> bool:
        """As for 'mlseal verify' without a policy: the signer's own word, and that of the local authority's monitor."""
        leaf = self._archive.index.leaf(evidence_id)
        if leaf is None:
            return False
        issuer = leaf.identity.issuer
        monitor = Identity(issuer, issuer.removesuffix("/issuer") + "/roles/monitor")
        return by == leaf.identity or (self._archive.trust.local_issuer(issuer) and by == monitor)

    def _learn(self, digest: str) -> None:
        """What verified statements about `digest` pair it with."""
        if digest in self._roots:
            return
        roots, manifests = self._roots.setdefault(digest, set()), self._manifests.setdefault(digest, set())
        for evidence_id in self._archive.index.about([digest]):
            found = self.statement(evidence_id)
            for thing in found.links.things if isinstance(found, Statement) else ():
                if thing.root and thing.sha256 == digest:
                    roots.add(thing.root)
                elif thing.root == digest and thing.sha256:
                    manifests.add(thing.sha256)

    def _note(self, evidence_id: str) -> None:
        assert self._users is not None
        try:
            said = self._archive.store.get(evidence_id).statement
            predicate = predicates.check(_known_type(said.predicate_type), said.predicate)
            links = links_of(said.predicate_type, predicate, said.subjects)
        except Error:
            self.unread.append(evidence_id)
            return
        self._inputs[evidence_id] = links.used
        for subject in links.things:
            for digest in subject.digests:
                self._users.setdefault(digest, [])  # known, though nobody may have used it
        for digest in dict.fromkeys(digest for used in links.used for digest in used.digests):
            self._users[digest].append(evidence_id)
        for earlier in links.reads:
            self._readers[earlier].append(evidence_id)

    def _read(self, evidence_id: str) -> Statement | Gap:
        leaf = self._archive.index.leaf(evidence_id)
        if leaf is None:
            message = "named by somebody, and in no log of this trust root"
            return Gap(evidence_node(evidence_id), evidence_id, "unknown", message)
        try:
            verified = self._verified(self._archive.store.get(evidence_id), leaf)
        except NoEvidence:
            return gap_of(leaf, "withheld", "nobody shows its bundle")
        except Error as error:
            return gap_of(leaf, "unverifiable", str(error))
        links = links_of(verified.predicate_type, verified.predicate, verified.subjects)
        return Statement(_step(verified, links), links)

    def _verified(self, bundle: Bundle, leaf: Leaf) -> VerifiedStatement:
        said = bundle.statement
        verified = self._archive.verifier.verify(
            bundle,
            predicate_type=_known_type(said.predicate_type),
            identities=[leaf.identity],
            subjects=[said.subjects[0].sha256],
            revocations=NOTHING_REVOCABLE,  # shown beside the statement: see `taken_back`
        )
        if (verified.log.origin, verified.log.index) != (leaf.origin, leaf.index):
            raise ForgedEvidence(
                "the bundle claims another place in the log", got=verified.log.index, expected=leaf.index
            )
        return verified


def gap_of(leaf: Leaf, reason: GapReason, message: str) -> Gap:
    """The gap that a log entry leaves."""
    return Gap(
        evidence_node(leaf.evidence_id), leaf.evidence_id, reason, message, leaf.identity, leaf.origin, leaf.index
    )


def _names(things: Iterable[Thing], sha256: str, roots: Collection[str]) -> bool:
    """Whether one of `things` is this artifact: by its own digest, or by its OMS root with no names beside it."""
    return any(thing.sha256 == sha256 or thing.sha256 in roots for thing in things)


def _known_type(predicate_type: str) -> str:
    if predicate_type not in predicates.MODELS:
        raise MalformedEvidence(
            f"unknown predicate type {predicate_type[:120]}", remedy="read it with a version of mlseal that knows it"
        )
    return predicate_type


def _step(verified: VerifiedStatement, links: Links) -> Step:
    return Step(
        id=evidence_node(verified.evidence_id),
        evidence_id=verified.evidence_id,
        predicate_type=verified.predicate_type,
        kind=kind_of(verified.predicate_type),
        signer=verified.identity,
        time=verified.time,
        log_origin=verified.log.origin,
        log_index=verified.log.index,
        bundle_sha256=verified.bundle_sha256,
        assurance=verified.assurance,
        job=links.job,
        strength=links.strength,
        origin=links.origin,
        outcome=links.outcome,
        builder=links.builder,
        run_id=links.run_id,
    )
