"""What clients pin: the authority's public keys as Sigstore TrustedRoot and ClientTrustConfig JSON.

Every key carries the moment from which and the moment until which it is believed. A generation that was rotated out
stays in the root, with its end drawn in, because what it signed before stays true.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mlseal.evidence.clock import rfc3339
from mlseal.services.keys import Keys, spki
from mlseal.tlog import checkpoint

_ED25519_NOTE = 0x01
_GROUPS = {"tlogs": "log", "certificateAuthorities": "ca", "ctlogs": "ct", "timestampAuthorities": "tsa"}


def log_id(origin: str, keys: Keys) -> bytes:
    """The 32-byte id of the statement log: SHA-256 over origin, 0x0A, 0x01 and the raw key (Rekor v2, Ed25519)."""
    return checkpoint.key_id(origin, _ED25519_NOTE, raw(keys))


def raw(keys: Keys) -> bytes:
    """The 32 raw bytes of the statement log's public key."""
    return keys.log.public_key().public_bytes_raw()


def entries(name: str, number: int, keys: Keys, start: datetime, end: datetime) -> dict[str, Any]:
    """The four trust root entries (log, ca, ct, tsa) of generation `number` of authority `name`."""
    valid = {"start": rfc3339(start), "end": rfc3339(end)}
    origin = f"log{number}.{name}"
    return {
        "log": _log(f"https://{origin}", spki(keys.log.public_key()), "PKIX_ED25519", log_id(origin, keys), valid),
        "ct": _log(
            f"https://ct{number}.{name}",
            spki(keys.ct.public_key()),
            "PKIX_ECDSA_P256_SHA_256",
            hashlib.sha256(spki(keys.ct.public_key())).digest(),
            valid,
        ),
        "ca": _authority(name, f"certificate authority {number}", f"https://{name}", keys.ca_chain, valid),
        "tsa": _authority(name, f"time-stamping {number}", f"https://{name}/api/v1/timestamp", keys.tsa_chain, valid),
    }


def cut(generation: dict[str, Any], end: datetime) -> dict[str, Any]:
    """The record of a generation with the end of each key drawn in to `end`; a nearer end stays."""

    def shortened(valid: dict[str, str]) -> dict[str, str]:
        return {**valid, "end": min(valid["end"], rfc3339(end))}

    result = dict(generation)
    for kind in _GROUPS.values():
        entry = generation[kind]
        if "publicKey" in entry:
            key = entry["publicKey"]
            result[kind] = {**entry, "publicKey": {**key, "validFor": shortened(key["validFor"])}}
        else:
            result[kind] = {**entry, "validFor": shortened(entry["validFor"])}
    return result


def trusted_root(generations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A TrustedRoot v0.1 holding every generation's entries, oldest first."""
    root: dict[str, Any] = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}
    for group, kind in _GROUPS.items():
        root[group] = [generation[kind] for generation in generations]
    return root


def client_config(root: dict[str, Any], *, name: str, base: str, origin: str, start: str) -> dict[str, Any]:
    """A ClientTrustConfig: the root and where to sign (signing config v0.2)."""

    def service(path: str, version: int) -> list[dict[str, Any]]:
        return [{"url": base + path, "majorApiVersion": version, "validFor": {"start": start}, "operator": name}]

    return {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": root,
        "signingConfig": {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": service("", 1),
            "oidcUrls": service("/issuer", 1),
            "rekorTlogUrls": service(f"/log/{origin}", 2),
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": service("/api/v1/timestamp", 1),
            "tsaConfig": {"selector": "ANY"},
        },
    }


def _log(url: str, key: bytes, details: str, identifier: bytes, valid: dict[str, str]) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": _b64(key), "keyDetails": details, "validFor": valid},
        "logId": {"keyId": _b64(identifier)},
    }


def _authority(
    name: str, what: str, uri: str, chain: Sequence[x509.Certificate], valid: dict[str, str]
) -> dict[str, Any]:
    certificates = [{"rawBytes": _b64(c.public_bytes(serialization.Encoding.DER))} for c in chain]
    return {
        "subject": {"organization": name, "commonName": what},
        "uri": uri,
        "certChain": {"certificates": certificates},
        "validFor": valid,
    }


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
