"""Bundles that somebody with the log's key, the store or the wire could make; each must be refused.

A row is an id, a function that changes a parsed bundle, and what stock verifiers say of it (sigstore-python 4.5.1 and
@sigstore/verify 4.1.3), so that the table also shows what our verifier adds. ``Forge`` holds what the strongest attacker of this table has: the
private keys of the log and of the time-stamping authority. Such an attacker can sign any tree and any time, but not
change what this verifier has seen.
"""

import base64
import copy
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlseal.evidence import canonical
from mlseal.evidence.bundle import Bundle
from mlseal.services import timestamping
from mlseal.tlog import checkpoint, proofs


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Forge:
    """The material of one attack: a good bundle, another good one, and the log's key."""

    good: Bundle
    other: Bundle
    log_key: Ed25519PrivateKey
    origin: str
    tsa: tuple[EllipticCurvePrivateKey, x509.Certificate]

    def alone(self, document: dict, body: bytes, origin: str | None = None, name: str | None = None) -> dict:
        """`document` with `body` as the only entry of a private tree that the log's key signed."""
        entry = document["verificationMaterial"]["tlogEntries"][0]
        root = proofs.leaf_hash(body)
        note = checkpoint.sign(self.log_key, checkpoint.Checkpoint(self.origin, 1, root))
        if origin is not None:  # another log's first line, under this log's key name and signature
            text = note.split("\n\n")[0].replace(self.origin, origin, 1) + "\n"
            key_id = checkpoint.key_id(self.origin, 1, self.log_key.public_key().public_bytes_raw())[:4]
            note = f"{text}\n\u2014 {self.origin} {b64(key_id + self.log_key.sign(text.encode()))}\n"
        if name is not None:
            note = note.replace(f"\u2014 {self.origin} ", f"\u2014 {name} ")
        entry["canonicalizedBody"] = b64(body)
        entry["logIndex"] = "0"
        entry["inclusionProof"] = {
            "logIndex": "0",
            "treeSize": "1",
            "rootHash": b64(root),
            "hashes": [],
            "checkpoint": {"envelope": note},
        }
        return document

    def stamped(self, document: dict, moment: datetime) -> dict:
        """`document` with a timestamp of `moment` over its signature, by the authority's own key."""
        signature = base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
        query = timestamping.make_query("sha256", hashlib.sha256(signature).digest(), certificate=True)
        stamp = timestamping.TimestampAuthority(*self.tsa, clock=lambda: moment).respond(query)
        times = document["verificationMaterial"]["timestampVerificationData"]
        times["rfc3161Timestamps"] = [{"signedTimestamp": b64(stamp)}]
        return document

    def certificate(self) -> x509.Certificate:
        raw = self.good.document["verificationMaterial"]["certificate"]["rawBytes"]
        return x509.load_der_x509_certificate(base64.b64decode(raw))

    def body(self, document: dict) -> bytes:
        return base64.b64decode(document["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"])


def _entry(d):
    return d["verificationMaterial"]["tlogEntries"][0]


def _edit_payload(d, f):
    payload = json.loads(base64.b64decode(d["dsseEnvelope"]["payload"]))
    payload["predicate"]["result"] = "FAILED"
    d["dsseEnvelope"]["payload"] = b64(canonical.dumps(payload))


def _payload_type(d, f):
    d["dsseEnvelope"]["payloadType"] = "application/json"


def _second_signature(d, f):
    d["dsseEnvelope"]["signatures"] *= 2


def _other_entry(d, f):
    d["verificationMaterial"]["tlogEntries"] = copy.deepcopy(f.other.document["verificationMaterial"]["tlogEntries"])


def _other_timestamp(d, f):
    d["verificationMaterial"]["timestampVerificationData"] = f.other.document["verificationMaterial"][
        "timestampVerificationData"
    ]


