"""The project that the current directory lies in, by its ``.mlseal``: where evidence is kept unless somebody says else.

Whoever made the tree chose its ``.mlseal``, so nothing here is trust: the store is untrusted anyhow, and the trust root
that lies there says only which one this user may have meant.
"""

from __future__ import annotations

import stat
from pathlib import Path

from mlseal.errors import Error
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.trust import Trust

NAME = ".mlseal"


def home() -> Path:
    """``.mlseal`` of the nearest directory that has one, from the current one upwards; that of this one where none has.

    Relative when it lies here. A directory above that everybody may write, such as ``/tmp``, is nobody's project.
    """
    here = Path(NAME)
    if here.is_dir():
        return here
    return next((d / NAME for d in Path.cwd().parents if (d / NAME).is_dir() and not _everybodys(d)), here)


def other_root(chosen: Trust) -> str | None:
    """Fingerprint of the trust root that lies in the project if it is not `chosen`; None without one or if unreadable.

    A hint for people, never a reason to believe anything.
    """
    try:
        found = trust_roots.load(home() / "trusted_root.json").fingerprint
    except (Error, OSError):
        return None
    return None if found == chosen.fingerprint else found


def switch(fingerprint: str) -> str:
    """What makes the root of `fingerprint` the one in force: one command if this user pinned it, else a comparison."""
    if trust_roots.is_pinned(fingerprint):
        return f"mlseal trust use {fingerprint}"
    return (
        "compare it with what its operator announced: mlseal trust add "
        f"{home() / 'trust_config.json'} --fingerprint sha256:…"
    )


def _everybodys(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IWOTH)
