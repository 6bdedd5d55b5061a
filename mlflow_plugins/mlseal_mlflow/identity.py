"""Whose verdict counts: the identity of the gate under a trust root."""

from __future__ import annotations

import os

from mlseal.errors import Misuse, NotInitialised
from mlseal.evidence.identity import Identity
from mlseal.evidence.trust import Trust

VARIABLE = "MLSEAL_GATE_IDENTITY"


def gates(trust: Trust) -> tuple[Identity, ...]:
    """Identities whose verdicts are believed: ``$MLSEAL_GATE_IDENTITY`` ("ISSUER SAN"), else the authority's own gate.

    An authority NAME vouches for ``https://NAME/roles/gate`` by its issuer ``https://NAME/issuer``. Raises
    `NotInitialised` when the root is of an authority that does not follow this and nothing is configured.
    """
    if text := os.environ.get(VARIABLE):
        parts = text.split()
        if len(parts) != 2:
            raise Misuse(
                f"{VARIABLE} cannot be read", got=text[:200], expected="an issuer and a SAN, separated by a space"
            )
        return (Identity(*parts),)
    names = sorted(
        {key.origin.split(".", 1)[1] for key in trust.logs if key.origin.startswith("log") and "." in key.origin}
    )
    if not names:
        raise NotInitialised("nothing says who the gate is", expected=VARIABLE, remedy=f"set {VARIABLE}='ISSUER SAN'")
    return tuple(Identity(f"https://{name}/issuer", f"https://{name}/roles/gate") for name in names)
