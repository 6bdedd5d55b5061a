"""Digests of files that have not changed, remembered between *signings*.

A digest counts for exactly one (device, inode, size, mtime, ctime), in nanoseconds; ctime is what ``touch -r`` cannot
set back. A file that was younger than two seconds before it was read is not remembered, because a write within the
clock's granularity would go unseen (the "racily clean" case of git). There is one row per device and inode, the latest.
The database lies in a directory of mode 0700. Whoever can write there can already replace the signer, and still it
never serves verification: a verifier reads the bytes.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mlseal.evidence import paths
from mlseal.evidence.digest import Stamp

_RACY_NS = 2_000_000_000
_BATCH = 500
_RUN, _GAP = 20, 8
_Row = tuple[int, int, int, int, bytes]


class HashCache:
    """A `mlseal.evidence.digest.DigestCache` in SQLite; use as a context manager, rows are kept when it closes.

    A database that cannot be opened or is damaged is not an error: the cache is then empty and every file is read.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._new: list[tuple[int, int, int, int, int, bytes]] = []
        self._asked = 0
        self._db: sqlite3.Connection | None = None
        try:
            file = paths.private(directory or paths.state_dir() / "hashes") / "sha256.db"
            self._db = sqlite3.connect(file, timeout=10)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=off")
            self._db.execute(
                "create table if not exists latest(dev int, ino int, size int, mtime int, ctime int, sha256 blob,"
                " primary key(ino, dev)) without rowid"
            )
        except (OSError, sqlite3.Error):
            self._db = None

    def known(self, stamps: Sequence[Stamp]) -> list[str | None]:
        """The digest remembered for exactly each stamp, or None."""
        self._asked = time.time_ns()
        rows: dict[int, dict[int, _Row]] = {device: {} for device in {stamp[0] for stamp in stamps}}
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                for device, of_device in rows.items():
                    inodes = sorted([stamp[1] for stamp in stamps if stamp[0] == device])
                    of_device.update(_look_up(self._db, device, inodes))
        found: list[str | None] = []
        for device, inode, size, mtime, ctime in stamps:
            row = rows[device].get(inode)
            same = row is not None and row[2] == mtime and row[3] == ctime and row[1] == size
            found.append(row[4].hex() if row is not None and same else None)
        return found

    def remember(self, stamp: Stamp, sha256: str) -> None:
        """Keep a digest, unless the file was touched less than two seconds before `known` was asked."""
        if self._asked - max(stamp[3:]) > _RACY_NS:
            self._new.append((*stamp, bytes.fromhex(sha256)))

    def close(self) -> None:
        """Write new rows and close; losing them would only cost time."""
        if self._db is None:
            return
        try:
            with self._db:
                self._db.executemany("insert or replace into latest values(?,?,?,?,?,?)", self._new)
        except sqlite3.Error:
            pass
        finally:
            self._db.close()
            self._db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _look_up(db: sqlite3.Connection, device: int, inodes: Sequence[int]) -> dict[int, _Row]:
    """Rows by inode. `inodes` are sorted; in one directory they lie close, and a range costs half of a list."""
    query = "select ino, size, mtime, ctime, sha256 from latest where dev = ? and ino"
    rows: dict[int, _Row] = {}
    scattered: list[int] = []
    for run in _runs(inodes):
        if len(run) < _RUN:
            scattered += run
        else:
            found = db.execute(f"{query} between ? and ?", (device, run[0], run[-1]))
            rows |= {row[0]: row for row in found}
    for start in range(0, len(scattered), _BATCH):
        batch = scattered[start : start + _BATCH]
        found = db.execute(f"{query} in ({','.join('?' * len(batch))})", (device, *batch))
        rows |= {row[0]: row for row in found}
    return rows


def _runs(inodes: Sequence[int]) -> Iterator[Sequence[int]]:
    """`inodes`, which are sorted, cut wherever the next is further away than `_GAP`."""
    start = 0
    for i in range(1, len(inodes) + 1):
        if i == len(inodes) or inodes[i] - inodes[i - 1] > _GAP:
            yield inodes[start:i]
            start = i
