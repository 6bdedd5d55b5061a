"""What one statement says of others: which artifacts it is about, which it used, which evidence it rests on.

Only fields that name something by SHA-256, or evidence by id, are links. Of a directory given as ``data`` and
``data#manifest`` the manifest is the artifact and the other digest its OMS root: the root alone does not bind names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from mlseal.evidence.digest import Subject
from mlseal.evidence.predicates import (
    MODULES,
    data_provenance,
    fairness,
    human_approval,
    revocation,
    revocation_snapshot,
    slsa_provenance,
    slsa_vsa,
    source_verification,
)
from mlseal.evidence.predicates.base import ResourceDescriptor

_MANIFEST = "#manifest"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KINDS: dict[str, str] = {module.URI: module.SHORT for module in MODULES}
_BUILD = re.compile(r"https://mlseal\.dev/build/([a-z0-9._-]+)/v[0-9.]+")


@dataclass(frozen=True)
class Thing:
    """An artifact as a statement names it: `sha256` is None where it gives none."""

    name: str
    sha256: str | None
    root: str | None = None
    claimed: bool = False

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest that stands for it."""
        return tuple(digest for digest in (self.sha256, self.root) if digest)


@dataclass(frozen=True)
class Links:
    """The links of one statement, and what a reader wants to know of it; see `mlseal.evidence.lineage.Step`."""

    things: tuple[Thing, ...]
    makes: Literal["produced", "recorded", "about"]
    used: tuple[Thing, ...] = ()
    reads: tuple[str, ...] = ()
    revokes: tuple[tuple[str, str], ...] = ()
    job: str = ""
    strength: str | None = None
    origin: str | None = None
    outcome: str | None = None
    builder: str | None = None
    run_id: str | None = None


def kind_of(predicate_type: str) -> str:
    """The short name of a predicate type; its URI if there is none."""
    return _KINDS.get(predicate_type, predicate_type)


def links_of(predicate_type: str, predicate: BaseModel, subjects: Iterable[Subject]) -> Links:
    """The links of a statement whose `predicate` obeys its schema. A type without links of its own is ``about``."""
    things = _paired((subject.name, subject.sha256, False) for subject in subjects)
    if isinstance(predicate, slsa_provenance.Predicate):
        return _build(things, predicate)
    if isinstance(predicate, data_provenance.Predicate):
        return Links(
            things,
            "recorded",
            used=_inputs(predicate.lineage, claimed=True),
            job=kind_of(predicate_type),
            strength="claimed",
            origin=predicate.origin,
        )
    harness = getattr(getattr(predicate, "harness", None), "name", None)
    strength = getattr(predicate, "strength", None)
    return Links(
        things,
        "about",
        used=_inputs([predicate.dataset], claimed=strength != "measured")
        if isinstance(predicate, fairness.Predicate)
        else (),
        reads=_reads(predicate),
        revokes=_revokes(predicate),
        job=harness or kind_of(predicate_type),
        strength=strength,
        outcome=_outcome(predicate),
        run_id=getattr(predicate, "run_id", None),
    )


def _build(things: tuple[Thing, ...], predicate: slsa_provenance.Predicate) -> Links:
    definition, details = predicate.build_definition, predicate.run_details
    said = (definition.internal_parameters or {}).get("strength")
    strength = said if said in {"measured", "declared", "inferred"} else None
    known = _BUILD.fullmatch(definition.build_type)
    return Links(
        things,
        "produced",
        used=_inputs(definition.resolved_dependencies, claimed=strength in {"declared", "inferred"}),
        job=known[1] if known else definition.build_type,
        strength=strength,
        builder=details.builder.id,
        run_id=details.metadata.invocation_id if details.metadata else None,
    )


def _reads(predicate: BaseModel) -> tuple[str, ...]:
    """Evidence ids that the statement rests on, as it says."""
    if isinstance(predicate, slsa_vsa.Predicate):
        named = [str((entry.annotations or {}).get("evidenceId", "")) for entry in predicate.input_attestations]
    elif isinstance(predicate, human_approval.Predicate):
        named = list(predicate.reviewed)
    elif isinstance(predicate, fairness.Predicate):
        named = [predicate.model_provenance or ""]
    elif isinstance(predicate, source_verification.Predicate):
        named = [str(getattr(predicate.source, "evidence_id", None) or "")]
    else:
        named = []
    return tuple(dict.fromkeys(one for one in named if _SHA256.fullmatch(one)))


def _revokes(predicate: BaseModel) -> tuple[tuple[str, str], ...]:
    if isinstance(predicate, revocation.Predicate):
        return ((predicate.evidence_id, predicate.reason),)
    if isinstance(predicate, revocation_snapshot.Predicate):
        return tuple((entry.evidence_id, entry.reason) for entry in predicate.revoked)
    return ()


def _outcome(predicate: BaseModel) -> str | None:
    if isinstance(predicate, slsa_vsa.Predicate):
        return predicate.mlseal.verdict if predicate.mlseal else predicate.verification_result
    if isinstance(predicate, source_verification.Predicate):
        return None if predicate.method == "evidence" else f"by {predicate.method}"
    found = getattr(predicate, "decision", None) or getattr(predicate, "result", None)
    return found if isinstance(found, str) else getattr(predicate, "reason", None) if _revokes(predicate) else None


def _inputs(descriptors: Iterable[ResourceDescriptor], *, claimed: bool) -> tuple[Thing, ...]:
    return _paired(
        (
            descriptor.name or descriptor.uri or "input",
            (descriptor.digest or {}).get("sha256"),
            claimed or (descriptor.annotations or {}).get("strength") == "declared",
        )
        for descriptor in descriptors
    )


def _paired(named: Iterable[tuple[str, str | None, bool]]) -> tuple[Thing, ...]:
    """One thing for each name; ``NAME`` beside ``NAME#manifest`` is the root of the same directory."""
    rows = [
        (name, digest if digest and _SHA256.fullmatch(digest) else None, claimed) for name, digest, claimed in named
    ]
    roots = {name: digest for name, digest, _ in rows if not name.endswith(_MANIFEST)}
    manifests = {name for name, digest, _ in rows if name.endswith(_MANIFEST) and digest}
    things = [
        Thing(name.removesuffix(_MANIFEST), digest, roots.get(name.removesuffix(_MANIFEST)), claimed)
        if name in manifests
        else Thing(name, digest, None, claimed)
        for name, digest, claimed in rows
        if name + _MANIFEST not in manifests
    ]
    return tuple(dict.fromkeys(things))
