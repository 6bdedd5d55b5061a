"""What was signed and is not published yet: written before the log is asked, removed when the bundle is in the store.

The journal outlives a rotation of the trust root: it is one directory for all roots, and whether an entry concerns a
root is read from the entry itself, whose certificate an authority of that root issued; where a key signed, whose
timestamp an authority of that root gave. Entries of another authority are not shown, because its log alone can hold
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from mlseal.errors import Error, MalformedEvidence
from mlseal.evidence import canonical, logrecord, paths, publickey
from mlseal.evidence.bundle import unbase64, write_atomic
from mlseal.evidence.identity import Identity
from mlseal.evidence.strict import certificate_identity
from mlseal.evidence.trust import Trust

VERIFIER = "logVerifier"
"""Member of an entry by a key: the log's verifier, which the bundle only hints at."""
ASKED = "logAsked"
"""Member of an entry by a key: the signature in which its holder asks the log for the entry (`logrecord.asked`)."""


class Journal:
    """The entries that an authority of `trust` certified, in this user's state directory; any number of processes."""

    def __init__(self, trust: Trust) -> None:
        state = paths.state_dir()
        self._directory = state / "unpublished"
        self._trusts = state / "trust"  # where earlier versions kept one journal for each root
        self._trust, self._issuers = trust, _issuers(trust)

    def write(self, evidence_id: str, draft: dict[str, Any]) -> Path:
        """Keep `draft`, a bundle without its log entry; durable when this returns.

        `evidence_id` is that of the statement that was to be signed, so that `find` knows it again: a key signs it with
        the time added.
        """
        folder = paths.private(self._directory / _folder(draft))
        file = folder / f"{evidence_id}.json"
        write_atomic(file, canonical.dumps(draft), mode=0o600)
        return file

    def find(self, evidence_id: str, by: Callable[[Identity], bool]) -> Path | None:
        """The entry for this evidence whose signer is one of those that `by` says, if there is one."""
        return next((file for file in self.files() if file.stem == evidence_id and by(signer_of(file))), None)

    def files(self) -> list[Path]:
        """Every entry, and every file that cannot be read as one: what is spoilt is reported, not passed over."""
        found = [*self._directory.glob("*/*.json"), *self._trusts.glob("*/unpublished/*.json")]
        return sorted((file for file in found if self._concerns(file)), key=lambda file: (file.name, str(file)))

    def _concerns(self, file: Path) -> bool:
        try:
            draft = read(file)
            if VERIFIER in draft:
                return self._stamped(draft)
            certificate = _certificate(draft)
        except FileNotFoundError:  # another process finished it meanwhile
            return False
        except (Error, KeyError, TypeError, ValueError):
            return True
        return any(_issued(certificate, issuer) for issuer in self._issuers)

    def _stamped(self, draft: dict[str, Any]) -> bool:
        from mlseal.evidence.verifying import stamped

        times = draft["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
        stamp = unbase64(times[0]["signedTimestamp"], "timestamp")
        return stamped(stamp, unbase64(draft["dsseEnvelope"]["signatures"][0]["sig"], "signature"), self._trust)


def read(file: Path) -> dict[str, Any]:
    """The entry in `file`. Raises `MalformedEvidence`, or `FileNotFoundError` when another process finished it."""
    draft: dict[str, Any] = canonical.parse(file.read_bytes(), what=f"journal {file.name}")
    return draft


def signer_of(file: Path) -> Identity:
    """Who signed the entry in `file`; raises as `read` does."""
    try:
        return identity_of(read(file))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedEvidence(
            f"journal {file.name} is no entry", got=type(error).__name__, remedy=f"move {file} away"
        ) from error


def identity_of(draft: dict[str, Any]) -> Identity:
    """Who signed an entry. Raises `KeyError`, `TypeError` or `ValueError` for what is none, or an error of ours."""
    if VERIFIER in draft:
        return publickey.identity(publickey.from_der(_spki(draft)))
    return certificate_identity(_certificate(draft))


def verifier_of(draft: dict[str, Any]) -> dict[str, Any]:
    """What the log is to record as the verifier of the entry's signature; raises as `identity_of`."""
    if VERIFIER in draft:
        return logrecord.of_key(_spki(draft))
    return logrecord.of_certificate(unbase64(draft["verificationMaterial"]["certificate"]["rawBytes"], "certificate"))


def _spki(draft: dict[str, Any]) -> bytes:
    return unbase64(draft[VERIFIER]["publicKey"]["rawBytes"], "public key")


def _certificate(draft: dict[str, Any]) -> x509.Certificate:
    der = unbase64(draft["verificationMaterial"]["certificate"]["rawBytes"], "certificate")
    return x509.load_der_x509_certificate(der)


def _folder(draft: dict[str, Any]) -> str:
    """A folder for each issuing key, so that two authorities may certify the same words; and one for each kept key."""
    if VERIFIER in draft:
        return "key-" + hashlib.sha256(_spki(draft)).hexdigest()[:36]
    certificate = _certificate(draft)
    extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return (extension.key_identifier or b"").hex()[:40] or "unnamed"


def _issuers(trust: Trust) -> list[x509.Certificate]:
    chains = [entry["certChain"]["certificates"] for entry in trust.root["certificateAuthorities"]]
    return [
        x509.load_der_x509_certificate(unbase64(one["rawBytes"], "CA certificate")) for chain in chains for one in chain
    ]


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
