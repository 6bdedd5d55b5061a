"""Evidence that exists already for the same question about the same bytes.

A hit is a bundle that verifies now, not a row of a cache: the log holds it, the same identity signed it, it names the
same stage, version, configuration, seed and input digests, and that identity has not revoked it. The inputs are hashed
to look it up, so nothing changed goes unseen. A verdict is never reused: it is no stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlseal.evidence import predicates
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates.base import Harness, Measurement
from mlseal.evidence.revocation import EvidenceRevoked
from mlseal.stages import registry
from mlseal.stages.arguments import parse
from mlseal.stages.runner import harness_of

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.signing import Signer


def find(name: str, arguments: Mapping[str, str], signer: Signer, archive: Archive) -> Bundle | None:
    """The newest bundle that answers stage `name` with `arguments`, or None.

    Stages with outputs, and those whose predicate names no harness, always run. Raises what parsing and measuring
    raise, and `Withheld` or `Refusal` when evidence of this very signer is missing or spoilt.
    """
    registered = registry.load(name)
    parsed = parse(registered.stage, arguments)
    kind = registered.stage.predicate_type
    if parsed.outputs or not issubclass(predicates.MODELS[kind], Measurement):
        return None
    measured = {key: measure(path) for key, path in parsed.inputs.items()}
    wanted = harness_of(registered, parsed, measured)
    own = signer.identity()
    archive.refresh()
    revocations = archive.revocations([own])
    for bundle in reversed(archive.candidates([one.sha256 for one in measured.values()], [kind])):
        said = bundle.statement
        if not archive.signed_by(said.evidence_id, [own]) or not _same(said.predicate, wanted):
            continue
        try:
            archive.verifier.verify(
                bundle,
                predicate_type=kind,
                identities=[own],
                subjects=[said.subjects[-1].sha256],
                revocations=revocations,
            )
        except EvidenceRevoked:
            continue
        return bundle
    return None


def _same(predicate: Mapping[str, object], wanted: Harness) -> bool:
    harness = predicate.get("harness")
    if not isinstance(harness, dict):
        return False
    expected = wanted.to_json()
    return all(harness.get(key) == expected[key] for key in expected if key != "libraries")
