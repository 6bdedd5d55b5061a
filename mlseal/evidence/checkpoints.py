"""The last checkpoint that this verifier believed, per log: what turns a log's promise into an append-only one.

Stock Sigstore clients check each checkpoint by itself, so a log key can show every client another tree (sigstore-python
4.5.1 and @sigstore/verify 4.1.3 both accept that; tried). Whoever remembers one checkpoint and demands a consistency
proof notices.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mlseal.errors import SplitView, Unchecked
from mlseal.evidence import paths
from mlseal.evidence.bundle import write_atomic
from mlseal.evidence.trust import LogKey
from mlseal.tlog.checkpoint import Checkpoint
from mlseal.tlog.checkpoint import open_note as _open_note
from mlseal.tlog.proofs import HashReader, verify_consistency
from mlseal.tlog.tiles import TileSource

open_note = lru_cache(maxsize=1024)(_open_note)
"""`mlseal.tlog.checkpoint.open_note`, remembered: one verification asks three times for the same signed note."""


class PinnedCheckpoints:
    """Checkpoints in a directory of this user's state; any number of processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = paths.private(directory)

    def pinned(self, log: LogKey) -> Checkpoint | None:
        """The checkpoint remembered for `log`; its signature is checked again."""
        file = self._file(log)
        return open_note(file.read_text(encoding="utf-8"), log.origin, log.public_key) if file.exists() else None

    def require_consistent(self, log: LogKey, note: str, tiles: TileSource | None) -> bool:
        """Check the signed `note` against what is remembered, and remember the larger of the two.

        Args:
            log: the log, from the trust root.
            note: a checkpoint signed by it.
            tiles: the log's tiles, from anyone; they are only believed where they hash to the signed roots.

        Returns:
            False at first contact, when there was nothing to compare with; True when consistency was proved.

        Raises:
            SplitView: no single append-only tree holds both checkpoints.
            Unchecked: the proof cannot be made because the tiles are not available.
        """
        seen = open_note(note, log.origin, log.public_key)
        with self._locked(log):
            known = self.pinned(log)
            if known is None:
                write_atomic(self._file(log), note.encode(), mode=0o600)
                return False
            if seen.size == known.size:
                if seen.root != known.root:
                    raise SplitView(
                        f"log {log.origin} shows two trees of size {seen.size}",
                        got=seen.root.hex()[:16],
                        expected=known.root.hex()[:16],
                        remedy="stop, keep both checkpoints and tell the log's operator",
                    )
                return True
            small, large = sorted((seen, known), key=lambda c: c.size)
            _prove(log, small, large, tiles)
            if seen is large:
                write_atomic(self._file(log), note.encode(), mode=0o600)
            return True

    def _file(self, log: LogKey) -> Path:
        return self._directory / f"{re.sub('[^a-z0-9.-]', '_', log.origin)}-{log.log_id[:8].hex()}"

    @contextmanager
    def _locked(self, log: LogKey) -> Iterator[None]:
        with self._file(log).with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _prove(log: LogKey, small: Checkpoint, large: Checkpoint, tiles: TileSource | None) -> None:
    if small.size == 0:
        return
    if tiles is None:
        raise Unchecked(
            f"consistency of log {log.origin} cannot be proved without its tiles",
            got=f"checkpoints of size {small.size} and {large.size}",
            remedy="make the log reachable (its service, or a copy of its tiles)",
        )
    try:
        proof = HashReader(tiles.read, large.size).consistency(small.size)
    except FileNotFoundError as error:
        raise Unchecked(
            f"tiles of log {log.origin} are missing",
            got=str(error)[:120],
            remedy="make the log reachable (its service, or a copy of its tiles)",
        ) from error
    verify_consistency(small.size, large.size, small.root, large.root, proof)
