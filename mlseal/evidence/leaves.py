"""Log entries as the verifier needs them: which statement, signed by whom, read from untrusted tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from cryptography import x509

from mlseal.errors import ForgedEvidence, ServiceUnavailable
from mlseal.evidence import canonical, strict
from mlseal.evidence.bundle import unbase64
from mlseal.evidence.identity import Identity
from mlseal.evidence.signing import embedded
from mlseal.evidence.signing.transport import Connection
from mlseal.evidence.trust import Trust
from mlseal.tlog.tiles import TileSource


@dataclass(frozen=True)
class Leaf:
    """One log entry. ``evidence_id`` is the SHA-256 of the signed bytes; the bytes themselves are not in the log."""

    origin: str
    index: int
    evidence_id: str
    identity: Identity


def parse_leaf(origin: str, index: int, body: bytes) -> Leaf:
    """The leaf in an entry's bytes. Raises `ForgedEvidence` for anything but a hashedrekord with a certificate."""
    record = canonical.parse(body, what=f"log entry {index}")
    try:
        spec = record["spec"]["hashedRekordV002"]
        digest = unbase64(spec["data"]["digest"], "logged digest")
        der = unbase64(spec["signature"]["verifier"]["x509Certificate"]["rawBytes"], "logged certificate")
        identity = _identity(der)
    except (KeyError, TypeError, ValueError) as error:
        raise ForgedEvidence(f"log entry {index} of {origin} is not a hashedrekord of a certificate") from error
    return Leaf(origin, index, digest.hex(), identity)


@lru_cache(maxsize=256)
def _identity(der: bytes) -> Identity:
    return strict.certificate_identity(x509.load_der_x509_certificate(der))


class ServiceTiles:
    """Tiles of one log over HTTP, kept in memory once read: a tile of a given width never changes."""

    def __init__(self, trust: Trust, url: str, deadline: float = 10.0) -> None:
        self._trust = trust
        self._connection = Connection(url, deadline)
        self._tiles: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        """The bytes at `path` (C2SP tlog-tiles). Raises `FileNotFoundError` or `ServiceUnavailable`."""
        if path in self._tiles:
            return self._tiles[path]
        embedded.ensure_running(self._trust)
        answer = self._connection.request("GET", f"/{path}")
        if answer.status == 404:
            raise FileNotFoundError(path)
        if answer.status != 200:
            raise ServiceUnavailable("the log did not give a tile", got=f"status {answer.status} for {path}")
        if path != "checkpoint":
            self._tiles[path] = answer.body
        return answer.body


def service_tiles(trust: Trust, deadline: float = 10.0) -> Mapping[str, TileSource]:
    """A tile source for each log of `trust` that its services offer, retired logs included; {} without endpoints.

    The trust service serves every log at ``/log/ORIGIN``; a Rekor v2 server serves the one whose host is the origin.
    """
    if trust.endpoints is None:
        return {}
    base, marker, _ = trust.endpoints.log.rpartition("/log/")
    if marker:
        return {log.origin: ServiceTiles(trust, f"{base}/log/{log.origin}", deadline) for log in trust.logs}
    host = urlsplit(trust.endpoints.log).hostname
    return {log.origin: ServiceTiles(trust, trust.endpoints.log, deadline) for log in trust.logs if log.origin == host}
