"""Which entry carries which identity: what makes appending idempotent.

A map from 32-byte identity to log index, in SQLite beside the log. It is a cache of the log, never evidence: it can be
deleted at any time, is caught up from the log's own entries when it lags, is rebuilt when it does not fit this log,
and a hit is believed only after the entry itself was read (`writer` does so).

New identities are kept in memory and written in bulk, in the background, so an append never waits for the map; those in
memory at a crash are in the journal too. Two connections in WAL mode: looking up goes on while rows are written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from mlseal.errors import Error, MalformedEvidence

IDENTITY_SIZE = 32
"""Bytes in an identity, a SHA-256."""

IdentityOf = Callable[[bytes], bytes]
"""The identity that an entry's bytes carry."""

_CHUNK = 65_536
_AT_ONCE = 500
_PRIMARY_CODE = 0xFF
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: not our tables
_SCHEMA = """
CREATE TABLE seen (identity BLOB PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE extent (size INTEGER NOT NULL, root BLOB NOT NULL);
"""


class Identities:
    """The map of one log, for its one writer. For one thread, but for the work that `settling` returns.

    Args:
        path: the database file; made when absent.
        identity_of: the identity that an entry's bytes carry.

    Raises (all methods): `sqlite3.Error` as it came; the log turns it into one of ours.
    """

    def __init__(self, path: Path, identity_of: IdentityOf) -> None:
        self.path = path
        self._identity_of = identity_of
        self._recent: dict[bytes, int] = {}
        self._settling: dict[bytes, int] = {}
        self._database = self._open()

    def extent(self) -> tuple[int, bytes]:
        """How many entries the database covers, and the root that the log had then."""
        row = self._database.execute("SELECT size, root FROM extent").fetchone()
        return (int(row[0]), bytes(row[1])) if row else (0, b"")

    def find(self, identities: Iterable[bytes]) -> dict[bytes, int]:
        """Index of an entry believed to carry each of `identities`, for those that one carries."""
        found: dict[bytes, int] = {}
        others: list[bytes] = []
        for identity in identities:
            index = self._recent.get(identity)
            if index is None:
                index = self._settling.get(identity)
            if index is None:
                others.append(identity)
            else:
                found[identity] = index
        for at in range(0, len(others), _AT_ONCE):
            asked = others[at : at + _AT_ONCE]
            marks = ",".join("?" * len(asked))
            query = f"SELECT identity, position FROM seen WHERE identity IN ({marks})"  # noqa: S608  marks only
            found.update(self._database.execute(query, asked).fetchall())
        return found

    def remember(self, identity: bytes, index: int) -> None:
        """Map `identity` to `index`, unless an earlier entry has it."""
        self._recent.setdefault(identity, index)

    def identify(self, index: int, entry: bytes) -> bytes:
        """Identity of the log's entry `index`.

        Raises:
            MalformedEvidence: the entry carries none.
        """
        try:
            return self._identity_of(entry)
        except (Error, ValueError, LookupError, TypeError) as error:
            raise MalformedEvidence(f"entry {index} of the log carries no identity", got=error) from error

    def catch_up(self, entries: Iterable[tuple[int, bytes]], root_at: Callable[[int], bytes]) -> None:
        """Take in `entries`, those behind `extent`; `root_at` gives the root that the log had at a size."""
        for index, entry in entries:
            self.remember(self.identify(index, entry), index)
            if len(self._recent) >= _CHUNK:
                self.settling(index + 1, root_at(index + 1))()

    def settling(self, size: int, root: bytes) -> Callable[[], None]:
        """Work that writes what is in memory to the database, which then covers `size` entries.

        It may run in another thread, one at a time, while this one goes on.
        """
        self._settling, self._recent = self._recent, {}

        def work() -> None:
            with closing(_connect(self.path)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", sorted(self._settling.items()))
                database.execute("DELETE FROM extent")
                database.execute("INSERT INTO extent VALUES (?, ?)", (size, root))
                database.execute("COMMIT")
            self._settling = {}

        return work

    def reset(self) -> None:
        """Forget everything."""
        self._database.close()
        remove(self.path)
        self._recent.clear()
        self._settling.clear()
        self._database = self._open()

    def close(self) -> None:
        """Let go of the database; what is in memory is read from the log next time."""
        self._database.close()

    def _open(self) -> sqlite3.Connection:
        """The database, made anew when it is not one of ours."""
        try:
            return _prepared(self.path)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            remove(self.path)
            return _prepared(self.path)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the database itself is wrong, and not the disk full or the like."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _DAMAGE


def remove(path: Path) -> None:
    """Delete the database at `path` with its companions."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)  # whoever may open it could hold a read lock and so block the writer
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA synchronous = NORMAL")  # in WAL mode: consistent after a loss of power, if not complete
    return database


def _prepared(path: Path) -> sqlite3.Connection:
    """A connection to a database that has our tables."""
    database = _connect(path)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        if not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            database.executescript(_SCHEMA)
        database.execute("SELECT size, root FROM extent").fetchone()
        database.execute("SELECT position FROM seen LIMIT 1").fetchone()
    except BaseException:
        database.close()
        raise
    return database
