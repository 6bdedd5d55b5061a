"""What stock verifiers let pass: steps 0 and 3 of `mlseal.evidence.verifying`.

Each check answers one row of a table of mutated bundles that sigstore-python 4.5.1 or @sigstore/verify 4.1.3 accept:
lying indexes and sizes, times nobody signed, foreign checkpoints, other certificates in the log body. The functions
raise; none returns a doubt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from mlseal.errors import ForgedEvidence, MalformedEvidence, StaleEvidence, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.bundle import Bundle, unbase64
from mlseal.evidence.checkpoints import open_note
from mlseal.evidence.clock import SKEW
from mlseal.evidence.identity import KEY_ISSUER, Identity
from mlseal.evidence.statement import Statement, pae
from mlseal.evidence.trust import LogKey, Trust

_OID_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")  # fulcio docs/oid-info.md, raw string
_OID_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")  # same, DER UTF8String


@dataclass(frozen=True)
class Parts:
    """The members of a bundle, decoded: in certificate form ``hint`` is None, in key form ``certificate`` is empty."""

    entry: dict[str, Any]
    timestamp: bytes
    certificate: bytes
    signature: bytes
    hint: str | None = None


def require_log_entry(entry: dict[str, Any], trust: Trust) -> tuple[LogKey, int, int, str]:
    """Step 3, log: the entry's fields say what its signed checkpoint says, and the log is one of the root."""
    proof = entry["inclusionProof"]
    if entry["kindVersion"] != {"kind": "hashedrekord", "version": "0.0.2"}:
        raise ForgedEvidence("wrong kind of log entry", got=str(entry["kindVersion"]), expected="hashedrekord 0.0.2")
    if _number(entry.get("integratedTime", "0")) != 0:
        raise ForgedEvidence("the log entry claims a time that nobody signed", got=str(entry["integratedTime"]))
    log = trust.log(unbase64((entry["logId"] or {}).get("keyId"), "log id"))
    if log is None:
        raise UntrustedSigner("the log is not one of the trust root", remedy="check which trust root is in force")
    note = proof["checkpoint"]["envelope"]
    checkpoint = open_note(note, log.origin, log.public_key)
    index, size = _number(proof["logIndex"]), _number(proof["treeSize"])
    if _number(entry["logIndex"]) != index:
        raise ForgedEvidence("two log indexes", got=str(entry["logIndex"]), expected=str(index))
    if size != checkpoint.size or unbase64(proof["rootHash"], "root hash") != checkpoint.root:
        raise ForgedEvidence(
            "the inclusion proof disagrees with its signed checkpoint",
            got=f"size {size}",
            expected=f"size {checkpoint.size}",
        )
    return log, index, size, note


def require_body(parts: Parts, said: Statement) -> None:
    """Step 3, body: the logged digest, signature and certificate are those of the bundle, in canonical bytes."""
    body = unbase64(parts.entry["canonicalizedBody"], "log body")
    record = canonical.parse(body, what="log body")
    try:
        spec = record["spec"]["hashedRekordV002"]
        logged = unbase64(spec["data"]["digest"], "logged digest")
        signature = unbase64(spec["signature"]["content"], "logged signature")
        certificate = unbase64(spec["signature"]["verifier"]["x509Certificate"]["rawBytes"], "logged certificate")
    except (KeyError, TypeError) as error:
        raise ForgedEvidence("the log body is not a hashedrekord of a certificate") from error
    expected = hashlib.sha256(pae(said.payload)).digest()
    if (logged, signature, certificate) != (expected, parts.signature, parts.certificate):
        raise ForgedEvidence("the log holds another statement, signature or certificate")
    if canonical.dumps(record) != body:
        raise ForgedEvidence("the log body is not canonical")


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """Step 3, certificate: exactly one SAN, and one issuer that both extensions agree on."""
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], (x509.UniformResourceIdentifier, x509.RFC822Name)):
        raise ForgedEvidence("the certificate must name exactly one identity", got=f"{len(names)} names")
    first, second = (
        certificate.extensions.get_extension_for_oid(oid).value for oid in (_OID_ISSUER_V1, _OID_ISSUER_V2)
    )
    if not isinstance(first, x509.UnrecognizedExtension) or not isinstance(second, x509.UnrecognizedExtension):
        raise ForgedEvidence("the certificate names no issuer")
    issuer = first.value.decode("utf-8")
    if second.value != _der_utf8(issuer):
        raise ForgedEvidence("the certificate names two issuers")
    if issuer == KEY_ISSUER:
        raise ForgedEvidence("the certificate names the issuer that stands for bare keys", got=issuer)
    return Identity(issuer, str(names[0].value))


