"""The certificate authority: a verified identity and a proven key in, a certificate of ten minutes out.

Profile of Fulcio (https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md): empty subject; the identity as
critical SAN; digitalSignature; codeSigning; the issuer as both OID .1.1 (raw) and .1.8 (UTF8String); the token's
subject as .1.24, unless that is a person's login: then the pseudonym of the SAN stands there too; one SCT.

The SCT (RFC 6962) is a promise that the certificate is in the issuance log. It is kept before it is given: what the
SCT signs is, byte for byte, the MerkleTreeLeaf that RFC 6962 defines, and exactly these bytes are the log's entry,
durable before the certificate exists. So whoever holds the log knows every identity that was ever certified.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mlseal.errors import Misuse, StaleEvidence
from mlseal.evidence.clock import Clock, rfc3339, utcnow
from mlseal.evidence.identity import KEY_ISSUER
from mlseal.services import der, logs
from mlseal.services.keys import spki, usage
from mlseal.services.tokens import Caller
from mlseal.tlog.writer import LogWriter

LIFETIME = timedelta(minutes=10)
_STEP = timedelta(seconds=2)  # what a clock that is being set may step back before the timestamp is made
_ISSUER_RAW = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_TOKEN_SUBJECT = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.24")
_SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_SCT_V1, _PRECERT_ENTRY, _NO_EXTENSIONS = 0, 1, b"\x00\x00"
_SHA256_ECDSA = b"\x04\x03"  # RFC 5246 hash and signature algorithm numbers


class CertificateAuthority:
    """Issues certificates below `chain`, each logged in `issuance` first. Thread-safe.

    Args:
        key: of the intermediate certificate ``chain[0]``.
        chain: intermediate and root.
        ct_key: signs the SCTs.
        issuance: the issuance log.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        chain: Sequence[x509.Certificate],
        ct_key: ec.EllipticCurvePrivateKey,
        issuance: LogWriter,
        *,
        clock: Clock = utcnow,
    ) -> None:
        self.chain = tuple(chain)
        self._key, self._ct_key, self._issuance, self._clock = key, ct_key, issuance, clock
        self._ct_id = hashlib.sha256(spki(ct_key.public_key())).digest()
        self._issuer_hash = hashlib.sha256(spki(key.public_key())).digest()
        self._authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())

    def issue(self, caller: Caller, public_key: ec.EllipticCurvePublicKey) -> tuple[x509.Certificate, ...]:
        """Certificate for `caller` and `public_key`, then the chain above it.

        Raises `Misuse` for a key other than P-256, `StaleEvidence` when the authority itself nears its end. When the
        issuance log cannot be written its error comes through, and no certificate exists.
        """
        if not isinstance(public_key.curve, ec.SECP256R1):
            raise Misuse("only P-256 keys are certified", got=public_key.curve.name, expected="secp256r1")
        if caller.issuer == KEY_ISSUER:
            raise Misuse("no token may name the issuer that stands for bare keys", got=caller.issuer)
        now = self._clock()
        if now + LIFETIME > self.chain[0].not_valid_after_utc:
            raise StaleEvidence(
                "the certificate authority is at its end",
                got=rfc3339(self.chain[0].not_valid_after_utc),
                remedy="its owner runs 'mlseal trust rotate'",
            )
        builder = self._profile(caller, public_key)
        precertificate = builder.sign(self._key, hashes.SHA256()).tbs_certificate_bytes
        leaf = self._leaf(precertificate)
        logs.append(self._issuance, leaf, identity_of(leaf))
        extension = x509.UnrecognizedExtension(_SCT_LIST, self._sct_list(leaf))
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256()), *self.chain

    def _profile(self, caller: Caller, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        start = self._clock().replace(microsecond=0) - _STEP
        san = x509.RFC822Name(caller.san) if _is_email(caller.san) else x509.UniformResourceIdentifier(caller.san)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.chain[0].subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + LIFETIME)
            .add_extension(usage(signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._authority_id, critical=False)
            .add_extension(x509.SubjectAlternativeName([san]), critical=True)
        )
        facts = (
            (_ISSUER_RAW, caller.issuer.encode()),
            (_ISSUER, _utf8(caller.issuer)),
            (_TOKEN_SUBJECT, _utf8(caller.stated)),
        )
        for identifier, content in facts:
            builder = builder.add_extension(x509.UnrecognizedExtension(identifier, content), critical=False)
        return builder

    def _leaf(self, precertificate: bytes) -> bytes:
        """RFC 6962, 3.4: version, leaf type 0, time in ms, entry type, issuer key hash, TBS, no extensions.

        RFC 6962, 3.2 has the SCT sign the same bytes: version, signature type 0, and then what follows here.
        """
        head = struct.pack(">BBQH", _SCT_V1, 0, int(self._clock().timestamp() * 1000), _PRECERT_ENTRY)
        return head + self._issuer_hash + len(precertificate).to_bytes(3, "big") + precertificate + _NO_EXTENSIONS

    def _sct_list(self, leaf: bytes) -> bytes:
        signature = self._ct_key.sign(leaf, ec.ECDSA(hashes.SHA256()))
        sct = (
            bytes([_SCT_V1])
            + self._ct_id
            + leaf[2:10]
            + _NO_EXTENSIONS
            + _SHA256_ECDSA
            + struct.pack(">H", len(signature))
            + signature
        )
        return der.value(der.OCTET_STRING, struct.pack(">HH", len(sct) + 2, len(sct)) + sct)


def identity_of(leaf: bytes) -> bytes:
    """The identity of an issuance log entry: its digest, so that every certificate has one entry of its own."""
    return hashlib.sha256(leaf).digest()


def _is_email(san: str) -> bool:
    return "@" in san and ":" not in san


def _utf8(text: str) -> bytes:
    return der.value(der.UTF8_STRING, text.encode())
