"""Evidence that lies beside a model and travels with it: ``attestations/``, which no digest counts.

    attestations/<evidence id>.sigstore.json   one bundle each
    attestations/claims.jsonl                  the same bundles, one a line, as OpenSSF Model Signing proposes

Whoever can write the model's storage can write these. They are candidates, never more.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlseal.errors import Error, Unreadable

if TYPE_CHECKING:
    from mlseal.evidence.bundle import Bundle

_log = logging.getLogger(__name__)

FOLDER = "attestations"
CLAIMS = "claims.jsonl"
MAX_FOUND = 64
"""Bundles that are looked at: whoever puts thousands there must not keep a gate busy."""


def bundles(directory: Path, *, without: str = "\0") -> Iterator[Bundle]:
    """The bundles in `directory`, unverified, at most `MAX_FOUND`; files whose names begin with `without` are left out.

    Links are not followed. What cannot be read is passed over with a warning: it is no evidence, and must not stand in
    the way of what is. Evidence that the log knows of and nobody shows stops a verdict anyhow.
    """
    return itertools.islice(itertools.chain(_single(directory, without), _claims(directory / CLAIMS)), MAX_FOUND)


def parsed(found: Iterable[Bundle]) -> Iterator[Bundle]:
    """Those that hold a statement at all, still unverified."""
    for bundle in found:
        with contextlib.suppress(Error):
            bundle.statement  # noqa: B018 - parses, or raises
            yield bundle


def claims(found: Iterable[Bundle]) -> bytes:
    """The content of ``claims.jsonl`` for these bundles: each once, in the order of their ids."""
    from mlseal.evidence import canonical

    by_id = {bundle.evidence_id: bundle for bundle in parsed(found)}
    return b"".join(canonical.dumps(by_id[name].document) + b"\n" for name in sorted(by_id))


def _single(directory: Path, without: str) -> Iterator[Bundle]:
    from mlseal.evidence.bundle import Bundle

    for file in sorted(directory.glob("*.json")) if directory.is_dir() else ():
        if file.is_symlink() or file.name.startswith(without):
            continue
        try:
            yield Bundle.read(file)
        except Unreadable as error:
            _log.warning("mlseal: %s beside a model is no evidence: %s", file.name, error)


def _claims(file: Path) -> Iterator[Bundle]:
    from mlseal.evidence.bundle import MAX_BYTES, Bundle

    if not file.is_file() or file.is_symlink():
        return
    try:
        with file.open("rb") as stream:
            while (line := stream.readline(MAX_BYTES + 1)) and len(line) <= MAX_BYTES:
                if line.strip():
                    yield Bundle(line.strip())
    except OSError as error:
        _log.warning("mlseal: %s beside a model is no evidence: %s", file.name, error)
