"""A model's card and bill of materials, made from verified evidence and from nothing else."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from mlseal.errors import MalformedEvidence, Misuse
from mlseal.evidence import canonical
from mlseal.stages.base import DIGESTS, Context, FilePath, Finding, ModelPath, OutputDataset, Settings, stage
from mlseal.stages.governance import card_page, mlbom, records

PAGE, BILL = "model_card.html", "mlbom.cdx.json"
_STATED = {"uses", "users", "outOfScope", "limitations"}
_LIBRARIES = ("cyclonedx-python-lib", "jinja2", "matplotlib")
_NOT_PROVEN = (
    "that the evidence is true: its signers answer for it",
    "that evidence by identities that were not listed says the same",
    "what the makers stated about uses, users and limitations",
)


@stage(
    "governance.model_card",
    predicate="cyclonedx",
    extra="card",
    reusable=None,  # what is known of a model changes with every entry of the log
    releases=DIGESTS,
    cost="seconds: each piece of evidence about the model is verified, then one page is written",
    not_proven=_NOT_PROVEN,
)
def model_card(
    model: ModelPath,  # noqa: ARG001 - its digest is what evidence is looked up by
    out: OutputDataset,
    signers: Settings,
    name: str = "",
    stated: FilePath | None = None,
    *,
    context: Context,
) -> Finding:
    """Write a model card (HTML) and an ML-BOM (CycloneDX 1.6) from the verified evidence about a model.

    Args:
        model: the model; its digest selects the evidence.
        out: directory for model_card.html and mlbom.cdx.json.
        signers: identities, SAN=ISSUER, whose evidence is repeated and whose revocations count.
        name: what the model is called; default: the name of its file or directory.
        stated: JSON with lists of texts under uses, users, outOfScope and limitations, written by people.

    Guarantees:
        Every figure comes from evidence that verified here, against these bytes; what was taken back is struck through.
        The page loads nothing and runs nothing. The bill obeys the schema of CycloneDX 1.6, and is what is signed.

    Edge cases:
        No evidence by a listed identity raises `NoEvidence`; evidence of theirs that does not verify, or that nobody
        shows, stops: a card without it would look better than the truth.
    """
    measured = context.measured["model"]
    written = _stated(context.private_copy("stated")) if stated is not None else {}
    called = name or context.naming.subject(measured.name)
    found = records.gather(context.archive(), measured.sha256, signers)
    bill = mlbom.bom_of(measured, called, found, written)
    out.mkdir()
    (out / PAGE).write_text(card_page.page_of(measured, called, found, written), encoding="utf-8")
    (out / BILL).write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    libraries = {library: importlib.metadata.version(library) for library in _LIBRARIES}
    return Finding(subjects=("model", "out"), fields=bill, libraries=libraries)


def _stated(file: Path) -> dict[str, Any]:
    """What people wrote. Raises `Misuse` for anything but lists of texts under the known names."""
    try:
        value = canonical.parse(file.read_bytes(), what="what is stated", limit=64 * 1024)
    except MalformedEvidence as error:
        raise Misuse(error.message, got=error.got) from error
    fits = isinstance(value, dict) and set(value) <= _STATED
    if not fits or not all(isinstance(v, list) and all(isinstance(t, str) for t in v) for v in value.values()):
        raise Misuse("what is stated is not lists of texts", expected=", ".join(sorted(_STATED)))
    return dict(value)
