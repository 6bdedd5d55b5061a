"""A publisher's Sigstore bundle, made elsewhere: signed bytes or a signed statement, under a stated trust root.

Such a bundle is not evidence of ours: it lies in another log, may be of any bundle version, and nobody here indexed it.
Steps, performed under these numbers; any other failure inside refuses:

1. The trust root file has the fingerprint that was announced, and has not ended.
2. The bundle is strict JSON and verifies by sigstore-python: chain, SCT, time, log entry, signature, log body.
3. The certificate names exactly one identity, and it is the stated one, compared exactly.
4. The signature was not made in the future.
5. It covers the digest that the caller computed: as the signed bytes, as a subject of a statement, or file by file.

What is not known: whether the signer has withdrawn it since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from mlseal.errors import DigestMismatch, Error, ForgedEvidence, MalformedEvidence, StaleEvidence, UntrustedSigner
from mlseal.evidence import canonical, oms, statement, strict
from mlseal.evidence.bundle import MAX_BYTES
from mlseal.evidence.clock import SKEW, Clock
from mlseal.evidence.digest import Manifest
from mlseal.evidence.identity import Identity
from mlseal.evidence.statement import PAYLOAD_TYPE
from mlseal.evidence.trust import Trust, fingerprint

if TYPE_CHECKING:
    from sigstore.models import Bundle as StockBundle
    from sigstore.verify import Verifier as StockVerifier

PROVENANCE = frozenset(
    {
        "https://slsa.dev/provenance/v0.2",
        "https://slsa.dev/provenance/v1",
        "https://docs.pypi.org/attestations/publish/v1",
        "https://in-toto.io/attestation/release/v0.1",
    }
)
"""Statements that say "we made this"; a statement of another type may say the opposite and must be asked for."""
_ROOT_BYTES = 4 * 1024 * 1024
_CLIENT_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"


@dataclass(frozen=True)
class Published:
    """What verified: who signed, when at the latest, and the statement's type (None where bytes were signed)."""

    identity: Identity
    signed_on: datetime
    predicate_type: str | None


def root_of(data: bytes, expected: str) -> Trust:
    """The trust root in `data`, a TrustedRoot or ClientTrustConfig of any Sigstore, if it has this fingerprint (1).

    Unlike a root of ours it may have logs of any kind. Raises `DigestMismatch` or `MalformedEvidence`.
    """
    document = canonical.parse(data, what="trust root", limit=_ROOT_BYTES)
    root = document.get("trustedRoot") if _kind(document) == _CLIENT_CONFIG else document
    if not isinstance(root, dict) or not str(root.get("mediaType", "")).startswith(
        "application/vnd.dev.sigstore.trustedroot"
    ):
        raise MalformedEvidence("this is no trust root", got=_kind(document), expected="a Sigstore TrustedRoot")
    if fingerprint(root) != expected:
        raise DigestMismatch(
            "the trust root is not the one announced",
            got=fingerprint(root),
            expected=expected,
            remedy="ask its operator for the fingerprint again, over a way an attacker does not control",
        )
    return Trust(root, expected, None, "the publisher's trust root")


def verify(
    raw: bytes,
    trust: Trust,
    identity: Identity,
    sha256: str,
    *,
    manifest: Manifest | None = None,
    predicate_type: str | None = None,
    clock: Clock,
) -> Published:
    """Steps 1 to 5 on the bundle `raw` about the bytes with digest `sha256`.

    Args:
        raw: the bundle file, untrusted.
        trust: of `root_of`, or the root in force.
        identity: who must have signed; exact.
        sha256: of the file, computed here.
        manifest: of a directory whose OMS signature this must be; `sha256` is not used then.
        predicate_type: the type that a signed statement must have; None for any of `PROVENANCE`.
        clock: the injected clock.

    Raises `Refusal` or `Unchecked` as the table of errors says.
    """
    try:
        trust.require_current(clock())  # (1)
        stock, parsed = _stock(trust), _parsed(raw)
        signed = _signed(stock, parsed, sha256)  # (2) (5)
        found = strict.certificate_identity(parsed.signing_certificate)  # (3)
        # Each verified time says "not made later than this", so the earliest says most.
        time = min(stamp.time for stamp in stock._establish_time(parsed))  # noqa: SLF001 - its only way to tell
        _require(found, identity, time, clock())  # (3) (4)
        kind = None if signed is None else _require_statement(signed, sha256, manifest, predicate_type)  # (5)
    except Error:
        raise
    except Exception as error:
        raise ForgedEvidence(
            "the publisher's bundle cannot be verified", got=f"{type(error).__name__}: {error}"[:200]
        ) from error
    if kind is None and manifest is not None:
        raise MalformedEvidence("the bundle signs bytes, not a model signature", expected=oms.URI)
    return Published(found, time, kind)


def _kind(document: Any) -> str:
    return str(document.get("mediaType")) if isinstance(document, dict) else type(document).__name__


