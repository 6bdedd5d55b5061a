"""RFC 3161 time-stamping authority.

A response says: these bytes existed at this moment, by this authority's clock. It is what keeps evidence verifiable
after its certificate, valid for minutes, has expired.

Structure: CMS SignedData v3 (RFC 5652) around a TSTInfo, one signer, ECDSA P-256 with SHA-256, signed attributes
content-type, signing-time, message-digest and signing-certificate-v2 (RFC 5816). All that does not change from one
response to the next is encoded once, at construction.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import Misuse
from mlseal.evidence.clock import Clock, utcnow
from mlseal.services import der

POLICY = "1.3.6.1.4.1.57264.2"
"""The policy identifier of Sigstore's own timestamp-authority; no other policy is served."""

_SIGNED_DATA = der.oid("1.2.840.113549.1.7.2")
_TST_INFO = der.oid("1.2.840.113549.1.9.16.1.4")
_CONTENT_TYPE = der.oid("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST = der.oid("1.2.840.113549.1.9.4")
_SIGNING_TIME = der.oid("1.2.840.113549.1.9.5")
_SIGNING_CERTIFICATE_V2 = der.oid("1.2.840.113549.1.9.16.2.47")
_ECDSA_WITH_SHA256 = der.oid("1.2.840.10045.4.3.2")
_HASHES = {
    "sha256": (der.oid("2.16.840.1.101.3.4.2.1"), 32),
    "sha384": (der.oid("2.16.840.1.101.3.4.2.2"), 48),
    "sha512": (der.oid("2.16.840.1.101.3.4.2.3"), 64),
}
_SHA256 = der.value(der.SEQUENCE, _HASHES["sha256"][0])
_CONTEXT_0, _DIRECTORY_NAME, _EXTENSIONS = 0xA0, 0xA4, 0xA0
_GRANTED = der.value(der.SEQUENCE, der.integer(0))
_ACCURACY_ONE_SECOND = der.value(der.SEQUENCE, der.integer(1))
_MAX_NONCE_BITS = 256
_END_OF_UTC_TIME = 2050
_TRUE, _FALSE = b"\xff", b"\x00"


@dataclass(frozen=True)
class Query:
    """What is to be stamped.

    Attributes:
        imprint: the DER MessageImprint, repeated unchanged in the response.
        nonce: repeated in the response, so that the asker knows it is fresh.
        certificate: whether the response shall carry the authority's certificate.
    """

    imprint: bytes
    nonce: int | None
    certificate: bool


def parse_query(data: bytes) -> Query:
    """The TimeStampReq in `data` (RFC 3161, 2.4.1).

    Raises `Misuse` for anything that is not one DER TimeStampReq v1 over SHA-256, SHA-384 or SHA-512, for another
    policy than ours and for any extension (an authority must not ignore one).
    """
    outer = der.Reader(data, "the timestamp query")
    body = outer.enter(der.SEQUENCE)
    outer.finish()
    if (version := body.take_integer()) != 1:
        raise Misuse("unknown version of timestamp query", got=version, expected=1)
    imprint = body.take_whole(der.SEQUENCE)
    _check_imprint(imprint)
    if body.peek() == der.OID and (policy := body.take_whole(der.OID)) != der.oid(POLICY):
        raise Misuse("this authority does not stamp under that policy", got=policy.hex(), expected=POLICY)
    nonce = body.take_integer() if body.peek() == der.INTEGER else None
    wants_certificate = False
    if body.peek() == der.BOOLEAN:
        flag = body.take(der.BOOLEAN)
        if flag not in (_TRUE, _FALSE):
            raise Misuse("the timestamp query is not DER", got="a BOOLEAN that is neither TRUE nor FALSE")
        wants_certificate = flag == _TRUE
    if body.peek() == _EXTENSIONS:
        raise Misuse("the timestamp query has extensions, and this authority knows none")
    body.finish()
    _check_nonce(nonce)
    return Query(imprint, nonce, wants_certificate)


def make_query(algorithm: str, digest: bytes, *, nonce: int | None = None, certificate: bool = False) -> Query:
    """A query from its parts, for callers without DER. Raises `Misuse` for an unknown hash or wrong length."""
    if algorithm.lower() not in _HASHES:
        raise Misuse("unknown hash algorithm", got=algorithm[:40], expected=", ".join(_HASHES))
    identifier, _ = _HASHES[algorithm.lower()]
    imprint = der.value(
        der.SEQUENCE, der.value(der.SEQUENCE, identifier, der.value(der.NULL)), der.value(der.OCTET_STRING, digest)
    )
    _check_imprint(imprint)
    _check_nonce(nonce)
    return Query(imprint, nonce, certificate)


def _check_nonce(nonce: int | None) -> None:
    if nonce is not None and nonce.bit_length() > _MAX_NONCE_BITS:
        raise Misuse("the nonce is too long", got=f"{nonce.bit_length()} bits", expected=f"at most {_MAX_NONCE_BITS}")


def _check_imprint(imprint: bytes) -> None:
    body = der.Reader(imprint, "the message imprint").enter(der.SEQUENCE)
    algorithm = body.enter(der.SEQUENCE)
    digest = body.take(der.OCTET_STRING)
    body.finish()
    identifier = algorithm.take_whole(der.OID)
    if not algorithm.finished and algorithm.take(der.NULL):
        raise Misuse("the message imprint is not DER", got="a NULL with content")
    algorithm.finish()
    for known, size in _HASHES.values():
        if identifier == known:
            if len(digest) != size:
                raise Misuse("the digest has the wrong length", got=f"{len(digest)} bytes", expected=f"{size} bytes")
            return
    raise Misuse("unknown hash algorithm", got=identifier.hex(), expected=", ".join(_HASHES))


class TimestampAuthority:
    """Answers queries with tokens signed by `key`, certified in `certificate` (critical EKU timeStamping).

    Thread-safe: it holds no state but the clock.
    """

    def __init__(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, *, clock: Clock = utcnow
    ) -> None:
        self._key, self._clock = key, clock
        self._certificate = certificate.public_bytes(serialization.Encoding.DER)
        issuer, serial = certificate.issuer.public_bytes(), der.integer(certificate.serial_number)
        self._signer_id = der.value(der.SEQUENCE, issuer, serial)
        issuer_serial = der.value(der.SEQUENCE, der.value(der.SEQUENCE, der.value(_DIRECTORY_NAME, issuer)), serial)
        # ESSCertIDv2 leaves the algorithm out when it is its default, SHA-256 (RFC 5816 with DER).
        cert_id = der.value(
            der.SEQUENCE, der.value(der.OCTET_STRING, hashlib.sha256(self._certificate).digest()), issuer_serial
        )
        certificates = der.value(der.SEQUENCE, der.value(der.SEQUENCE, cert_id))
        self._fixed_attributes = (
            _attribute(_CONTENT_TYPE, _TST_INFO),
            _attribute(_SIGNING_CERTIFICATE_V2, certificates),
        )

    def respond(self, query: Query) -> bytes:
        """The DER TimeStampResp, status granted, for `query` at the present moment."""
        moment = self._clock()
        info = _info(query, moment)
        attributes = (
            *self._fixed_attributes,
            _attribute(_SIGNING_TIME, _signing_time(moment)),
            _attribute(_MESSAGE_DIGEST, der.value(der.OCTET_STRING, hashlib.sha256(info).digest())),
        )
        signed = der.set_of(*attributes)
        signature = self._key.sign(signed, ec.ECDSA(hashes.SHA256()))
        signer = der.value(
            der.SEQUENCE,
            der.integer(1),
            self._signer_id,
            _SHA256,
            bytes([_CONTEXT_0]) + signed[1:],
            der.value(der.SEQUENCE, _ECDSA_WITH_SHA256),
            der.value(der.OCTET_STRING, signature),
        )
        content = der.value(der.SEQUENCE, _TST_INFO, der.value(_CONTEXT_0, der.value(der.OCTET_STRING, info)))
        certificates = der.value(_CONTEXT_0, self._certificate) if query.certificate else b""
        data = der.value(
            der.SEQUENCE, der.integer(3), der.value(der.SET, _SHA256), content, certificates, der.value(der.SET, signer)
        )
        token = der.value(der.SEQUENCE, _SIGNED_DATA, der.value(_CONTEXT_0, data))
        return der.value(der.SEQUENCE, _GRANTED, token)


def _info(query: Query, moment: datetime) -> bytes:
    """TSTInfo (RFC 3161, 2.4.2). The time is cut to whole seconds: never later than the true moment."""
    return der.value(
        der.SEQUENCE,
        der.integer(1),
        der.oid(POLICY),
        query.imprint,
        der.integer(secrets.randbits(159) | 1),
        der.value(der.GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode()),
        _ACCURACY_ONE_SECOND,
        b"" if query.nonce is None else der.integer(query.nonce),
    )


def _signing_time(moment: datetime) -> bytes:
    """UTCTime, whose two-digit years end with 2049 (RFC 5652, 11.3)."""
    if moment.year < _END_OF_UTC_TIME:
        return der.value(der.UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return der.value(der.GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())


def _attribute(identifier: bytes, content: bytes) -> bytes:
    return der.value(der.SEQUENCE, identifier, der.value(der.SET, content))
