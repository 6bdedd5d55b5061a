"""The log's hash tiles beside the data, for people who can reach the remote but not the log.

Without them a second checkpoint could not be shown to continue the first, and a verifier that remembers would have to
stop. The copy is untrusted: tiles count only where they hash to signed roots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mlseal.errors import Error, ServiceUnavailable, SplitView, Unchecked
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.mirror import tree_paths
from mlseal.evidence.tiles import service_tiles
from mlseal.evidence.trust import LogKey, Trust
from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.tiles import TILE_WIDTH, TileSource, tile_path
from mlseal_dvc import layout
from mlseal_dvc.places import Place

MorePlaces = Callable[[], Iterable[Place]]
MAX_ENTRIES = 1 << 22
"""Larger logs (public ones) are not copied; everyone can reach those."""


class CopiedTiles:
    """Tiles of one log from the copies in `places`, then from `more` of them, then from the log itself.

    A copy may hold a wider partial tile than the one asked for: its first hashes are those of the narrower one.
    """

    def __init__(self, log: LogKey, places: Sequence[Place], more: MorePlaces, live: TileSource | None) -> None:
        self._log, self._places, self._more, self._live = log, places, more, live

    def read(self, path: str) -> bytes:
        """The bytes at a tlog-tiles path. Raises `FileNotFoundError`."""
        for place in self._everywhere():
            data = place.read(layout.log(self._log.origin, path))
            if data is None:
                data = self._cut_from_wider(place, path)
            if data is not None:
                return data
        if self._live is None:
            raise FileNotFoundError(path)
        return self._live.read(path)

    def _everywhere(self) -> Iterator[Place]:
        yield from self._places
        yield from self._more()

    def _cut_from_wider(self, place: Place, path: str) -> bytes | None:
        head, marker, width = path.partition(".p/")
        if not marker or (size := copied_size(self._log, place)) is None:
            return None
        level = int(head.split("/")[1])
        count = size >> (8 * level)
        wider = tile_path(level, count // TILE_WIDTH, count % TILE_WIDTH or TILE_WIDTH)
        if wider.partition(".p/")[0] != head:
            return None
        data = place.read(layout.log(self._log.origin, wider))
        needed = int(width) * 32
        return data[:needed] if data is not None and len(data) >= needed else None


def tiles_for(trust: Trust, places: Sequence[Place], more: MorePlaces = tuple) -> dict[str, TileSource]:
    """For each log of `trust`: its tiles from `places`, or from its service where one is configured.

    `more` is asked only for what `places` lack. Remotes are pushed to at different times: who has seen the log through
    one of them needs its tiles to see that the older copy on another belongs to the same log.
    """
    live: Mapping[str, TileSource] = service_tiles(trust)
    return {log.origin: CopiedTiles(log, places, more, live.get(log.origin)) for log in trust.logs}


def pin_newest(trust: Trust, tiles: Mapping[str, TileSource], checkpoints: PinnedCheckpoints) -> None:
    """Remember the newest checkpoint that can be read of each log, as refreshing an archive does.

    What cannot be read or proved changes nothing; two trees of one log raise `SplitView`.
    """
    for log in trust.logs:
        source = tiles[log.origin]
        try:
            checkpoints.require_consistent(log, source.read("checkpoint").decode("utf-8"), source)
        except SplitView:
            raise
        except (Error, OSError, ValueError):
            continue


def copied_size(log: LogKey, place: Place) -> int | None:
    """Size of the copy in `place`; None when there is none that the log signed."""
    note = place.read(layout.log(log.origin, "checkpoint"))
    if note is None:
        return None
    try:
        return open_note(note.decode("utf-8"), log.origin, log.public_key).size
    except Exception:  # noqa: BLE001 - somebody else's bytes; as good as absent
        return None


def bring_up_to_date(trust: Trust, place: Place, sizes: Mapping[str, int]) -> None:
    """Copy each log in `sizes` to `place` unless the copy there already spans that many entries.

    Full tiles of the older copy are not read again. The checkpoint goes last and never back: two pushes at once leave
    the larger one. Raises `Unchecked` when the log cannot be read.
    """
    live = service_tiles(trust)
    for log in trust.logs:
        wanted, source = sizes.get(log.origin, 0), live.get(log.origin)
        have = copied_size(log, place) or 0
        if have >= wanted or wanted > MAX_ENTRIES:
            continue
        if source is None:
            raise ServiceUnavailable(f"log {log.origin} cannot be read to copy it beside the data")
        _extend(log, source, place, have)


def _extend(log: LogKey, source: TileSource, place: Place, have: int) -> None:
    note = source.read("checkpoint")
    size = open_note(note.decode("utf-8"), log.origin, log.public_key).size
    kept = {path for path in tree_paths(have) if ".p/" not in path}
    try:
        for path in tree_paths(size):
            if not path.startswith("tile/entries/") and path not in kept:
                place.write(layout.log(log.origin, path), source.read(path))
    except FileNotFoundError as error:
        raise Unchecked(f"log {log.origin} lacks a tile of its own checkpoint", got=str(error)[:120]) from error
    for _ in range(3):
        place.write(layout.log(log.origin, "checkpoint"), note)
        if (copied_size(log, place) or 0) >= size:
            return
