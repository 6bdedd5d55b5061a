"""The keys of one generation of an authority, and the certificates above them.

A generation is everything that one trust root entry each describes:

* certificate authority: P-256 key under an intermediate certificate (path length 0, code signing only). The root
  above it is made, signs that one certificate and is forgotten: there is no root key to steal.
* time-stamping authority: P-256 key, certificate with the critical purpose timeStamping, again below a forgotten root.
* certificate transparency: P-256 key for the SCT inside each certificate.
* two logs: Ed25519 keys for the checkpoints of the statement log and of the issuance log.
* token issuer: P-256 key for the tokens of local users.

Profiles follow Fulcio and the Sigstore timestamp-authority, so that stock verifiers accept them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mlseal.errors import MalformedEvidence
from mlseal.services import files


@dataclass(frozen=True)
class Keys:
    """The private keys and certificate chains (leaf first) of one generation; never printed."""

    ca: ec.EllipticCurvePrivateKey
    tsa: ec.EllipticCurvePrivateKey
    ct: ec.EllipticCurvePrivateKey
    issuer: ec.EllipticCurvePrivateKey
    log: ed25519.Ed25519PrivateKey
    issuance: ed25519.Ed25519PrivateKey
    ca_chain: tuple[x509.Certificate, ...]
    tsa_chain: tuple[x509.Certificate, ...]

    def __repr__(self) -> str:
        return "Keys(…)"


def generate(name: str, number: int, start: datetime, end: datetime) -> Keys:
    """Fresh keys for generation `number` of authority `name`, their certificates valid from `start` to `end`."""
    ca, tsa, ct, issuer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
    return Keys(
        ca=ca,
        tsa=tsa,
        ct=ct,
        issuer=issuer,
        log=ed25519.Ed25519PrivateKey.generate(),
        issuance=ed25519.Ed25519PrivateKey.generate(),
        ca_chain=_chain(
            name,
            f"certificate authority {number}",
            ca,
            start,
            end,
            purpose=ExtendedKeyUsageOID.CODE_SIGNING,
            is_ca=True,
        ),
        tsa_chain=_chain(
            name, f"time-stamping {number}", tsa, start, end, purpose=ExtendedKeyUsageOID.TIME_STAMPING, is_ca=False
        ),
    )


def store(keys: Keys, directory: Path) -> None:
    """Write every key as PKCS#8 PEM, 0600, into `directory` (0700), which must exist and be empty."""
    for field in fields(keys):
        content = getattr(keys, field.name)
        if isinstance(content, tuple):
            pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in content)
        else:
            pem = content.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        files.write(directory / f"{field.name}.pem", pem, mode=files.PRIVATE)


def load(directory: Path) -> Keys:
    """The keys in `directory`.

    Raises `Refusal` if anybody else could read one, `Unreadable` if one is missing, `MalformedEvidence` if a file is
    not the key that its name says.
    """

    def elliptic(name: str) -> ec.EllipticCurvePrivateKey:
        key = _private(directory / f"{name}.pem")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _not_a_key(directory / f"{name}.pem", "an EC key")
        return key

    def edwards(name: str) -> ed25519.Ed25519PrivateKey:
        key = _private(directory / f"{name}.pem")
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise _not_a_key(directory / f"{name}.pem", "an Ed25519 key")
        return key

    return Keys(
        ca=elliptic("ca"),
        tsa=elliptic("tsa"),
        ct=elliptic("ct"),
        issuer=elliptic("issuer"),
        log=edwards("log"),
        issuance=edwards("issuance"),
        ca_chain=_certificates(directory / "ca_chain.pem"),
        tsa_chain=_certificates(directory / "tsa_chain.pem"),
    )


def spki(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    """DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def usage(*, signature: bool = False, authority: bool = False) -> x509.KeyUsage:
    """The KeyUsage extension with digitalSignature, or with certificate and CRL signing."""
    return x509.KeyUsage(
        digital_signature=signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _chain(
    name: str,
    what: str,
    key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
    *,
    purpose: x509.ObjectIdentifier,
    is_ca: bool,
) -> tuple[x509.Certificate, ...]:
    root_key = ec.generate_private_key(ec.SECP384R1())
    root_name = _name(name, f"{what} root")
    root = (
        _builder(root_name, root_name, root_key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA384())
    )
    below = (
        _builder(_name(name, what), root_name, key.public_key(), start, end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(usage(signature=not is_ca, authority=is_ca), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=not is_ca)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA384())
    )
    return below, root


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _name(authority: str, what: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, authority[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, what),
        ]
    )


def _private(path: Path) -> object:
    data = files.read_private(path)
    try:
        return serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise _not_a_key(path, "a private key in PEM") from error


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(files.read_private(path)))
    except ValueError as error:
        raise _not_a_key(path, "certificates in PEM") from error


def _not_a_key(path: Path, expected: str) -> MalformedEvidence:
    return MalformedEvidence(f"{path} is damaged", expected=expected, remedy="restore it from a backup")
