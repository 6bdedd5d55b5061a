"""The log of signatures, as Rekor v2 serves it: ``hashedrekord`` 0.0.2 in, a TransparencyLogEntry out.

An entry holds the digest of what was signed, the signature and the certificate or key; never the statement. Before an
entry is appended:

1. The request has exactly the shape of a HashedRekordRequestV002 for ECDSA P-256 with SHA-256, and a certificate or a
   key.
2. The certificate was issued by this authority and is valid now; or the authority's owner listed the key, and its
   holder asks for this very entry, in a signature that is published nowhere; or the owner asks on the unix socket. So
   strangers cannot fill the log with entries that nobody could ever resolve, nor with what a key signed elsewhere.
3. The signature verifies over the digest under the certificate's key, or the key.

Spec: https://github.com/sigstore/rekor-tiles, protobuf-specs rekor/v2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, StaleEvidence, UntrustedSigner
from mlseal.evidence import canonical, logrecord, publickey
from mlseal.evidence.bundle import unbase64
from mlseal.evidence.clock import SKEW, Clock, rfc3339, utcnow
from mlseal.services import logs
from mlseal.services.allowed import AllowedKeys
from mlseal.tlog.writer import Appended, LogWriter

_FOREIGN = "the certificate is not from this authority"


@dataclass(frozen=True)
class Entry:
    """A request: digest, signature, and the certificate, or the key where that is empty."""

    digest: bytes
    signature: bytes
    certificate: bytes
    key: bytes = b""

    @property
    def body(self) -> bytes:
        """The canonical body that becomes the log's leaf."""
        verifier = logrecord.of_certificate(self.certificate) if self.certificate else logrecord.of_key(self.key)
        return logrecord.body(self.digest, self.signature, verifier)