def _der_utf8(text: str) -> bytes:
    data = text.encode()
    length = bytes([len(data)]) if len(data) < 128 else b"\x81" + bytes([len(data)])
    return b"\x0c" + length + data


def verified_time(timestamp: bytes, log: LogKey, now: datetime) -> datetime:
    """Step 3, time: stock verification proved the one timestamp; it lies in the log's validity, not in the future."""
    from rfc3161_client import decode_timestamp_response

    time = decode_timestamp_response(timestamp).tst_info.gen_time
    if time > now + SKEW:
        raise StaleEvidence(
            "the evidence comes from the future", got=f"{time}", expected=f"at most {now}", remedy="check the clocks"
        )
    if time < log.start - SKEW or (log.end is not None and time > log.end + SKEW):
        raise ForgedEvidence(f"log {log.origin} was not valid at the time of signing", got=f"{time}")
    return time


def parts_of(bundle: Bundle) -> Parts:
    """Step 0: the members of the bundle, each present, none besides."""
    document = bundle.document
    _exact(document, {"mediaType", "verificationMaterial", "dsseEnvelope"}, "bundle")
    material = document["verificationMaterial"]
    by_key = isinstance(material, dict) and "publicKey" in material
    proof = "publicKey" if by_key else "certificate"
    _exact(material, {proof, "tlogEntries", "timestampVerificationData"}, "verification material")
    _exact(material[proof], {"hint" if by_key else "rawBytes"}, "public key" if by_key else "certificate")
    entry = _single(material["tlogEntries"], "log entry")
    _exact(
        entry,
        {"logIndex", "logId", "kindVersion", "integratedTime", "inclusionProof", "canonicalizedBody"},
        "log entry",
        {"integratedTime"},
    )
    _exact(
        entry["inclusionProof"],
        {"logIndex", "rootHash", "treeSize", "hashes", "checkpoint"},
        "inclusion proof",
        {"hashes"},
    )
    times = material["timestampVerificationData"]
    _exact(times, {"rfc3161Timestamps"}, "timestamps")
    timestamp = _single(times["rfc3161Timestamps"], "timestamp")
    _exact(timestamp, {"signedTimestamp"}, "timestamp")
    envelope = document["dsseEnvelope"]
    _exact(envelope, {"payload", "payloadType", "signatures"}, "envelope")
    signature = _single(envelope["signatures"], "signature")
    _exact(signature, {"sig", "keyid"}, "signature", {"keyid"})
    return Parts(
        entry=entry,
        timestamp=unbase64(timestamp["signedTimestamp"], "timestamp"),
        certificate=b"" if by_key else unbase64(material[proof]["rawBytes"], "certificate"),
        signature=unbase64(signature["sig"], "signature"),
        hint=str(material[proof]["hint"]) if by_key else None,
    )


def _exact(value: Any, members: set[str], what: str, optional: Collection[str] = ()) -> None:
    if not isinstance(value, dict) or not (members - set(optional)) <= set(value) <= members:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise MalformedEvidence(
            f"{what} has missing or unknown members", got=str(found)[:160], expected=str(sorted(members))
        )


def _single(value: Any, what: str) -> Any:
    if not isinstance(value, list) or len(value) != 1:
        raise MalformedEvidence(f"a bundle holds exactly one {what}", got=len(value) if isinstance(value, list) else 0)
    return value[0]


def _number(value: Any) -> int:
    """A protobuf JSON (u)int64: a decimal string without sign or leading zero."""
    text = str(value)
    if (
        not isinstance(value, (str, int))
        or isinstance(value, bool)
        or not text.isascii()
        or not text.isdigit()
        or str(int(text)) != text
    ):
        raise MalformedEvidence("not a number", got=text[:40], expected="a decimal string")
    return int(text)
