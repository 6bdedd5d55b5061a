"""Copies of logs that pass the gateway: stored only where they hash to a root that the log signed.

Tiles come before the checkpoint that vouches for them, so they wait. A checkpoint is stored when it is signed by a log
of the trust root, continues what the gateway has seen, and all tiles lead to its root; never one that is older.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlseal.errors import Error, Refusal, SplitView
from mlseal.evidence.mirror import tree_paths
from mlseal.evidence.trust import LogKey
from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.proofs import HashReader
from mlseal_dvc import layout
from mlseal_dvc.gateway_admission import Admission
from mlseal_dvc.gateway_paths import Target
from mlseal_dvc.gateway_spool import Received, Spool
from mlseal_dvc.gateway_upstream import Upstream, evidence_name, read_small

_SMALL = 64 << 10


class LogKeeper:
    """Takes in tiles and checkpoints."""

    def __init__(self, admission: Admission, upstream: Upstream, spool: Spool) -> None:
        self._admission, self._upstream, self._spool = admission, upstream, spool

    def tile(self, target: Target, received: Received) -> bool:
        """Let a tile wait; False if the same is stored. One that is stored with other bytes was proved, and stays."""
        self._log(target)
        there = read_small(self._upstream, target.name, _SMALL)
        if there is not None:
            if there != received.read():
                raise Refusal("this tile of the log is stored with other hashes, which the log signed", got=target.tile)
            return False
        self._spool.wait(received, target.name)
        return True

    def checkpoint(self, target: Target, received: Received) -> bool:
        """Store a checkpoint with the tiles that it vouches for; False if one as large is stored already."""
        log = self._log(target)
        try:
            note = received.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refusal("the checkpoint is no text") from error
        new = open_note(note, log.origin, log.public_key)
        there = read_small(self._upstream, target.name, _SMALL)
        old = open_note(there.decode("utf-8", "replace"), log.origin, log.public_key) if there is not None else None
        if old is not None and old.size == new.size and old.root != new.root:
            raise SplitView(f"log {log.origin} shows two trees of size {new.size}", remedy="tell its operator")
        if old is not None and old.size >= new.size:
            return False
        tiles = _Candidates(log, self._upstream, self._spool)
        paths = [path for path in tree_paths(new.size) if not path.startswith("tile/entries/")]
        waiting = {path: file for path in paths if (file := self._spool.waiting(tiles.name(path))) is not None}
        try:
            self._prove(HashReader(tiles.read, new.size, new.root), waiting)
            self._admission.require_consistent(log, note, tiles)
        except (Error, FileNotFoundError) as error:
            for path in waiting:
                self._spool.done(tiles.name(path))  # somebody may have sent wrong ones: the next push begins anew
            raise error if isinstance(error, Error) else Refusal(f"a tile is missing: {error}") from error
        for path, file in waiting.items():
            self._upstream.put(tiles.name(path), file)
            self._spool.done(tiles.name(path))
        self._upstream.put(target.name, received.file, replace=True)
        return True

    @staticmethod
    def _prove(reader: HashReader, waiting: Iterable[str]) -> None:
        for path in waiting:
            level, n = _position(path)
            reader.tile(level, n)

    def _log(self, target: Target) -> LogKey:
        for log in self._admission.trust.logs:
            if log.origin == target.key:
                return log
        raise Refusal("no log of the trust root has this origin", got=target.key)


class _Candidates:
    """A log's tiles: stored ones first, then those that wait."""

    def __init__(self, log: LogKey, upstream: Upstream, spool: Spool) -> None:
        self._log, self._upstream, self._spool = log, upstream, spool

    def name(self, path: str) -> str:
        """Name in the store."""
        return evidence_name(layout.log(self._log.origin, path))

    def read(self, path: str) -> bytes:
        """See `TileSource`."""
        stored = read_small(self._upstream, self.name(path), _SMALL)
        if stored is not None:
            return stored
        waiting = self._spool.waiting(self.name(path))
        if waiting is None:
            raise FileNotFoundError(path)
        return waiting.read_bytes()


def _position(path: str) -> tuple[int, int]:
    """Level and number of a tile from its path."""
    parts = path.partition(".p/")[0].split("/")
    n = 0
    for group in parts[2:]:
        n = n * 1000 + int(group.removeprefix("x"))
    return int(parts[1]), n
