"""What stops every decision though it is about no one model: asked for readiness before anybody promotes.

The file of the trust root is read at start; while it is gone or spoilt, whoever loads a model trusts nobody, and so
does the gate (`Root`). And an entry of the log whose bundle is missing or spoilt may be anything, a failed test or a
withdrawal too, and about any model: the gate leaves every verdict open while there is one (`mlseal.policy.gate`, 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from mlseal.errors import Error, Unreadable, Withheld
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.archive import Archive
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.store import BundleStore
from mlseal.evidence.trust import Trust
from mlseal.policy.layers import with_layers
from mlseal.policy.model import Policy

_NAMED = 3
"""So many files are named; each is read once more for that."""


class Root:
    """The trust root that this process decides by, and the file that it came from."""

    def __init__(self, trust: Trust) -> None:
        self._trust, self._says = trust, ""
        self._stamp: tuple[int, int, int] | None = None

    def require_there(self) -> str:
        """Its fingerprint; the file is read again only when it was changed. Raises `Error` when it is no trust root.

        Another root in its place, such as a rotation leaves there, counts from the next start.
        """
        place = self._trust.source
        try:
            found = Path(place).stat()
        except OSError as error:
            raise Unreadable(
                "the trust root is gone",
                got=f"{place}: {error.strerror}",
                expected="the file that this server was started with",
                remedy="put it back, or restart the server with another MLSEAL_TRUST",
            ) from error
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        if stamp != self._stamp:
            now = trust_roots.load(place).fingerprint
            later = "" if now == self._trust.fingerprint else f"; {now} from the next start on"
            self._says, self._stamp = f"{self._trust.fingerprint}{later}", stamp
        return self._says


def hidden(archive: Archive, policies: Iterable[Policy], now: datetime) -> list[Leaf]:
    """Entries that stop whatever one of `policies`, or a layer beneath, decides at `now`; `archive` is up to date.

    Not those that somebody accounted for by a revocation. What only observes or is not in force yet stops nothing, but
    must know freshly enough what was revoked. Raises `Error` where that is not so.
    """
    found: dict[str, Leaf] = {}
    for policy in with_layers(policies):
        taken_back = archive.revocations(policy.revokers)
        taken_back.require_fresh(policy.revocation_max_age, now)
        if policy.binding(now) and not policy.observes(now):
            found |= {leaf.evidence_id: leaf for leaf in archive.unresolved(taken_back)}
    return list(found.values())


def require_none(leaves: Sequence[Leaf], store: BundleStore) -> None:
    """Raise `Withheld` that names files and what is wrong with them, unless there are no `leaves`."""
    if not leaves:
        return
    named = {leaf.evidence_id: leaf for leaf in leaves[:_NAMED]}
    wrong = [_said(named[evidence_id], found, store) for evidence_id, found in store.fetch(list(named))]
    more = [f"and {len(leaves) - len(named)} more"] if len(leaves) > len(named) else []
    raise Withheld(
        "the log holds evidence that cannot be read here, and it may be against any model",
        got="; ".join([*wrong, *more]),
        expected="the bundle of every entry, whole",
        remedy="restore the file from a copy; never published: mlseal log recover, as its signer; lost: mlseal revoke "
        f"{leaves[0].evidence_id}, as a listed revoker",
    )


def _said(leaf: Leaf, found: object, store: BundleStore) -> str:
    wrong = found.message if isinstance(found, Error) else "it is there now"
    return f"entry {leaf.index} by {leaf.identity}, {store.where(leaf.evidence_id)}: {wrong}"
