"""The last checkpoint that this verifier believed, per log: what turns a log's promise into an append-only one.

Stock Sigstore clients check each checkpoint by itself, so a log key can show every client another tree (sigstore-python
4.5.1 and @sigstore/verify 4.1.3 both accept that; tried). Whoever remembers one checkpoint and demands a consistency
proof notices.

A pin belongs to a log, not to a trust root: a root changes with every rotation, and a log that is retired then could
otherwise be rewritten unnoticed. So pins lie in one directory, named by origin and key of the log.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
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
    """Checkpoints in a directory of this user's state; any number of processes.

    Args:
        directory: where they are kept.
        earlier: directories in which earlier versions kept them, one for each trust root. What lies there counts
            until `directory` has a pin of the same log.
    """

    def __init__(self, directory: Path, *, earlier: Sequence[Path] = ()) -> None:
        self._directory, self._earlier = paths.private(directory), tuple(earlier)

    @classmethod
    def of_user(cls) -> PinnedCheckpoints:
        """What this user's verifiers remember, whatever the trust root."""
        state = paths.state_dir()
        return cls(state / "checkpoints", earlier=sorted((state / "trust").glob("*/checkpoints")))

    def pinned(self, log: LogKey) -> Checkpoint | None:
        """The largest checkpoint remembered for `log`; its signature is checked again."""
        return max((seen for _, seen in self._remembered(log)), key=lambda seen: seen.size, default=None)

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
            remembered = self._remembered(log)
            for _, known in remembered:
                if seen.size == known.size and seen.root != known.root:
                    raise SplitView(
                        f"log {log.origin} shows two trees of size {seen.size}",
                        got=seen.root.hex()[:16],
                        expected=known.root.hex()[:16],
                        remedy="stop, keep both checkpoints and tell the log's operator",
                    )
                if seen.size != known.size:
                    small, large = sorted((seen, known), key=lambda c: c.size)
                    _prove(log, small, large, tiles)
            newest, _ = max([*remembered, (note, seen)], key=lambda pair: pair[1].size)
            if not self._file(log).exists() or [known for known, _ in remembered] != [newest]:
                write_atomic(self._file(log), newest.encode(), mode=0o600)
            return bool(remembered)

    def _remembered(self, log: LogKey) -> list[tuple[str, Checkpoint]]:
        """The pin of `log`, or all of those that earlier versions left; several may be from different roots."""
        file = self._file(log)
        files = [file] if file.exists() else [f for d in self._earlier if (f := d / _earlier_name(log)).exists()]
        notes = [found.read_text(encoding="utf-8") for found in files]
        return [(note, open_note(note, log.origin, log.public_key)) for note in notes]

    def _file(self, log: LogKey) -> Path:
        return self._directory / f"{_safe(log.origin)}-{hashlib.sha256(log.public_key).hexdigest()[:32]}"

    @contextmanager
    def _locked(self, log: LogKey) -> Iterator[None]:
        file = self._file(log)
        with file.with_name(file.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _earlier_name(log: LogKey) -> str:
    return f"{_safe(log.origin)}-{log.log_id[:8].hex()}"


def _safe(origin: str) -> str:
    return re.sub("[^a-z0-9.-]", "_", origin)


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
