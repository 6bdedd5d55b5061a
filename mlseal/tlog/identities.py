"""Which entry carries which identity: what makes appending idempotent.

A map from 32-byte identity to log index, in SQLite beside the log. It is a cache of the log, never evidence: it can be
deleted at any time, is caught up from the log's own entries when it lags, is rebuilt when it does not fit this log,
and a hit is believed only after the entry itself was read (`writer` does so).

New identities are kept in memory and written in bulk, so an append never waits for the map; those in memory at a
crash are in the journal too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from mlseal.errors import Error, MalformedEvidence

IDENTITY_SIZE = 32
"""Bytes in an identity, a SHA-256."""

IdentityOf = Callable[[bytes], bytes]
"""The identity that an entry's bytes carry."""

_CHUNK = 65_536
_SCHEMA = """
CREATE TABLE seen (identity BLOB PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE extent (size INTEGER NOT NULL, root BLOB NOT NULL);
"""


class Identities:
    """The map of one log, for its one writer. Not thread-safe.

    Args:
        path: the database file; made when absent.
        identity_of: the identity that an entry's bytes carry.
    """

    def __init__(self, path: Path, identity_of: IdentityOf) -> None:
        self.path = path
        self._identity_of = identity_of
        self._recent: dict[bytes, int] = {}
        self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        """The database, made anew when it is not one of ours."""
        for fresh in (False, True):
            if fresh:
                self.path.unlink(missing_ok=True)
            database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                if not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                    database.executescript(_SCHEMA)
                database.execute("SELECT size, root FROM extent").fetchone()
                database.execute("SELECT position FROM seen LIMIT 1").fetchone()
            except sqlite3.DatabaseError:
                database.close()
                if fresh:
                    raise
            else:
                return database
        raise AssertionError  # unreachable: the second round returns or raises

    def extent(self) -> tuple[int, bytes]:
        """How many entries the database covers, and the root that the log had then."""
        row = self._database.execute("SELECT size, root FROM extent").fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, b"")

    def reset(self) -> None:
        """Forget everything."""
        self._database.close()
        self.path.unlink(missing_ok=True)
        self._recent.clear()
        self._database = self._open()

    def catch_up(self, entries: Iterable[tuple[int, bytes]], root_at: Callable[[int], bytes]) -> None:
        """Take in `entries`, those behind `extent`; `root_at` gives the root that the log had at a size."""
        for index, entry in entries:
            self.remember(self.identify(index, entry), index)
            if len(self._recent) >= _CHUNK:
                self.settle(index + 1, root_at(index + 1))

    def identify(self, index: int, entry: bytes) -> bytes:
        """Identity of the log's entry `index`.

        Raises:
            MalformedEvidence: the entry carries none.
        """
        try:
            identity = self._identity_of(entry)
        except (Error, ValueError, LookupError, TypeError) as error:
            raise MalformedEvidence(f"entry {index} of the log carries no identity", got=error) from error
        return identity

    def remember(self, identity: bytes, index: int) -> None:
        """Map `identity` to `index`, unless an earlier entry has it."""
        self._recent.setdefault(identity, index)

    def find(self, identity: bytes) -> int | None:
        """Index of the earliest entry known to carry `identity`."""
        index = self._recent.get(identity)
        if index is None:
            row = self._database.execute("SELECT position FROM seen WHERE identity = ?", (identity,)).fetchone()
            index = int(row[0]) if row else None
        return index

    def settle(self, size: int, root: bytes) -> None:
        """Write what is in memory to the database, which then covers `size` entries."""
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", sorted(self._recent.items()))
            database.execute("DELETE FROM extent")
            database.execute("INSERT INTO extent VALUES (?, ?)", (size, root))
            database.execute("COMMIT")
        except sqlite3.Error:
            database.execute("ROLLBACK")
            raise
        self._recent.clear()

    def close(self) -> None:
        """Let go of the database; what is in memory is read from the log next time."""
        self._database.close()
