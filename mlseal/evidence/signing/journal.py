"""What was signed and is not published yet: written before the log is asked, removed when the bundle is in the store.

The journal outlives a rotation of the trust root: it is one directory for all roots, and whether an entry concerns a
root is read from the entry itself, whose certificate an authority of that root issued. Entries of another authority
are not shown, because its log alone can hold them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from mlseal.errors import Error, MalformedEvidence
from mlseal.evidence import canonical, paths
from mlseal.evidence.bundle import unbase64, write_atomic
from mlseal.evidence.identity import Identity
from mlseal.evidence.strict import certificate_identity
from mlseal.evidence.trust import Trust


class Journal:
    """The entries that an authority of `trust` certified, in this user's state directory; any number of processes."""

    def __init__(self, trust: Trust) -> None:
        state = paths.state_dir()
        self._directory = state / "unpublished"
        self._trusts = state / "trust"  # where earlier versions kept one journal for each root
        self._issuers = _issuers(trust)

    def write(self, evidence_id: str, draft: dict[str, Any]) -> Path:
        """Keep `draft`, a bundle without its log entry; durable when this returns."""
        folder = paths.private(self._directory / _issuer_name(_certificate(draft)))
        file = folder / f"{evidence_id}.json"
        write_atomic(file, canonical.dumps(draft), mode=0o600)
        return file

    def find(self, evidence_id: str) -> Path | None:
        """The entry for this evidence, if there is one."""
        return next((file for file in self.files() if file.stem == evidence_id), None)

    def files(self) -> list[Path]:
        """Every entry, and every file that cannot be read as one: what is spoilt is reported, not passed over."""
        found = [*self._directory.glob("*/*.json"), *self._trusts.glob("*/unpublished/*.json")]
        return sorted((file for file in found if self._concerns(file)), key=lambda file: (file.name, str(file)))

    def _concerns(self, file: Path) -> bool:
        try:
            certificate = _certificate(read(file))
        except FileNotFoundError:  # another process finished it meanwhile
            return False
        except (Error, KeyError, TypeError, ValueError):
            return True
        return any(_issued(certificate, issuer) for issuer in self._issuers)


def read(file: Path) -> dict[str, Any]:
    """The entry in `file`. Raises `MalformedEvidence`, or `FileNotFoundError` when another process finished it."""
    draft: dict[str, Any] = canonical.parse(file.read_bytes(), what=f"journal {file.name}")
    return draft


def signer_of(file: Path) -> Identity:
    """Who signed the entry in `file`; raises as `read` does."""
    try:
        return certificate_identity(_certificate(read(file)))
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedEvidence(
            f"journal {file.name} is no entry", got=type(error).__name__, remedy=f"move {file} away"
        ) from error


def _certificate(draft: dict[str, Any]) -> x509.Certificate:
    der = unbase64(draft["verificationMaterial"]["certificate"]["rawBytes"], "certificate")
    return x509.load_der_x509_certificate(der)


def _issuer_name(certificate: x509.Certificate) -> str:
    """A folder for each issuing key, so that two authorities may certify the same words."""
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
