"""Key-signed bundles that somebody with the log's key, the store, the wire or a key of its own could make.

Every row of `mutated.ROWS` that speaks of no certificate is applied to a key bundle as it is; the rows here are what a
key adds. ``KeyForge`` holds what the strongest attacker of this table has: the private keys of the log and of the
time-stamping authority, and another key. Not the signer's key.
"""

import base64
import copy
import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from mlseal.evidence import canonical, logrecord, publickey, statement
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.statement import pae
from tests.attacks.mutated import ROWS as OF_CERTIFICATES
from tests.attacks.mutated import Forge, b64


@dataclass
class KeyForge(Forge):
    """`Forge` with the signer's public key, another private key, and a certificate bundle of the same log."""

    public: ec.EllipticCurvePublicKey
    own: ec.EllipticCurvePrivateKey
    certified: Bundle

    def relogged(self, document, signature, verifier):
        """`document` logged alone (the log's key signs anything) with this signature and verifier."""
        payload = base64.b64decode(document["dsseEnvelope"]["payload"])
        body = logrecord.body(hashlib.sha256(pae(payload)).digest(), signature, verifier)
        document["dsseEnvelope"]["signatures"][0]["sig"] = b64(signature)
        return self.alone(document, body)

    def restamped(self, document):
        """`document` with an honest timestamp of the present over its signature."""
        return self.stamped(document, self.signed_at())

    def signed_at(self):
        return statement.signed_at(self.good.statement)


def _signature(d):
    return base64.b64decode(d["dsseEnvelope"]["signatures"][0]["sig"])


def _verifier(f):
    return logrecord.of_key(publickey.spki(f.public))


