"""What a stage may rely on before it touches data or runs a model: evidence that somebody named has signed.

This is not policy: the stage's caller names one identity, and the answer becomes part of the finding. Whether that
identity suffices for anything is for a gate to judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlseal.errors import Misuse, NoEvidence, UntrustedSigner, Withheld
from mlseal.evidence import oms
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import Measured
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import uri_of
from mlseal.evidence.revocation import EvidenceRevoked
from mlseal.evidence.verifying import VerifiedStatement
from mlseal.stages.base import Context

_COMMANDS = {
    "data-provenance": "run 'mlseal dvc push' in the repository that holds the data",
    "oms-signature": "run 'mlseal sign PATH --type oms-signature' as that identity",
    "slsa-provenance": "run 'mlseal run training.run --script … --data … --out …' as that identity",
}


def newest(
    context: Context, measured: Measured, predicate: str, signer: Identity, revokers: Mapping[str, str] | None = None
) -> VerifiedStatement:
    """The newest evidence of type `predicate` about exactly these bytes that `signer` made.

    Args:
        context: gives the archive, which is brought up to the log first.
        measured: what was hashed here.
        predicate: short name or URI.
        signer: who must have signed; compared exactly.
        revokers: SAN → issuer of further identities whose revocations count; the signer's own always do.

    Raises:
        NoEvidence: nothing of that type names these bytes; says how to make it.
        UntrustedSigner: only others made such evidence.
        Withheld: the log holds something by `signer` or a revoker that nobody shows; it could be a revocation.
        Revoked: the newest was withdrawn; an older one does not step in. Superseded evidence is passed over.
        DigestMismatch: an OMS signature names the same bytes under other file names, or they are those of one file.
        Refusal, Unchecked: whatever the verifier or the log says; evidence of `signer` that does not verify stops.
    """
    if not signer.issuer or not signer.san:
        raise Misuse("the identity that must have signed is not named", expected="an issuer and a SAN")
    archive = context.archive()
    archive.refresh()
    uri = uri_of(predicate)
    digest = oms.named_digest(uri, measured.sha256, measured.manifest)
    listed = [Identity(issuer, san) for san, issuer in (revokers or {}).items()]
    revoked = archive.revocations([signer, *listed])
    _require_nothing_withheld(archive, signer, listed)
    candidates = archive.candidates([digest], [uri])
    if not candidates:
        raise NoEvidence(
            f"no {predicate} evidence about {measured.name} (sha256 {measured.sha256[:16]}…) is known",
            expected=f"evidence by {signer}",
            remedy=_COMMANDS.get(predicate, f"make {uri} evidence"),
        )
    for bundle in reversed(candidates):  # log order: the newest first
        if not archive.signed_by(bundle.evidence_id, [signer]):
            continue
        try:
            verified = archive.verifier.verify(
                bundle, predicate_type=uri, identities=[signer], subjects=[digest], revocations=revoked
            )
        except EvidenceRevoked as error:
            if error.reason != "superseded":
                raise
            continue
        if uri == oms.URI:
            oms.require_names(verified.statement, measured.manifest)
        return verified
    raise UntrustedSigner(
        f"{predicate} evidence about {measured.name} exists, but none that counts",
        got=f"{len(candidates)} bundles",
        expected=f"evidence by {signer} that is not superseded",
        remedy="have that identity sign, or name the right one",
    )


def _require_nothing_withheld(archive: Archive, signer: Identity, revokers: Sequence[Identity]) -> None:
    for leaf in archive.unresolved():
        if leaf.identity in (signer, *revokers) and not archive.accounted(leaf, revokers):
            raise Withheld(
                f"the log holds evidence by {leaf.identity} that nobody shows",
                got=f"leaf {leaf.index} of {leaf.origin}, evidence {leaf.evidence_id[:16]}…",
                expected=archive.store.where(leaf.evidence_id),
                remedy="put its bundle into the store, or have it revoked",
            )
