"""Which provenance was taken back, as far as this user can know, and how fresh that knowledge is.

Revocations and snapshots are looked for in the evidence store that ``$MLSEAL_STORE`` names and beside the data, where a
push leaves copies (``attestations/v1/revocations/``). They count only if an identity signed them that the policy lists
under ``revokers``; what such an identity signed must verify or stops the caller, so that no older copy of the log can
hide a revocation. A policy that lists revokers demands a snapshot younger than its ``revocationMaxAge``; a policy that
lists none knows nobody who could revoke.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlseal.errors import Error, Refusal
from mlseal.evidence import revocation
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import Clock
from mlseal.evidence.predicates import revocation as revoked
from mlseal.evidence.predicates import revocation_snapshot as snapshot
from mlseal.evidence.revocation import NOTHING_REVOCABLE, Revocation, Revocations
from mlseal.evidence.store import resolve
from mlseal.evidence.trust import Trust
from mlseal.evidence.verifying import VerifiedStatement, Verifier
from mlseal_dvc import layout, logcopy
from mlseal_dvc.places import Place

if TYPE_CHECKING:
    from mlseal.policy.model import Policy

DIRECTORY = "revocations"
_TYPES = (revoked.URI, snapshot.URI)


def known(
    trust: Trust,
    policies: Sequence[Policy],
    places: Sequence[Place],
    clock: Clock,
    more: logcopy.MorePlaces = tuple,
) -> Revocations:
    """What the revokers of `policies` took back. Raises `StaleEvidence` when a policy's snapshot is missing or old.

    `more` places are asked for the log's tiles only (`logcopy.tiles_for`).
    """
    with_revokers = [policy for policy in policies if policy.revokers]
    if not with_revokers:
        return NOTHING_REVOCABLE
    verifier = Verifier(trust, tiles=logcopy.tiles_for(trust, places, more), clock=clock)
    candidates = list(_candidates(places))
    merged: list[Revocation] = []
    newest: VerifiedStatement | None = None
    for policy in with_revokers:
        found = [v for bundle in candidates if (v := _verified(verifier, bundle, policy)) is not None]
        items, latest = _read(found)
        _revocations(items, latest).require_fresh(policy.revocation_max_age, clock())
        merged += items
        newest = latest if newest is None or (latest is not None and latest.time > newest.time) else newest
    return _revocations(merged, newest)


def copy_from_store(trust: Trust, place: Place) -> None:
    """Leave the store's revocations beside the data, for those who pull. Nothing to do without ``$MLSEAL_STORE``.

    The copy of the log follows, as far as they need it. Until it has, readers stop: that is better than not to know.
    Raises `ServiceUnavailable` or `Unchecked` when the log cannot be read.
    """
    present = set(place.names(DIRECTORY) or ())
    sizes: dict[str, int] = {}
    for bundle in _in_store():
        name = f"{DIRECTORY}/{bundle.evidence_id}{layout.SUFFIX}"
        if name not in present:
            place.write(name, bundle.raw)
        origin, size = bundle.claimed_tree
        sizes[origin] = max(size, sizes.get(origin, 0))
    logcopy.bring_up_to_date(trust, place, sizes)


def _candidates(places: Sequence[Place]) -> Iterator[Bundle]:
    yield from _in_store()
    for place in places:
        for name in place.names(DIRECTORY) or ():
            raw = place.read(name) if name.endswith(layout.SUFFIX) else None
            if raw:
                yield Bundle(raw)


def _in_store() -> Iterator[Bundle]:
    root = os.environ.get("MLSEAL_STORE")
    if not root:
        return
    store = resolve(root)
    for _, bundle in store.fetch(list(store.ids())):
        if isinstance(bundle, Error):
            raise bundle
        if bundle.statement.predicate_type in _TYPES:
            yield bundle


def _verified(verifier: Verifier, bundle: Bundle, policy: Policy) -> VerifiedStatement | None:
    """`bundle` if a revoker of `policy` signed it; None for anything else: anybody may leave files here.

    Raises `Refusal` or `Unchecked` when a revoker signed it and the rest cannot be shown, such as that its log is the
    one seen before.
    """
    try:
        said, signer = bundle.statement, verifier.signer(bundle)
    except Refusal:
        return None
    if said.predicate_type not in _TYPES or not any(matcher.matches(signer) for matcher in policy.revokers):
        return None
    return verifier.verify(
        bundle,
        predicate_type=_TYPES,
        identities=policy.revokers,
        subjects=[said.subjects[0].sha256],
        revocations=NOTHING_REVOCABLE,
    )


def _read(found: Sequence[VerifiedStatement]) -> tuple[list[Revocation], VerifiedStatement | None]:
    items: list[Revocation] = []
    newest: VerifiedStatement | None = None
    for verified in found:
        predicate, by = verified.predicate, str(verified.identity)
        if isinstance(predicate, revoked.Predicate):
            items.append(Revocation(predicate.evidence_id, predicate.reason, by))
        elif isinstance(predicate, snapshot.Predicate):
            items += [Revocation(entry.evidence_id, entry.reason, by) for entry in predicate.revoked]
            newest = verified if newest is None or verified.time > newest.time else newest
    return items, newest


def _revocations(items: Sequence[Revocation], newest: VerifiedStatement | None) -> Revocations:
    end = None
    if newest is not None and isinstance(newest.predicate, snapshot.Predicate):
        end = revocation.snapshot_end(newest.predicate.valid_until)
    return Revocations(revocation.merge(items), newest.time if newest else None, end)
