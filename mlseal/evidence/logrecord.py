"""The record that a log keeps of a signature: hashedrekord 0.0.2, in the one encoding that is hashed.

It holds the digest of what was signed, the signature and what verifies it (a certificate or a bare key), never the
statement. Spec: protobuf-specs rekor/v2, canonical by RFC 8785, exactly these members.
"""

from __future__ import annotations

import base64
from typing import Any

from mlseal.evidence import canonical
from mlseal.evidence.statement import pae

KIND, VERSION = "hashedrekord", "0.0.2"
KEY_DETAILS = "PKIX_ECDSA_P256_SHA_256"
SCHEME = "Mlseal-Key"
"""Of the ``Authorization`` header in which the holder of a key asks for an entry: the signature of `asked`, base64."""


def of_certificate(der: bytes) -> dict[str, Any]:
    """The verifier of a signature under a certificate."""
    return {"keyDetails": KEY_DETAILS, "x509Certificate": {"rawBytes": _b64(der)}}


def of_key(spki: bytes) -> dict[str, Any]:
    """The verifier of a signature by a key, given as SubjectPublicKeyInfo."""
    return {"keyDetails": KEY_DETAILS, "publicKey": {"rawBytes": _b64(spki)}}


def asked(digest: bytes) -> bytes:
    """What the holder of a key signs to have an entry for `digest`.

    The signature in an entry is public, and so is every other that the key made anywhere; anybody could bring one. This
    one goes to the log's service only, which does not keep it.
    """
    return pae(digest, "application/vnd.mlseal.log-entry.v1")


def body(digest: bytes, signature: bytes, verifier: dict[str, Any]) -> bytes:
    """The leaf's bytes; `digest` is the SHA-256 of what was signed."""
    record = {
        "hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": _b64(digest)},
            "signature": {"content": _b64(signature), "verifier": verifier},
        }
    }
    return canonical.dumps({"apiVersion": VERSION, "kind": KIND, "spec": record})


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
