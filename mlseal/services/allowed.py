"""Which bare keys may append to the log of statements, in ``keys.json``.

A certificate is proof that somebody answered for its holder minutes ago; a key is proof of nothing but itself. If any
key could append, strangers could fill the log with entries whose evidence nobody shows, and every judge that finds such
an entry has to stop. So the log is closed to keys but those that its owner listed; the owner's own calls on the unix
socket need no list, since the owner could write it.
"""

from __future__ import annotations

from pathlib import Path

from mlseal.errors import MalformedEvidence, Misuse, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.publickey import FINGERPRINT
from mlseal.services import files


class AllowedKeys:
    """The fingerprints in `path`; read again each time, so that a key is shut out with the next request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[str]:
        """All of them; none while there is no file. Raises as `mlseal.services.files.read_private`."""
        if not self.path.exists():
            return []
        value = canonical.parse(files.read_private(self.path), what=str(self.path))
        if not isinstance(value, list) or not all(isinstance(one, str) and FINGERPRINT.fullmatch(one) for one in value):
            raise MalformedEvidence(f"{self.path} is damaged", expected="a list of fingerprints")
        return value

    def require(self, fingerprint: str) -> None:
        """Raise `UntrustedSigner` unless `fingerprint` is listed."""
        if fingerprint not in self.read():
            raise UntrustedSigner(
                "this log takes no entries by this key",
                got=fingerprint,
                expected="a certificate of this authority, or a key that its owner listed",
                remedy=f"the owner of the service runs 'mlseal key allow {fingerprint}'",
            )

    def add(self, fingerprint: str) -> list[str]:
        """List `fingerprint`, from now on; returns all. Raises `Misuse` for what is none."""
        if not FINGERPRINT.fullmatch(fingerprint):
            raise Misuse("not a fingerprint of a key", got=fingerprint[:80], expected="sha256:… of 'mlseal key show'")
        return self._write({*self.read(), fingerprint})

    def remove(self, fingerprint: str) -> list[str]:
        """Strike `fingerprint` off; returns what is left. Raises `Misuse` if it was not listed."""
        known = set(self.read())
        if fingerprint not in known:
            raise Misuse("this key is not listed", got=fingerprint[:80], expected=", ".join(sorted(known)) or "none is")
        return self._write(known - {fingerprint})

    def _write(self, fingerprints: set[str]) -> list[str]:
        files.write(self.path, canonical.dumps(sorted(fingerprints)), mode=files.PRIVATE)
        return sorted(fingerprints)
