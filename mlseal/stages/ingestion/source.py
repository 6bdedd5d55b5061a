"""Before anything learns from data: who says where they come from, and are these those bytes?"""

from __future__ import annotations

from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import Identity
from mlseal.stages import provenance
from mlseal.stages.base import Context, DatasetPath, Finding, Settings, stage

_NOT_PROVEN = (
    "that the data are true, lawful, complete or representative",
    "that the lineage recorded by the signer happened as recorded",
    "that a later step read the same bytes: compare the digests in its own evidence",
)


@stage("ingestion.source", predicate="source-verification", reusable=None)  # a withdrawal since then must count
def source(
    dataset: DatasetPath,
    issuer: str,
    san: str,
    predicate: str = "data-provenance",
    revokers: Settings | None = None,
    *,
    context: Context,
) -> Finding:
    """Verify the provenance of a data set against its bytes before the data are used.

    The newest evidence of the wanted type about exactly these bytes, made by the named identity, is verified in full:
    signature, certificate, time, log, revocation, schema, identity.

    Args:
        dataset: the data, a file or a directory as a whole.
        issuer: OIDC issuer that must have vouched for the signer.
        san: subject alternative name that the signer's certificate must carry, exactly.
        predicate: type of the provenance, as short name or URI.
        revokers: further identities, SAN=ISSUER, whose revocations count; the signer's own always do.

    Guarantees:
        The finding exists only if such evidence verified against digests that were computed here. It holds the
        evidence id, identity, verified time and sizes; no path and no row.

    Edge cases:
        No evidence raises `NoEvidence` with the command that makes it; evidence of others only `UntrustedSigner`;
        withdrawn evidence `Revoked`, though an older one exist; a log that cannot be read `Unchecked`.
    """
    measured = context.measured["dataset"]
    verified = provenance.newest(context, measured, predicate, Identity(issuer, san), revokers)
    levels = verified.assurance
    manifest = measured.manifest
    return Finding(
        subjects=("dataset",),
        fields={
            "source": {
                "evidenceId": verified.evidence_id,
                "predicateType": verified.predicate_type,
                "issuer": verified.identity.issuer,
                "san": verified.identity.san,
                "signedOn": rfc3339(verified.time),
            },
            "assurance": {"identity": levels.identity, "log": levels.log, "time": levels.time},
            "files": len(manifest.files) if manifest else 1,
            "size": manifest.total_size if manifest else dataset.stat().st_size,
        },
        not_proven=_NOT_PROVEN,
    )
