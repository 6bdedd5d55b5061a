"""What a signer signs with: a certified key of minutes, or a key that somebody keeps."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.evidence import logrecord, publickey, statement
from mlseal.evidence.clock import Clock
from mlseal.evidence.identity import KEY_ISSUER, Identity
from mlseal.evidence.statement import Statement
from mlseal.evidence.strict import certificate_identity

_RENEW_BEFORE = timedelta(seconds=90)


@dataclass(frozen=True)
class Credential:
    """Who signs, with what, and how a bundle names it.

    Attributes:
        identity: what the verifier will find.
        material: the member of ``verificationMaterial``, by its name.
        verifier: the same for the log's record (`mlseal.evidence.logrecord`).
        sign: the DER signature (ECDSA P-256, SHA-256) of some bytes.
    """

    identity: Identity
    material: dict[str, Any]
    verifier: dict[str, Any]
    sign: Callable[[bytes], bytes]


class SigningKey(Protocol):
    """A private key, wherever it is kept; `mlseal.evidence.signing.keyuri` opens them."""

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """Its public half."""

    def sign(self, data: bytes) -> bytes:
        """The DER signature of `data` (ECDSA P-256, SHA-256). Raises `Unchecked` when the key cannot be used."""


class Credentials(Protocol):
    """Where a signer's credential comes from."""

    def current(self) -> Credential:
        """The credential to sign with now."""

    def prepare(self, said: Statement) -> Statement:
        """`said` as it is to be signed."""

    def owns(self, identity: Identity) -> bool:
        """Whether a signature by `identity` may be ours, as far as can be told without asking anybody."""


class Certified:
    """An ephemeral P-256 key, certified by `certify`; reused until its certificate nears its end. Thread-safe."""

    def __init__(self, certify: Callable[[ec.EllipticCurvePrivateKey], x509.Certificate], clock: Clock) -> None:
        self._certify, self._clock = certify, clock
        self._lock = threading.Lock()
        self._held: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None = None

    def current(self) -> Credential:
        """The certified key."""
        with self._lock:
            if self._held is None or self._held[1].not_valid_after_utc - _RENEW_BEFORE < self._clock():
                fresh = ec.generate_private_key(ec.SECP256R1())
                self._held = fresh, self._certify(fresh)
            key, certificate = self._held
        der = certificate.public_bytes(serialization.Encoding.DER)
        return Credential(
            certificate_identity(certificate),
            {"certificate": {"rawBytes": base64.b64encode(der).decode()}},
            logrecord.of_certificate(der),
            lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())),
        )

    def prepare(self, said: Statement) -> Statement:
        """`said` itself: the certificate bounds when it was signed."""
        return said

    def owns(self, identity: Identity) -> bool:
        """Every identity that a certificate names; who this one is, the CA says later."""
        return identity.issuer != KEY_ISSUER


class Kept:
    """A key that is kept, in a file, a service or a device."""

    def __init__(self, key: SigningKey, clock: Clock) -> None:
        self._clock = clock
        self._credential = Credential(
            publickey.identity(key.public),
            {"publicKey": {"hint": publickey.hints(key.public)[0]}},
            logrecord.of_key(publickey.spki(key.public)),
            key.sign,
        )

    def current(self) -> Credential:
        """The key."""
        return self._credential

    def prepare(self, said: Statement) -> Statement:
        """`said`, stating the present time: nothing else bounds when a key signed (`mlseal.evidence.keysigned`)."""
        return statement.at(said, self._clock())

    def owns(self, identity: Identity) -> bool:
        """This key only."""
        return identity == self._credential.identity
