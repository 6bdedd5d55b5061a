"""How an output came to be, as far as this machine knows: noted while DVC works, read when the output is signed.

``dvc.lock`` cannot tell: ``dvc commit`` writes the same lines for a hand-edited file as a run does. So a note is made
when a stage really ran, when its outputs were restored from the run cache, and when they were committed by hand.
Without a note it is ``unknown``. A note is this user's word, as the whole statement is; it is never called build
provenance.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, cast

from mlseal.errors import Error
from mlseal.evidence import paths
from mlseal.evidence.bundle import write_atomic
from mlseal_dvc.pointers import Pointer

Origin = Literal["ran", "run-cache", "committed", "added", "imported", "unknown"]
_NOTED = ("ran", "run-cache", "committed")


def of(pointer: Pointer, directory: Path | None) -> Origin:
    """The origin of `pointer`; notes are looked up in `directory` (None: there are none)."""
    if pointer.imported:
        return "imported"
    if pointer.command is None:
        return "added"
    if directory is None:
        return "unknown"
    try:
        note = json.loads(_file(directory, pointer.path).read_bytes())
        noted = note["origin"] if note["oid"] == pointer.oid else "unknown"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
    return cast("Origin", noted) if noted in _NOTED else "unknown"


def note(directory: Path, path: str, oid: str, origin: Origin) -> None:
    """Remember how version `oid` of the output at `path` came to be. A note that cannot be kept is dropped."""
    try:
        write_atomic(_file(paths.private(directory), path), json.dumps({"oid": oid, "origin": origin}).encode())
    except (Error, OSError):
        return


def notes_of(repo: Any) -> Path | None:
    """Where the notes of a DVC repository lie; None when it has no directory for temporary files."""
    return Path(repo.tmp_dir) / "mlseal" / "origins" if repo.tmp_dir else None


def _file(directory: Path, path: str) -> Path:
    return directory / hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:32]
