"""Log entries as the verifier needs them: which statement, signed by whom, read from untrusted tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from mlseal.errors import ForgedEvidence
from mlseal.evidence import canonical, publickey, strict
from mlseal.evidence.bundle import unbase64
from mlseal.evidence.identity import KEY_ISSUER, Identity


@dataclass(frozen=True)
class Leaf:
    """One log entry. ``evidence_id`` is the SHA-256 of the signed bytes; the bytes themselves are not in the log."""

    origin: str
    index: int
    evidence_id: str
    identity: Identity


def parse_leaf(origin: str, index: int, body: bytes) -> Leaf:
    """The leaf in an entry's bytes. Raises `ForgedEvidence` for anything but a hashedrekord of a certificate or key.

    A key of whatever kind is named: a log may hold what no verifier here would accept.
    """
    record = canonical.parse(body, what=f"log entry {index}")
    try:
        spec = record["spec"]["hashedRekordV002"]
        digest = unbase64(spec["data"]["digest"], "logged digest")
        verifier = spec["signature"]["verifier"]
        if "publicKey" in verifier and "x509Certificate" not in verifier:
            identity = Identity(
                KEY_ISSUER, publickey.fingerprint_of(unbase64(verifier["publicKey"]["rawBytes"], "logged key"))
            )
        else:
            identity = _identity(unbase64(verifier["x509Certificate"]["rawBytes"], "logged certificate"))
    except (KeyError, TypeError, ValueError) as error:
        raise ForgedEvidence(f"log entry {index} of {origin} is no hashedrekord of a certificate or key") from error
    return Leaf(origin, index, digest.hex(), identity)


@lru_cache(maxsize=256)
def _identity(der: bytes) -> Identity:
    return strict.certificate_identity(x509.load_der_x509_certificate(der))
