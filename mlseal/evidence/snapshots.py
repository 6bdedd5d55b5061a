"""What a revocation snapshot covers, and whether it can have seen what it claims.

A snapshot says: these are all my revocations in each log up to this size. It tells a judge how old the knowledge
"nothing else was revoked" is, so it counts only when its sizes can be true:

1. Every log that it names is one of the trust root, and is named once.
2. It claims no entries that the log does not have, nor its own.
3. It left out nothing that was signed well before it: the first entry that it does not cover is not older than the
   snapshot by more than the skew of clocks. So a monitor that saw an old copy of the log does not count as fresh.

Its ``issuedAt`` decides nothing, like every time that a predicate states: the verified time of its signature does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from mlseal.evidence.clock import SKEW, rfc3339
from mlseal.evidence.index import Index
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.predicates.revocation_snapshot import Predicate
from mlseal.evidence.trust import Trust
from mlseal.evidence.verifying import VerifiedStatement

SignedAt = Callable[[Leaf], datetime | None]
"""The verified time of a leaf's evidence; None if its bundle is not at hand or does not verify."""


def flaw_of(
    snapshot: VerifiedStatement, claim: Predicate, trust: Trust, index: Index, signed_at: SignedAt
) -> str | None:
    """Why `snapshot` does not tell how fresh the revocations are; None if it does."""
    known = [log.origin for log in trust.logs]
    named = [entry.origin for entry in claim.logs]
    if strangers := sorted({claim.origin, *named} - set(known)):
        return f"it names the log {strangers[0]}, which is not one of the trust root"  # (1)
    if len(set(named)) != len(named):
        return "it names a log twice"  # (1)
    indexed = {origin: index.size(origin) for origin in known}
    sizes = _sizes(claim, indexed)
    for origin, size in sizes.items():
        most = snapshot.log.index if origin == snapshot.log.origin else indexed[origin]
        if not 0 <= size <= most:
            return f"it claims {size} entries of {origin}, of which it can have seen {most}"  # (2)
    for origin in known:
        if missed := _missed(snapshot, origin, sizes.get(origin, 0), index, signed_at):
            return missed  # (3)
    return None


def _sizes(claim: Predicate, indexed: Mapping[str, int]) -> dict[str, int]:
    """The size claimed of each log; `indexed` is in the order of the trust root, oldest log first.

    A snapshot without ``logs`` states the sum up to ``origin``, the newest log of its day; the others stood still.
    """
    if claim.logs:
        return {entry.origin: entry.tree_size for entry in claim.logs}
    origins = list(indexed)
    earlier = {origin: indexed[origin] for origin in origins[: origins.index(claim.origin)]}
    return {**earlier, claim.origin: claim.tree_size - sum(earlier.values())}


def _missed(snapshot: VerifiedStatement, origin: str, size: int, index: Index, signed_at: SignedAt) -> str | None:
    for leaf in index.leaves(origin, size):
        if origin == snapshot.log.origin and leaf.index >= snapshot.log.index:
            return None
        time = signed_at(leaf)
        if time is not None:
            if time < snapshot.time - SKEW:
                return f"it leaves out entry {leaf.index} of {origin}, signed on {rfc3339(time)}"
            return None
    return None
