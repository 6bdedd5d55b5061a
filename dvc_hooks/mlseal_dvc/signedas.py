"""The identities that this user signed as, remembered so that one's own work is recognised without a policy."""

from __future__ import annotations

import json
from pathlib import Path

from mlseal.evidence import paths
from mlseal.evidence.bundle import Bundle, write_atomic
from mlseal.evidence.identity import Identity
from mlseal.evidence.trust import Trust


def known(trust: Trust) -> list[Identity]:
    """The identities that this user signed as under `trust`; used only to recognise one's own work."""
    try:
        rows = json.loads(_file().read_bytes())[trust.fingerprint]
        return [Identity(row["issuer"], row["san"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def remember(trust: Trust, bundle: Bundle) -> None:
    """Note who signed `bundle`, which this process made and verified itself."""
    identity = _identity_in(bundle)
    so_far = known(trust)
    if identity in so_far:
        return
    try:
        everything = json.loads(_file().read_bytes())
    except (OSError, ValueError):
        everything = {}
    everything[trust.fingerprint] = [{"issuer": i.issuer, "san": i.san} for i in (*so_far, identity)]
    write_atomic(_file(), json.dumps(everything).encode(), mode=0o600)


def _identity_in(bundle: Bundle) -> Identity:
    from mlseal.evidence.bundle import unbase64
    from mlseal.evidence.leaves import parse_leaf

    entry = bundle.document["verificationMaterial"]["tlogEntries"][0]
    return parse_leaf("log", 0, unbase64(entry["canonicalizedBody"], "log entry")).identity


def _file() -> Path:
    return paths.private(paths.state_dir() / "dvc") / "signed-as.json"