def _two_timestamps(d, f):
    d["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] *= 2


def _no_timestamp(d, f):
    d["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] = []


def _two_entries(d, f):
    d["verificationMaterial"]["tlogEntries"] *= 2


def _no_entry(d, f):
    d["verificationMaterial"]["tlogEntries"] = []


def _index_lies(d, f):
    _entry(d)["logIndex"] = str(int(_entry(d)["logIndex"]) + 7)


def _tree_size_lies(d, f):
    _entry(d)["inclusionProof"]["treeSize"] = str(int(_entry(d)["inclusionProof"]["treeSize"]) + 1)


def _alone_size_lies(d, f):
    f.alone(d, f.body(d))
    _entry(d)["inclusionProof"]["treeSize"] = "2"


def _root_lies(d, f):
    _entry(d)["inclusionProof"]["rootHash"] = b64(b"\0" * 32)


def _integrated_time(d, f):
    _entry(d)["integratedTime"] = "1700000000"


def _promise(d, f):
    _entry(d)["inclusionPromise"] = {"signedEntryTimestamp": b64(b"x" * 64)}


def _foreign_origin(d, f):
    f.alone(d, f.body(d), origin="log1.other.example")


def _wrong_key_name(d, f):
    f.alone(d, f.body(d), name="log1.other.example")


def _unsigned_checkpoint(d, f):
    note = _entry(d)["inclusionProof"]["checkpoint"]["envelope"]
    _entry(d)["inclusionProof"]["checkpoint"]["envelope"] = note.rsplit("\n\n", 1)[0] + "\n\n"


def _split_view(d, f):
    f.alone(d, f.body(d))


def _other_certificate_in_body(d, f):
    record = json.loads(f.body(d))
    other = json.loads(f.body(f.other.document))
    record["spec"]["hashedRekordV002"]["signature"]["verifier"] = other["spec"]["hashedRekordV002"]["signature"][
        "verifier"
    ]
    f.alone(d, canonical.dumps(record))


def _other_digest_in_body(d, f):
    record = json.loads(f.body(d))
    record["spec"]["hashedRekordV002"]["data"]["digest"] = b64(hashlib.sha256(b"x").digest())
    f.alone(d, canonical.dumps(record))


def _body_not_canonical(d, f):
    f.alone(d, json.dumps(json.loads(f.body(d))).encode())


def _dsse_entry(d, f):
    envelope = d["dsseEnvelope"]
    spec = {
        "payloadHash": {
            "algorithm": "SHA2_256",
            "digest": b64(hashlib.sha256(base64.b64decode(envelope["payload"])).digest()),
        },
        "signatures": [
            {
                "content": envelope["signatures"][0]["sig"],
                "verifier": {
                    "x509Certificate": d["verificationMaterial"]["certificate"],
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                },
            }
        ],
    }
    f.alone(d, canonical.dumps({"apiVersion": "0.0.2", "kind": "dsse", "spec": {"dsseV002": spec}}))
    _entry(d)["kindVersion"] = {"kind": "dsse", "version": "0.0.2"}


def _kind_lies(d, f):
    _entry(d)["kindVersion"] = {"kind": "dsse", "version": "0.0.1"}


def _unknown_log(d, f):
    _entry(d)["logId"]["keyId"] = b64(b"\1" * 32)


def _unknown_top_field(d, f):
    d["note"] = "hello"


def _unknown_entry_field(d, f):
    _entry(d)["extra"] = 1


def _other_certificate(d, f):
    d["verificationMaterial"]["certificate"] = f.other.document["verificationMaterial"]["certificate"]


def _public_key(d, f):
    del d["verificationMaterial"]["certificate"]
    d["verificationMaterial"]["publicKey"] = {"hint": "any"}


def _old_media_type(d, f):
    d["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"


def _negative_index(d, f):
    _entry(d)["logIndex"] = _entry(d)["inclusionProof"]["logIndex"] = "-1"


def _padded_base64(d, f):
    d["dsseEnvelope"]["payload"] += "\n"


def _truncated_proof(d, f):
    _entry(d)["inclusionProof"]["hashes"] = _entry(d)["inclusionProof"]["hashes"][:-1]


def _keyid(d, f):
    d["dsseEnvelope"]["signatures"][0]["extra"] = "x"


def _expired_at_timestamp(d, f):
    f.stamped(d, f.certificate().not_valid_after_utc + timedelta(minutes=1))


# id: (change, sigstore-python 4.5.1 accepts it, @sigstore/verify 4.1.3 does); None where that depends on the log's size
ROWS = {
    "M01-payload-edited": (_edit_payload, False, False),
    "M02-payload-type": (_payload_type, False, False),
    "M03-two-signatures": (_second_signature, False, False),
    "M04-entry-of-another-bundle": (_other_entry, False, False),
    "M05-timestamp-of-another-bundle": (_other_timestamp, False, False),
    "M06-timestamp-twice": (_two_timestamps, False, False),
    "M07-no-timestamp": (_no_timestamp, False, False),
    "M08-two-log-entries": (_two_entries, False, False),
    "M09-no-log-entry": (_no_entry, False, False),
    "M10-top-level-index-lies": (_index_lies, True, True),
    "M11-tree-size-lies": (_tree_size_lies, None, True),
    "M12-tree-size-lies-alone": (_alone_size_lies, False, True),
    "M13-root-lies": (_root_lies, False, True),
    "M14-integrated-time": (_integrated_time, True, True),
    "M15-promise-of-rekor-v1": (_promise, True, False),
    "M16-foreign-origin": (_foreign_origin, True, True),
    "M17-wrong-key-name": (_wrong_key_name, True, False),
    "M18-unsigned-checkpoint": (_unsigned_checkpoint, False, False),
    "M19-split-view": (_split_view, True, True),
    "M20-other-certificate-in-log": (_other_certificate_in_body, False, True),
    "M21-other-digest-in-log": (_other_digest_in_body, False, False),
    "M22-log-body-not-canonical": (_body_not_canonical, True, True),
    "M23-dsse-entry": (_dsse_entry, False, True),
    "M24-kind-lies": (_kind_lies, False, False),
    "M25-unknown-log": (_unknown_log, False, False),
    "M26-unknown-top-field": (_unknown_top_field, False, True),
    "M27-unknown-entry-field": (_unknown_entry_field, False, True),
    "M28-other-certificate": (_other_certificate, False, False),
    "M29-public-key-form": (_public_key, False, False),
    "M30-old-media-type": (_old_media_type, False, True),
    "M31-negative-index": (_negative_index, False, False),
    "M32-sloppy-base64": (_padded_base64, True, True),
    "M33-proof-cut-short": (_truncated_proof, False, False),
    "M34-unknown-signature-field": (_keyid, False, True),
    "M35-certificate-expired-at-timestamp": (_expired_at_timestamp, False, False),
}


def mutate(forge: Forge, row: str) -> Bundle:
    document = copy.deepcopy(forge.good.document)
    ROWS[row][0](document, forge)
    return Bundle(json.dumps(document).encode())


def raw_mutations(good: Bundle) -> dict[str, bytes]:
    """Changes below JSON: what a parser that is not strict lets pass."""
    text = good.raw.decode()
    return {
        "R1-duplicate-key": text.replace('{"dsseEnvelope"', '{"mediaType":"x","dsseEnvelope"', 1).encode(),
        "R2-cut-short": good.raw[: len(good.raw) // 2],
        "R3-empty": b"",
        "R4-not-utf8": good.raw + b"\xff",
        "R5-trailing-garbage": good.raw + b"{}",
        "R6-nan": text.replace('"integratedTime":"0"', '"integratedTime":NaN').encode(),
        "R7-list": b"[]",
        "R8-deep": b"[" * 200_000,
    }
