"""Where the file with a digest lies. Which place it is found in decides nothing: the digest is what was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from mlseal.evidence import paths
from mlseal.policy.plainyaml import MAX_BYTES

Finder = Callable[[str], "bytes | None"]
KEPT = "policies"
"""Folder of the configuration directory that holds pinned policies, each under its digest."""
_MOST_FILES = 1000


def nowhere(_: str) -> bytes | None:
    """A finder that has no files."""
    return None


def finder(places: Sequence[Path]) -> Finder:
    """Finds a file by SHA-256 among `places`, files and directories of YAML, then among the pinned policies."""

    @cache
    def find(sha256: str) -> bytes | None:
        kept = [base / KEPT / f"{sha256}.yaml" for base in (paths.config_dir(), paths.machine_config_dir())]
        for file in [*kept, *_files(places)]:
            raw = _read(file)
            if raw is not None and hashlib.sha256(raw).hexdigest() == sha256:
                return raw
        return None

    return find


def _files(places: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        found += sorted([*place.glob("*.yaml"), *place.glob("*.yml")])[:_MOST_FILES] if place.is_dir() else [place]
    return found


def _read(file: Path) -> bytes | None:
    """The file if it could be a policy; what cannot be read is not found."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_BYTES:
            return None
        return file.read_bytes()
    except OSError:
        return None