class StatementLog:
    """Checks requests and appends them to `writer`. Thread-safe.

    Args:
        writer: the tile log.
        log_id: its 32-byte id.
        authorities: intermediate certificates whose signers may append.
        keys: bare keys that may append.
    """

    def __init__(
        self,
        writer: LogWriter,
        log_id: bytes,
        authorities: Sequence[x509.Certificate],
        keys: AllowedKeys,
        *,
        clock: Clock = utcnow,
    ) -> None:
        self._writer, self._log_id, self._clock, self._keys = writer, _b64(log_id), clock, keys
        self._authorities = {certificate.subject.public_bytes(): certificate for certificate in authorities}

    def append(self, request: object, *, owner: bool = False, authorization: str = "") -> tuple[dict[str, Any], bool]:
        """The TransparencyLogEntry for `request`, and whether this statement was in the log before.

        A statement has one entry: asked again, the log shows the entry that it has, whoever signs now. The `owner` of
        the authority may append with any key; others say with `authorization` that its holder asks.
        Raises `Misuse` for a request of another shape, `UntrustedSigner`, `StaleEvidence` or `ForgedEvidence` for one
        that must not be logged.
        """
        entry = parse_request(request)  # (1)
        self._check(entry, owner, authorization)  # (2) (3)
        appended = logs.append(self._writer, entry.body, entry.digest)
        return document(appended, self._log_id), appended.duplicate

    def _check(self, entry: Entry, owner: bool, authorization: str) -> None:
        if entry.certificate:
            key = self._certified(entry)
        else:
            key = _key(entry)
            if not owner:
                self._keys.require(publickey.fingerprint(key))
                _require_asked(key, entry, authorization)
        try:
            key.verify(entry.signature, entry.digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        except InvalidSignature as error:
            raise ForgedEvidence("the signature does not verify over the digest") from error

    def _certified(self, entry: Entry) -> ec.EllipticCurvePublicKey:
        try:
            certificate = x509.load_der_x509_certificate(entry.certificate)
            authority = self._authorities.get(certificate.issuer.public_bytes())
            if authority is None:
                raise UntrustedSigner(_FOREIGN, got=certificate.issuer.rfc4514_string()[:120])
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise UntrustedSigner(_FOREIGN, got=str(error)[:120] or "a forged signature") from error
        now = self._clock()
        if not certificate.not_valid_before_utc - SKEW <= now <= certificate.not_valid_after_utc + SKEW:
            raise StaleEvidence(
                "the certificate has expired",
                got=rfc3339(certificate.not_valid_after_utc),
                remedy="sign again with a fresh certificate",
            )
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Misuse("only ECDSA keys sign entries", got=type(key).__name__)
        return key


def document(appended: Appended, log_id: str) -> dict[str, Any]:
    """The TransparencyLogEntry of an entry of the log with this id (base64)."""
    return {
        "logIndex": str(appended.index),
        "logId": {"keyId": log_id},
        "kindVersion": {"kind": logrecord.KIND, "version": logrecord.VERSION},
        "integratedTime": "0",
        "inclusionProof": {
            "logIndex": str(appended.index),
            "rootHash": _b64(appended.root),
            "treeSize": str(appended.size),
            "hashes": [_b64(node) for node in appended.proof],
            "checkpoint": {"envelope": appended.checkpoint},
        },
        "canonicalizedBody": _b64(appended.leaf),
    }


def parse_request(request: object) -> Entry:
    """The entry that `request` (decoded JSON) asks for. Raises `Misuse`; unknown members are refused."""
    try:
        inner = _members(request, "hashedRekordRequestV002")["hashedRekordRequestV002"]
        parts = _members(inner, "digest", "signature")
        signature = _members(parts["signature"], "content", "verifier")
        named = signature["verifier"]
        form = "publicKey" if isinstance(named, dict) and "publicKey" in named else "x509Certificate"
        verifier = _members(named, "keyDetails", form)
        raw = unbase64(_members(verifier[form], "rawBytes")["rawBytes"], form)
        if verifier["keyDetails"] != logrecord.KEY_DETAILS:
            got = str(verifier["keyDetails"])[:60]
            raise Misuse("unknown kind of key", got=got, expected=logrecord.KEY_DETAILS)
        if not raw:
            raise Misuse("the request holds no certificate and no key")
        entry = Entry(
            unbase64(parts["digest"], "digest"),
            unbase64(signature["content"], "signature"),
            b"" if form == "publicKey" else raw,
            raw if form == "publicKey" else b"",
        )
    except MalformedEvidence as error:
        raise Misuse(error.message) from error
    if len(entry.digest) != hashlib.sha256().digest_size:
        raise Misuse("the digest is not SHA-256", got=f"{len(entry.digest)} bytes", expected="32 bytes")
    return entry


def identity_of(body: bytes) -> bytes:
    """The identity of a stored entry: the digest that it holds. For rebuilding the log's map."""
    return unbase64(canonical.parse(body, what="log entry")["spec"]["hashedRekordV002"]["data"]["digest"], "digest")


def _key(entry: Entry) -> ec.EllipticCurvePublicKey:
    try:
        return publickey.from_der(entry.key)
    except MalformedEvidence as error:
        raise Misuse(error.message, got=error.got, expected=error.expected) from error


def _require_asked(key: ec.EllipticCurvePublicKey, entry: Entry, authorization: str) -> None:
    """Raise `UntrustedSigner` unless the holder of `key` asks for `entry`, by a signature in `authorization`."""
    scheme, _, asked = authorization.partition(" ")
    try:
        signature = unbase64(asked, "authorization") if scheme == logrecord.SCHEME else b""
        key.verify(signature, logrecord.asked(entry.digest), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, MalformedEvidence) as error:
        raise UntrustedSigner(
            "the holder of this key did not ask for this entry",
            got=scheme[:20] or "no authorization",
            expected=f"a signature by the key itself, as {logrecord.SCHEME}",
            remedy="sign with 'mlseal sign --key' or 'mlseal run --key'",
        ) from error


def _members(value: object, *names: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        got = ", ".join(sorted(map(str, value)))[:120] if isinstance(value, dict) else type(value).__name__
        raise Misuse("not a hashedrekord 0.0.2 request", got=got, expected=f"an object with {', '.join(names)}")
    return value


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
