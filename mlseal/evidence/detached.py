"""A detached signature by a public key that was pinned by its fingerprint: Ed25519 or ECDSA over P-256 or P-384.

A bare key says nothing about time or revocation: whoever pins it answers for both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from mlseal.errors import DigestMismatch, ForgedEvidence, MalformedEvidence

MAX_BYTES = 64 * 1024
_RAW_ED25519 = 64
_HASHES: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}


def verify(data: bytes, signature: bytes, key: bytes, fingerprint: str) -> None:
    """Return only if `key` has `fingerprint` and `signature` is its signature over `data`.

    Args:
        data: the signed bytes, whole.
        signature: 64 raw bytes (Ed25519) or DER (ECDSA, with the hash of the curve's size), as they are or as base64.
        key: a public key in PEM.
        fingerprint: ``sha256:`` and the hex SHA-256 of the key's SubjectPublicKeyInfo DER.

    Raises `DigestMismatch` for another key, `ForgedEvidence` for a signature that does not verify, `MalformedEvidence`
    for what is no such key or signature.
    """
    public = _key(key)
    found = "sha256:" + hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    if found != fingerprint:
        raise DigestMismatch(
            "the public key is not the one announced",
            got=found,
            expected=fingerprint,
            remedy="ask the publisher for the fingerprint again, over a way an attacker does not control",
        )
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(_raw(signature, ed=True), data)
        else:
            public.verify(_raw(signature, ed=False), data, ec.ECDSA(_HASHES[public.curve.name]))
    except InvalidSignature as error:
        raise ForgedEvidence(
            "the signature does not verify under the pinned key",
            got=f"key {fingerprint[:23]}…",
            expected="a signature over exactly these bytes",
            remedy="fetch the list and its signature again from the publisher",
        ) from error


def _key(pem: bytes) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem[:MAX_BYTES])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence(
            "this is no public key", got=str(error)[:120], expected="a public key in PEM"
        ) from error
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return key
    raise MalformedEvidence(
        "this kind of key is not supported", got=type(key).__name__, expected="Ed25519, or ECDSA over P-256 or P-384"
    )


def _raw(signature: bytes, *, ed: bool) -> bytes:
    """The signature's bytes; base64 is told apart by what raw ones look like (64 bytes, or DER's first byte)."""
    if len(signature) == _RAW_ED25519 if ed else signature[:1] == b"\x30":
        return signature
    try:
        return base64.b64decode(b"".join(signature[:MAX_BYTES].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEvidence(
            "this is no detached signature",
            got=f"{len(signature)} bytes",
            expected="64 bytes (Ed25519), DER (ECDSA), or either in base64",
        ) from error
