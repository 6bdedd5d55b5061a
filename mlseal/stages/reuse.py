"""Evidence that exists already for the same question about the same bytes.

A hit is a bundle that verifies now, not a row of a cache: the log holds it, the same identity signed it, it names the
same stage, version, configuration, seed and input digests, and neither that identity nor a monitor of the authority
has revoked it, nor signed anything that nobody shows. The inputs are hashed to look it up, so nothing changed goes
unseen. A verdict is never reused: it is no stage.

A stage that makes something is not run again if what it made can be put back: from a copy whose digest is the one in
the verified evidence (`mlseal.stages.kept`). If there is no such copy it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlseal.errors import NoEvidence
from mlseal.evidence import naming, predicates
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.predicates import slsa_provenance
from mlseal.evidence.predicates.base import Harness, Measurement
from mlseal.evidence.revocation import EvidenceRevoked
from mlseal.evidence.trust import LocalRole
from mlseal.stages import registry
from mlseal.stages.arguments import Arguments, parse
from mlseal.stages.harness import harness_of
from mlseal.stages.registry import Registered

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.identity import Identity, IdentityMatcher
    from mlseal.evidence.signing import Signer


def find(
    name: str,
    arguments: Mapping[str, str],
    signer: Signer,
    archive: Archive,
    restore: Callable[[str], bool] = lambda _: False,
    ungoverned: Callable[[Registered, Arguments, Mapping[str, Measured]], bool] = lambda *_: True,
) -> Bundle | None:
    """The newest bundle that answers stage `name` with `arguments`, or None.

    Args:
        name: ``moment.stage``.
        arguments: as for the runner.
        signer: whose evidence may serve; that of others does not.
        archive: where it is looked up; brought up to the log first.
        restore: puts the stage's one output, of the given digest, back in its place; whether it could.
        ungoverned: whether no policy wants this run judged; where one does, the stage runs.

    Stages that say so, those with several outputs, and those whose predicate names no harness always run, and so does
    one whose newest evidence was withdrawn. Raises what parsing and measuring raise, `Withheld` when evidence about the
    inputs is missing from the store, and `Refusal` when evidence of this very signer is spoilt.
    """
    registered = registry.load(name)
    names = naming.in_force()
    parsed = parse(registered.stage, arguments, names)
    kind, reusable = registered.stage.predicate_type, registered.stage.reusable
    if reusable is None or len(parsed.outputs) > 1 or not _names_harness(kind):
        return None
    measured = {key: measure(path) for key, path in parsed.inputs.items()}
    if not ungoverned(registered, parsed, measured):
        return None
    wanted = harness_of(registered, parsed, measured)
    own = signer.identity()
    archive.refresh()
    revokers: list[IdentityMatcher] = [own, LocalRole(archive.trust, "monitor")]
    if any(revoker.matches(leaf.identity) for leaf in archive.unresolved() for revoker in revokers):
        return None  # what nobody shows may be a revocation
    revocations = archive.revocations(revokers)
    read = [one.sha256 for one in measured.values()]
    # What a stage makes is not known beforehand, so its evidence is found by type; otherwise by what was measured.
    known = _of_type(archive, kind, own) if parsed.outputs else reversed(archive.candidates(read, [kind]))
    for bundle in known:
        said = bundle.statement
        if not archive.signed_by(said.evidence_id, [own]) or not _same(said.predicate, wanted):
            continue
        if names.committed and not naming.is_commitment(said.subjects[0].name):
            continue  # made before names were committed: handing it on would give them away
        about = said.subjects[-1].sha256
        try:
            archive.verifier.verify(
                bundle, predicate_type=kind, identities=[own], subjects=[about], revocations=revocations
            )
        except EvidenceRevoked as error:
            if error.reason == "superseded":
                continue
            return None
        if not reusable(said.predicate):
            continue
        # Evidence about an input, of a stage that also makes something, does not say what was made.
        return bundle if not parsed.outputs or (about not in read and restore(about)) else None
    return None


def _of_type(archive: Archive, kind: str, own: Identity) -> Iterator[Bundle]:
    """Unverified bundles that the log says `own` signed, newest first; what the store lost cannot serve."""
    for evidence_id in reversed(archive.index.of_type([kind])):
        if archive.signed_by(evidence_id, [own]):
            with contextlib.suppress(NoEvidence):
                yield archive.store.get(evidence_id)


def _names_harness(kind: str) -> bool:
    return kind == slsa_provenance.URI or issubclass(predicates.MODELS[kind], Measurement)


def _same(predicate: Mapping[str, Any], wanted: Harness) -> bool:
    internal = (predicate.get("buildDefinition") or {}).get("internalParameters") or {}
    harness = predicate.get("harness") or internal.get("harness")
    if not isinstance(harness, dict):
        return False
    expected = wanted.to_json()
    return all(harness.get(key) == expected[key] for key in expected if key != "libraries")
