"""How an output came to be, as far as this machine knows: noted while DVC works, read when the output is signed.

``dvc.lock`` cannot tell: ``dvc commit`` writes the same lines for a hand-edited file as a run does. So a note is made
when a stage really ran, when its outputs were restored from the run cache, and when they were committed by hand.
A note is for one version of one output, made by one command from one set of dependencies: the same bytes committed for
other inputs have none. Without a note it is ``unknown``. A note is this user's word, as the whole statement is; it is
never called build provenance.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, cast

from mlseal.errors import Error
from mlseal.evidence import paths
from mlseal.evidence.bundle import write_atomic
from mlseal_dvc import statedir
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
        noted = json.loads(_file(directory, pointer).read_bytes())["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
    return cast("Origin", noted) if noted in _NOTED else "unknown"


def note(directory: Path, pointer: Pointer, origin: Origin) -> None:
    """Remember how `pointer` came to be. A note that cannot be kept is dropped."""
    try:
        write_atomic(_file(paths.private(directory), pointer), json.dumps({"origin": origin}).encode())
    except (Error, OSError):
        return


def notes_of(repo: Any) -> Path | None:
    """Where the notes of a DVC repository lie; None when it has no directory for temporary files."""
    base = statedir.scratch(repo)
    return base / "origins" if base else None


def _file(directory: Path, pointer: Pointer) -> Path:
    inputs = sorted([dep.path, dep.hash_name or "", dep.oid or ""] for dep in pointer.dependencies)
    about = json.dumps([pointer.path, pointer.hash_name, pointer.oid, pointer.command, inputs])
    return directory / hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()[:32]
