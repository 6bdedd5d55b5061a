"""The public keys that sign evidence: ECDSA over P-256, named by a fingerprint.

A fingerprint is ``sha256:`` and the hex SHA-256 of the SubjectPublicKeyInfo in DER. Bundles name a key by a hint, which
nobody signs; two forms are met: model-signing writes the hex SHA-256 of the key's PEM, sigstore-go the base64 SHA-256
of its DER. Other kinds of key are refused: with SHA-256 over the DSSE encoding, P-256 is what a log of hashedrekord
0.0.2 and every stock verifier take.
"""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from mlseal.errors import MalformedEvidence
from mlseal.evidence.identity import KEY_ISSUER, Identity

FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
KIND = "an ECDSA key over P-256"


def from_der(data: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a SubjectPublicKeyInfo. Raises `MalformedEvidence` for another kind of key or another encoding of it.

    One encoding only: a second one would give the same key a second fingerprint.
    """
    try:
        key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence("this is no public key", got=str(error)[:120], expected=KIND) from error
    checked = require_kind(key)
    if spki(checked) != data:
        raise MalformedEvidence("the public key is not in its canonical encoding", expected="an uncompressed point")
    return checked


def from_pem(data: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a PEM file. Raises `MalformedEvidence` as `from_der`."""
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence("this is no public key in PEM", got=str(error)[:120], expected=KIND) from error
    return require_kind(key)


def require_kind(key: object) -> ec.EllipticCurvePublicKey:
    """`key` itself. Raises `MalformedEvidence` unless it is a public key that may sign evidence."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        curve = getattr(getattr(key, "curve", None), "name", None)
        raise MalformedEvidence("this kind of key signs no evidence", got=curve or type(key).__name__, expected=KIND)
    return key


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """Its SubjectPublicKeyInfo in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Its SubjectPublicKeyInfo in PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """``sha256:`` and the hex digest of `spki`."""
    return fingerprint_of(spki(key))


def fingerprint_of(der: bytes) -> str:
    """The fingerprint of a key as a log holds it, whatever kind of key that is."""
    return "sha256:" + hashlib.sha256(der).hexdigest()


def hints(key: ec.EllipticCurvePublicKey) -> tuple[str, str]:
    """The hints under which a bundle may name `key`, the one that we write first."""
    return hashlib.sha256(pem(key)).hexdigest(), base64.b64encode(hashlib.sha256(spki(key)).digest()).decode()


def identity(key: ec.EllipticCurvePublicKey) -> Identity:
    """Whoever holds `key`, as an identity."""
    return Identity(KEY_ISSUER, fingerprint(key))