def _resign(d, f, private, hash_=None):
    """`d` signed by `private` instead, over the same statement, logged and stamped as if all was well."""
    payload = base64.b64decode(d["dsseEnvelope"]["payload"])
    if isinstance(private, ec.EllipticCurvePrivateKey):
        signature = private.sign(pae(payload), ec.ECDSA(hash_ or hashes.SHA256()))
    else:
        signature = private.sign(pae(payload), padding.PKCS1v15(), hashes.SHA256())
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    d["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(text).hexdigest()
    f.restamped(f.relogged(d, signature, logrecord.of_key(der)))


def _wrong_hint(d, f):
    d["verificationMaterial"]["publicKey"]["hint"] = publickey.hints(f.own.public_key())[0]


def _hint_is_fingerprint(d, f):
    d["verificationMaterial"]["publicKey"]["hint"] = publickey.fingerprint(f.public)


def _no_hint(d, f):
    d["verificationMaterial"]["publicKey"] = {}


def _hint_no_text(d, f):
    d["verificationMaterial"]["publicKey"]["hint"] = None


def _key_itself(d, f):
    d["verificationMaterial"]["publicKey"]["rawBytes"] = b64(publickey.spki(f.public))


def _key_and_certificate(d, f):
    d["verificationMaterial"]["certificate"] = f.certified.document["verificationMaterial"]["certificate"]


def _neither(d, f):
    del d["verificationMaterial"]["publicKey"]


def _chain(d, f):
    del d["verificationMaterial"]["publicKey"]
    raw = f.certified.document["verificationMaterial"]["certificate"]["rawBytes"]
    d["verificationMaterial"]["x509CertificateChain"] = {"certificates": [{"rawBytes": raw}]}


def _certificate_in_log(d, f):
    raw = base64.b64decode(f.certified.document["verificationMaterial"]["certificate"]["rawBytes"])
    f.relogged(d, _signature(d), logrecord.of_certificate(raw))


def _key_in_log_beside_certificate(d, f):
    raw = base64.b64decode(f.certified.document["verificationMaterial"]["certificate"]["rawBytes"])
    f.relogged(d, _signature(d), {**_verifier(f), **logrecord.of_certificate(raw)})


def _other_key_in_log(d, f):
    f.relogged(d, _signature(d), logrecord.of_key(publickey.spki(f.own.public_key())))


def _other_key_in_log_and_hint(d, f):
    _wrong_hint(d, f)
    _other_key_in_log(d, f)


def _same_digest_other_signer(d, f):
    """The log's entry is of the same statement, but of the attacker's signature by its own key."""
    kept = copy.deepcopy(d["dsseEnvelope"])
    _resign(d, f, f.own)
    d["dsseEnvelope"] = kept
    d["verificationMaterial"]["publicKey"] = f.good.document["verificationMaterial"]["publicKey"]
    f.restamped(d)


def _own_signature_owners_key(d, f):
    """Signed by the attacker, logged and hinted as the owner's."""
    payload = base64.b64decode(d["dsseEnvelope"]["payload"])
    signature = f.own.sign(pae(payload), ec.ECDSA(hashes.SHA256()))
    f.restamped(f.relogged(d, signature, _verifier(f)))


def _sloppy_der(d, f):
    """The same two numbers, r with a leading zero that DER forbids."""
    r, s = utils.decode_dss_signature(_signature(d))
    inner = b"".join(b"\x02\x22\0\0" + n.to_bytes(32, "big") for n in (r, s))
    f.restamped(f.relogged(d, b"\x30" + bytes([len(inner)]) + inner, _verifier(f)))


def _trailing_der(d, f):
    f.restamped(f.relogged(d, _signature(d) + b"\0", _verifier(f)))


def _raw_signature(d, f):
    r, s = utils.decode_dss_signature(_signature(d))
    f.restamped(f.relogged(d, r.to_bytes(32, "big") + s.to_bytes(32, "big"), _verifier(f)))


def _other_half(d, f):
    """ECDSA's other signature of the same words, (r, n - s): it verifies, and is not the one that was logged."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = utils.decode_dss_signature(_signature(d))
    d["dsseEnvelope"]["signatures"][0]["sig"] = b64(utils.encode_dss_signature(r, order - s))
    f.restamped(d)


def _p384(d, f):
    _resign(d, f, ec.generate_private_key(ec.SECP384R1()))


def _rsa(d, f):
    _resign(d, f, rsa.generate_private_key(65537, 2048))


def _compressed(d, f):
    """The owner's own key, its point compressed: a second encoding would give it a second fingerprint."""
    point = f.public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    der = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    assert serialization.load_der_public_key(der) == f.public
    f.relogged(d, _signature(d), logrecord.of_key(der))


def _key_details(d, f):
    f.relogged(d, _signature(d), {**_verifier(f), "keyDetails": "PKIX_ED25519"})


def _stamped_anew(d, f):
    f.stamped(d, f.signed_at() + timedelta(minutes=11))


def _stamped_before(d, f):
    f.stamped(d, f.signed_at() - timedelta(minutes=6))


def _stamp_over_payload(d, f):
    envelope = copy.deepcopy(d)
    envelope["dsseEnvelope"]["signatures"][0]["sig"] = d["dsseEnvelope"]["payload"]
    f.restamped(envelope)
    d["verificationMaterial"]["timestampVerificationData"] = envelope["verificationMaterial"][
        "timestampVerificationData"
    ]


# id: (change, @sigstore/verify 4.1.3 accepts it); None where it is not asked
ROWS = {
    "K01-wrong-hint": (_wrong_hint, False),
    "K02-hint-in-another-form": (_hint_is_fingerprint, False),
    "K03-no-hint": (_no_hint, False),
    "K04-hint-is-no-text": (_hint_no_text, False),
    "K05-key-in-the-bundle": (_key_itself, True),
    "K06-key-and-certificate": (_key_and_certificate, None),
    "K07-neither": (_neither, False),
    "K08-certificate-chain-form": (_chain, False),
    "K09-certificate-in-log": (_certificate_in_log, True),
    "K10-key-and-certificate-in-log": (_key_in_log_beside_certificate, None),
    "K11-other-key-in-log": (_other_key_in_log, True),
    "K12-other-key-in-log-and-hint": (_other_key_in_log_and_hint, False),
    "K13-entry-of-the-same-statement-by-another-key": (_same_digest_other_signer, False),
    "K14-signed-by-another-key": (_own_signature_owners_key, False),
    "K15-signature-in-sloppy-der": (_sloppy_der, None),
    "K16-signature-with-a-tail": (_trailing_der, None),
    "K17-signature-not-in-der": (_raw_signature, False),
    "K18-p384": (_p384, False),
    "K19-rsa": (_rsa, False),
    "K20-compressed-point": (_compressed, None),
    "K21-key-details-lie": (_key_details, True),
    "K22-stamped-anew-later": (_stamped_anew, True),
    "K23-stamped-before-it-was-made": (_stamped_before, None),  # the authority itself may be younger
    "K25-other-half-of-the-signature": (_other_half, False),
    "K24-timestamp-over-the-payload": (_stamp_over_payload, False),
}
CERTIFICATE_ONLY = {
    "M20-other-certificate-in-log",  # K11
    "M28-other-certificate",  # K01, K14
    "M29-public-key-form",
    "M35-certificate-expired-at-timestamp",  # K22
}
SHARED = {row: OF_CERTIFICATES[row][0] for row in OF_CERTIFICATES if row not in CERTIFICATE_ONLY}


def mutate(forge: KeyForge, row: str) -> Bundle:
    document = copy.deepcopy(forge.good.document)
    change = ROWS[row][0] if row in ROWS else _dsse_entry if row == "M23-dsse-entry" else SHARED[row]
    change(document, forge)
    return Bundle(json.dumps(document).encode())


def _dsse_entry(d, f):
    """M23 with the key in place of the certificate."""
    envelope = d["dsseEnvelope"]
    digest = b64(hashlib.sha256(base64.b64decode(envelope["payload"])).digest())
    spec = {
        "payloadHash": {"algorithm": "SHA2_256", "digest": digest},
        "signatures": [{"content": envelope["signatures"][0]["sig"], "verifier": _verifier(f)}],
    }
    f.alone(d, canonical.dumps({"apiVersion": "0.0.2", "kind": "dsse", "spec": {"dsseV002": spec}}))
    d["verificationMaterial"]["tlogEntries"][0]["kindVersion"] = {"kind": "dsse", "version": "0.0.2"}
