"""Making evidence. The only part of mlseal that holds a signing key, and that key lives minutes and in memory."""

from __future__ import annotations

import os

from mlseal.evidence import trust as trust_roots
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.signing.signer import Signer
from mlseal.evidence.signing.tokens import TokenSource, source_for
from mlseal.evidence.store import Store
from mlseal.evidence.trust import Trust

__all__ = ["Signer", "TokenSource", "signer_for"]


def signer_for(
    role: str,
    *,
    trust: Trust | None = None,
    store: Store | None = None,
    token_file: str | os.PathLike[str] | None = None,
    deadline: float = 10.0,
    clock: Clock = utcnow,
) -> Signer:
    """A signer for `role` (``producer``, ``gate``, ``reviewer/alice``), with the trust root and token in force.

    Nothing is asked of any service before the first signature. Raises `NotInitialised` without trust or services.
    """
    chosen = trust or trust_roots.resolve()
    return Signer(
        chosen,
        source_for(role, chosen, token_file=token_file, deadline=deadline),
        store=store,
        deadline=deadline,
        clock=clock,
    )
