"""Making evidence. The only part of mlseal that holds a signing key: one of minutes, or one that somebody keeps."""

from __future__ import annotations

import os

from mlseal.errors import Misuse
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.signing import keyuri
from mlseal.evidence.signing.signer import Signer
from mlseal.evidence.signing.tokens import TokenSource, source_for
from mlseal.evidence.store import BundleStore
from mlseal.evidence.trust import Trust

__all__ = ["Signer", "TokenSource", "signer_for"]


def signer_for(
    role: str,
    *,
    trust: Trust | None = None,
    store: BundleStore | None = None,
    token_file: str | os.PathLike[str] | None = None,
    key: str | None = None,
    deadline: float = 10.0,
    clock: Clock = utcnow,
) -> Signer:
    """A signer for `role` (``producer``, ``gate``, ``reviewer/alice``), with the trust root and token in force.

    With `key`, a URI as `mlseal.evidence.signing.keyuri` knows them, whoever holds that key signs, whatever the role.

    Without one, nothing is asked of any service before the first signature. Raises `NotInitialised` without trust or
    services, `Misuse` for a key and a token, and as `keyuri.open_key`.
    """
    chosen = trust or trust_roots.resolve()
    if key is not None:
        if token_file is not None:
            raise Misuse("a key signs without a token", got="both", remedy="pass --key or --token-file")
        return Signer(chosen, key=keyuri.open_key(key), store=store, deadline=deadline, clock=clock)
    return Signer(
        chosen,
        source_for(role, chosen, token_file=token_file, deadline=deadline),
        store=store,
        deadline=deadline,
        clock=clock,
    )
