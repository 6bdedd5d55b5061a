"""A log's tiles from the service that runs it. Untrusted like any other source of tiles."""

from __future__ import annotations

from collections.abc import Mapping

from mlseal.errors import ServiceUnavailable
from mlseal.evidence.signing import embedded
from mlseal.evidence.signing.transport import Connection
from mlseal.evidence.trust import Trust
from mlseal.tlog.tiles import TileSource


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

    The trust service serves every log at ``/log/ORIGIN``; a Rekor v2 server serves its own below ``/api/v2``, and a
    retired shard stays at its own address.
    """
    return {origin: ServiceTiles(trust, url, deadline) for origin, url in trust.tile_urls().items()}