def _stock(trust: Trust) -> StockVerifier:
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier
    from sigstore_models.trustroot.v1 import TrustedRoot as RootModel

    return Verifier(trusted_root=TrustedRoot(RootModel.from_json(canonical.dumps(trust.root).decode())))


def _parsed(raw: bytes) -> StockBundle:
    from sigstore.models import Bundle

    document = canonical.parse(raw, what="bundle", limit=MAX_BYTES)  # sigstore's parser passes over duplicate keys
    material = document.get("verificationMaterial") if isinstance(document, dict) else None
    if isinstance(material, dict) and "publicKey" in material:
        raise MalformedEvidence(
            "the publisher signed with a bare key, which names nobody",
            expected="a bundle with a certificate",
            remedy="verify its detached signature under a pinned key, or ask for a keyless one",
        )
    return Bundle.from_json(raw)


def _signed(stock: StockVerifier, parsed: StockBundle, sha256: str) -> bytes | None:
    """The signed statement, or None if the bundle signs the bytes with this digest."""
    from sigstore.errors import Error as StockError
    from sigstore.hashes import Hashed
    from sigstore_models.common.v1 import HashAlgorithm

    try:
        if parsed._inner.message_signature is not None:  # noqa: SLF001 - stock has no public way to tell the two apart
            about = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(sha256))
            stock.verify_artifact(about, parsed, _IdentityIsStepThree())
            return None
        kind, payload = stock.verify_dsse(parsed, _IdentityIsStepThree())
    except (StockError, ValueError, InvalidSignature) as error:
        raise ForgedEvidence(
            "the publisher's bundle does not verify under this trust root for these bytes",
            got=str(error)[:200] or type(error).__name__,
            expected=f"a signature over sha256 {sha256[:16]}… under the stated root",
            remedy="fetch file and bundle again, and check which trust root its publisher uses",
        ) from error
    if kind != PAYLOAD_TYPE:
        raise MalformedEvidence("the bundle holds no in-toto statement", got=kind, expected=PAYLOAD_TYPE)
    return payload


class _IdentityIsStepThree:
    def verify(self, cert: x509.Certificate) -> None:
        """sigstore-python asks for a policy; step 3 judges the same certificate, exactly."""


def _require(found: Identity, stated: Identity, time: datetime, now: datetime) -> None:
    if not stated.matches(found):
        raise UntrustedSigner(
            "another identity signed",
            got=str(found),
            expected=str(stated),
            remedy="name the identity that the publisher announces, or get its signature",
        )
    if time > now + SKEW:
        raise StaleEvidence("the signature comes from the future", got=f"{time}", expected=f"at most {now}")


def _require_statement(payload: bytes, sha256: str, manifest: Manifest | None, wanted: str | None) -> str:
    """The statement's type, after its subjects or its files were compared."""
    if manifest is not None:
        _require_oms(payload, manifest)
        return oms.URI
    document = canonical.parse(payload, what="statement", limit=statement.MAX_PAYLOAD_BYTES)
    try:
        version, kind = document["_type"], document["predicateType"]
        digests = [subject["digest"].get("sha256") for subject in document["subject"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedEvidence("the publisher's statement is no in-toto statement", got=str(error)[:80]) from error
    if version not in {statement.STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1"} or not isinstance(kind, str):
        raise MalformedEvidence("the publisher's statement is of an unknown version", got=str(version)[:80])
    accepted = PROVENANCE if wanted is None else {wanted}
    if kind not in accepted:
        raise MalformedEvidence(
            "the publisher's statement is of another type",
            got=kind[:120],
            expected=" or ".join(sorted(accepted)),
            remedy="name the type that you mean with --predicate",
        )
    if sha256 not in digests:
        raise DigestMismatch(
            "the publisher's statement is about other bytes",
            got=f"sha256 {sha256}",
            expected=", ".join(str(digest)[:16] for digest in digests[:5]),
            remedy="fetch the file again from its publisher",
        )
    return kind


def _require_oms(payload: bytes, manifest: Manifest) -> None:
    """The statement lists exactly these files; what it would ignore may not be there, since nothing unlisted may."""
    said = statement.parse(payload)
    if said.predicate_type != oms.URI:
        raise MalformedEvidence("the bundle is no model signature", got=said.predicate_type, expected=oms.URI)
    try:
        resources = said.predicate["resources"]
        listed = {(entry["name"], entry["digest"]) for entry in resources if entry["algorithm"] == "sha256"}
    except (KeyError, TypeError) as error:
        raise MalformedEvidence("the model signature lists no resources", got=str(error)[:80]) from error
    present = {(file.path, file.sha256) for file in manifest.files}
    if listed != present or len(resources) != len(present) or said.subjects[0].sha256 != manifest.oms_root:
        odd = sorted({str(name) for name, _ in listed ^ present})[:3]
        raise DigestMismatch(
            "the files are not those of the model signature",
            got=", ".join(odd) or manifest.oms_root,
            expected="exactly the files that were signed, by SHA-256",
            remedy="fetch them again; keep the signature beside the directory, not in it",
        )
