"""A detached signature counts under the pinned key, over exactly these bytes, and under no other."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlseal.errors import DigestMismatch, ForgedEvidence, MalformedEvidence
from mlseal.evidence import detached

DATA = b"a list of digests\n"


def public(key):
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem, "sha256:" + hashlib.sha256(der).hexdigest()


KEYS = {
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), lambda key, data: key.sign(data)),
    "p256": (ec.generate_private_key(ec.SECP256R1()), lambda key, data: key.sign(data, ec.ECDSA(hashes.SHA256()))),
    "p384": (ec.generate_private_key(ec.SECP384R1()), lambda key, data: key.sign(data, ec.ECDSA(hashes.SHA384()))),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("encode", [bytes, base64.b64encode, base64.encodebytes], ids=["raw", "base64", "wrapped"])
def test_a_signature_by_the_pinned_key_counts(kind, encode):
    key, sign = KEYS[kind]
    detached.verify(DATA, encode(sign(key, DATA)), *public(key))


@pytest.mark.parametrize("kind", KEYS)
def test_other_bytes_other_keys_and_other_fingerprints_do_not(kind):
    key, sign = KEYS[kind]
    pem, fingerprint = public(key)
    with pytest.raises(ForgedEvidence, match="does not verify"):
        detached.verify(DATA + b"x", sign(key, DATA), pem, fingerprint)
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(DigestMismatch, match="not the one announced"):
        detached.verify(DATA, KEYS["p256"][1](other, DATA), public(other)[0], fingerprint)
    with pytest.raises(ForgedEvidence):
        detached.verify(DATA, KEYS["p256"][1](other, DATA), *public(KEYS["p256"][0]))


def test_what_is_no_key_or_signature_is_malformed():
    key, _ = KEYS["ed25519"]
    pem, fingerprint = public(key)
    for signature in (b"", b"\xff" * 10, b"not base64!"):
        with pytest.raises((MalformedEvidence, ForgedEvidence)):
            detached.verify(DATA, signature, pem, fingerprint)
    with pytest.raises(MalformedEvidence, match="no public key"):
        detached.verify(DATA, b"x" * 64, b"-----BEGIN PUBLIC KEY-----\n", fingerprint)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(MalformedEvidence, match="not supported"):
        detached.verify(DATA, b"x" * 64, *public(weak))
