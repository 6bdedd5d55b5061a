"""Digests of files that have not changed, remembered between *signings*.

A row is keyed by (device, inode, size, mtime, ctime), in nanoseconds; ctime is what ``touch -r`` cannot set back. A
file younger than two seconds is not remembered, because a write within the clock's granularity would go unseen (the
"racily clean" case of git). The database lies in a directory of mode 0700. Whoever can write there can already replace
the signer, and still it never serves verification: a verifier reads the bytes.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mlseal.evidence import paths

_RACY_NS = 2_000_000_000
_BATCH = 500


class HashCache:
    """A `mlseal.evidence.digest.DigestCache` in SQLite; use as a context manager, rows are kept when it closes.

    A database that cannot be opened or is damaged is not an error: the cache is then empty and every file is read.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._new: list[tuple[int, int, int, int, int, bytes]] = []
        self._db: sqlite3.Connection | None = None
        try:
            file = paths.private(directory or paths.state_dir() / "hashes") / "sha256.db"
            self._db = sqlite3.connect(file, timeout=10)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=off")
            self._db.execute(
                "create table if not exists file(dev int, ino int, size int, mtime int, ctime int, sha256 blob,"
                " primary key(ino, dev, size, mtime, ctime)) without rowid"
            )
        except (OSError, sqlite3.Error):
            self._db = None

    def known(self, statuses: Sequence[os.stat_result]) -> list[str | None]:
        """The digest remembered for exactly each status, or None."""
        rows: dict[tuple[int, ...], str] = {}
        if self._db is not None:
            try:
                for start in range(0, len(statuses), _BATCH):
                    rows |= self._look_up(self._db, statuses[start : start + _BATCH])
            except sqlite3.Error:
                rows = {}
        return [rows.get(_key(status)) for status in statuses]

    def remember(self, status: os.stat_result, sha256: str) -> None:
        """Keep a digest, unless the file was touched within the last two seconds."""
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _RACY_NS:
            self._new.append((*_key(status), bytes.fromhex(sha256)))

    @staticmethod
    def _look_up(db: sqlite3.Connection, statuses: Sequence[os.stat_result]) -> dict[tuple[int, ...], str]:
        inodes = sorted({status.st_ino for status in statuses})
        marks = ",".join("?" * len(inodes))
        query = f"select dev, ino, size, mtime, ctime, sha256 from file where ino in ({marks})"  # noqa: S608 -- only marks
        return {row[:5]: bytes(row[5]).hex() for row in db.execute(query, inodes)}

    def close(self) -> None:
        """Write new rows and close; losing them would only cost time."""
        if self._db is None:
            return
        try:
            with self._db:
                self._db.executemany("insert or replace into file values(?,?,?,?,?,?)", self._new)
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


def _key(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
