"""Before anything learns from data: who says where they come from, and are these those bytes?"""

from __future__ import annotations

from mlseal.errors import Misuse
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.identity import Identity
from mlseal.stages import provenance
from mlseal.stages.base import DIGESTS, Context, DatasetPath, FilePath, Finding, Settings, stage
from mlseal.stages.ingestion import publishers

_OURS = "data-provenance"
_NOT_PROVEN = (
    "that the data are true, lawful, complete or representative",
    "that a later step read the same bytes: compare the digests in its own evidence",
)
_SIGNED = ("that the lineage recorded by the signer happened as recorded",)
_PUBLISHED = ("that the publisher has not withdrawn the signature since",)
_UNSIGNED = ("where the data come from: nobody signed them, and the name is what the caller said",)


@stage(
    "ingestion.source",
    predicate="source-verification",
    reusable=None,  # withdrawals must count
    releases=DIGESTS,
    cost="seconds: two passes over the bytes of the data",
    not_proven=_NOT_PROVEN,
)
def source(
    dataset: DatasetPath,
    issuer: str = "",
    san: str = "",
    predicate: str = _OURS,
    revokers: Settings | None = None,
    method: str = "evidence",
    signature: FilePath | None = None,
    sums: FilePath | None = None,
    trust_root: FilePath | None = None,
    trust_root_fingerprint: str = "",
    public_key: FilePath | None = None,
    public_key_fingerprint: str = "",
    source_name: str = "",
    *,
    context: Context,
) -> Finding:
    """Verify the provenance of a data set against its bytes before the data are used.

    Method ``evidence`` takes the newest evidence of the wanted type about exactly these bytes, made by the named
    identity, and verifies it in full: signature, certificate, time, log, revocation, schema, identity. The other
    methods take what a publisher signed elsewhere.

    Args:
        dataset: the data, a file or a directory as a whole.
        issuer: OIDC issuer that must have vouched for the signer.
        san: subject alternative name that the signer's certificate must carry, exactly.
        predicate: type of the provenance, as short name or URI; of a publisher's statement, as URI.
        revokers: further identities, SAN=ISSUER, whose revocations count; the signer's own always do.
        method: evidence, oms-signature, sigstore-bundle, sha256sums-bundle, sha256sums-key or none.
        signature: the publisher's Sigstore bundle, or the detached signature of sums.
        sums: the publisher's SHA256SUMS, which must list exactly the files of the data.
        trust_root: Sigstore trust root of the publisher; without it, the one in force.
        trust_root_fingerprint: fingerprint that the trust root must have.
        public_key: the publisher's public key in PEM, Ed25519 or ECDSA.
        public_key_fingerprint: SHA-256 of that key's DER, after the text "sha256:".
        source_name: of a source that nobody signed, as policies list it under unsigned.

    Guarantees:
        The finding exists only if the signature verified against digests that were computed here, or says method
        ``none``. It holds who signed, under which trust root or key, when, and sizes; no path and no row.

    Edge cases:
        No evidence raises `NoEvidence` with the command that makes it; evidence of others only `UntrustedSigner`;
        withdrawn evidence `Revoked`, though an older one exist; a log that cannot be read `Unchecked`. Files that
        differ from the publisher's list, a file too many and one too few included, raise `DigestMismatch`.
    """
    measured = context.measured["dataset"]
    manifest = measured.manifest
    sizes: dict[str, object] = {
        "files": len(manifest.files) if manifest else 1,
        "size": manifest.total_size if manifest else dataset.stat().st_size,
    }
    if method != "evidence":
        stated = publishers.Stated(
            issuer=issuer,
            san=san,
            predicate=None if predicate == _OURS else predicate,
            signature=signature,
            sums=sums,
            trust_root=trust_root,
            trust_root_fingerprint=trust_root_fingerprint,
            public_key=public_key,
            public_key_fingerprint=public_key_fingerprint,
            name=source_name,
        )
        found = publishers.verify(method, stated, context)
        return Finding(
            subjects=("dataset",),
            fields={**found, **sizes},
            not_proven=_UNSIGNED if method == "none" else _PUBLISHED,
            strength="declared" if method == "none" else "measured",
        )
    if signature or sums or trust_root or public_key:
        raise Misuse("a publisher's signature needs its --method", got="evidence", expected="see 'mlseal run' --help")
    return Finding(
        subjects=("dataset",),
        fields={**_evidence(context, predicate, Identity(issuer, san), revokers), **sizes},
        not_proven=_SIGNED,
    )


def _evidence(context: Context, predicate: str, signer: Identity, revokers: Settings | None) -> dict[str, object]:
    verified = provenance.newest(context, context.measured["dataset"], predicate, signer, revokers)
    levels = verified.assurance
    return {
        "method": "evidence",
        "source": {
            "evidenceId": verified.evidence_id,
            "predicateType": verified.predicate_type,
            "issuer": verified.identity.issuer,
            "san": verified.identity.san,
            "signedOn": rfc3339(verified.time),
        },
        "assurance": {"identity": levels.identity, "log": levels.log, "time": levels.time},
    }
