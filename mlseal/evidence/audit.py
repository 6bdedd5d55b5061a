"""Verify a whole history offline: every leaf, every bundle, every proof, from files alone.

Needs only a trust root, the log's tiles and the bundle store; no service, no network, no key. The steps:

1. Each log of the root: the checkpoint's signature, the tree over all entries, consistency with the pinned checkpoint.
2. Each leaf resolves to a bundle, or one of the revokers took it back. Who they are the caller says; else they are the
   monitors of the authority. Its own signer does not suffice: a failed result would vanish.
3. Each bundle verifies, at the leaf that the log gives it, with the certificate that the log recorded.
4. Bundles that are in the store but not in a log are reported: nobody can prove when they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlseal.errors import Error, ForgedEvidence, MalformedEvidence, Withheld
from mlseal.evidence import predicates
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.identity import IdentityMatcher
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocations
from mlseal.evidence.store import BundleStore, quiet
from mlseal.evidence.trust import LocalRole, Trust
from mlseal.evidence.verifying import VerifiedStatement
from mlseal.tlog.tiles import DirectoryTiles, TileSource

_AT_ONCE = 64
"""Bundles asked for at once; a store that is far away has each lot's time for them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; ``where`` names a leaf or a file."""

    where: str
    error: Error


@dataclass
class Report:
    """What an audit saw. It passes only if something was checked and nothing was found.

    ``accounted`` names the leaves whose bundle nobody shows because a revoker took it back, and that revoker.
    """

    tree_size: int = 0
    verified: list[VerifiedStatement] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    accounted: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether there was at least one leaf and every check held."""
        return self.tree_size > 0 and not self.findings and not self.unlogged


def audit(
    trust: Trust,
    store: BundleStore,
    tiles: Mapping[str, TileSource],
    *,
    revokers: Sequence[IdentityMatcher] = (),
    clock: Clock = utcnow,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Audit `store` against the logs of `trust`; see the module for the steps.

    `revokers` may take back what nobody shows any more; by default the monitors of the authority.

    Errors of single bundles are collected; an unreadable log or a split view ends the audit (raised).
    """
    archive, asked = Archive(trust, store, tiles, clock), store.afresh()
    archive.progress = progress or quiet
    report = Report(tree_size=archive.refresh())  # (1)
    revocations = _revocations(archive, revokers or [LocalRole(trust, "monitor")], report)
    ids = list(asked.ids())
    # The index remembers what it saw once; an audit is about what is shown now.
    shown = set(ids) - {leaf.evidence_id for leaf in archive.index.unresolved()}
    for leaf in archive.index.leaves():  # (2)
        if (taken_back := revocations.of(leaf.evidence_id)) is not None and leaf.evidence_id not in shown:
            report.accounted.append(f"leaf {leaf.index} of {leaf.origin}: {taken_back.reason} by {taken_back.by}")
        elif leaf.evidence_id not in shown:
            error = Withheld(
                "no bundle for this leaf",
                got=f"{leaf.evidence_id} signed by {leaf.identity}",
                expected=store.where(leaf.evidence_id),
                remedy="if it was never published: mlseal log recover, as its signer; else restore it from a copy",
            )
            report.findings.append(Finding(f"leaf {leaf.index} of {leaf.origin}", error))
    for start in range(0, len(ids), _AT_ONCE):
        for evidence_id, found in asked.fetch(ids[start : start + _AT_ONCE]):
            _check(archive, evidence_id, found, report)  # (3) (4)
        archive.progress(min(start + _AT_ONCE, len(ids)), len(ids))
    report.findings.sort(key=lambda finding: finding.where)
    report.unlogged.sort()
    report.verified.sort(key=lambda v: (v.log.origin, v.log.index))
    return report


def _revocations(archive: Archive, revokers: Sequence[IdentityMatcher], report: Report) -> Revocations:
    try:
        return archive.revocations(revokers)
    except Error as error:
        report.findings.append(Finding("the revocations", error))
        return NOTHING_REVOCABLE


def _check(archive: Archive, evidence_id: str, bundle: Bundle | Error, report: Report) -> None:
    leaf = archive.index.leaf(evidence_id)
    if leaf is None:
        report.unlogged.append(evidence_id)
        return
    where = f"leaf {leaf.index} of {leaf.origin}"
    try:
        if isinstance(bundle, Error):
            raise bundle
        said = bundle.statement
        known = said.predicate_type if said.predicate_type in predicates.MODELS else None
        if known is None:
            raise MalformedEvidence(f"unknown predicate type {said.predicate_type}")
        verified = archive.verifier.verify(
            bundle,
            predicate_type=known,
            identities=[leaf.identity],
            subjects=[said.subjects[0].sha256],
            revocations=NOTHING_REVOCABLE,
        )
        if (verified.log.origin, verified.log.index) != (leaf.origin, leaf.index):
            raise ForgedEvidence(
                "the bundle claims another place in the log", got=str(verified.log.index), expected=str(leaf.index)
            )
    except Error as error:
        report.findings.append(Finding(where, error))
    else:
        report.verified.append(verified)


def directory_tiles(trust: Trust, directory: Path) -> dict[str, TileSource]:
    """Tiles from a directory that holds ``ORIGIN/checkpoint`` and ``ORIGIN/tile/…`` for each log of `trust`."""
    return {
        log.origin: DirectoryTiles(directory / log.origin) for log in trust.logs if (directory / log.origin).is_dir()
    }
