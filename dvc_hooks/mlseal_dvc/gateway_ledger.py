"""What the gateway remembers about verified evidence: which bundle lists a digest, which one is about a directory.

A hint, not a permission: before a row admits anything, its bundle has been verified by this process within the last
minutes, from the bytes in the store (`gateway_admission`). So a lost ledger only makes the gateway ask for the evidence
again, which every push does by reading it first; and a withdrawn bundle admits nothing any more.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlseal.errors import Unreadable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bundle (id INTEGER PRIMARY KEY, name TEXT UNIQUE, oid TEXT, raw TEXT);
CREATE INDEX IF NOT EXISTS bundle_oid ON bundle (oid);
CREATE TABLE IF NOT EXISTS listed (sha256 BLOB, bundle INTEGER, PRIMARY KEY (sha256, bundle)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS listed_bundle ON listed (bundle);
CREATE TABLE IF NOT EXISTS stored (oid TEXT PRIMARY KEY, sha256 BLOB) WITHOUT ROWID;
"""


class Ledger:
    """A database in the gateway's state directory; used by all threads of one process."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.Lock()
        with _readable(file):
            self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(_SCHEMA)
        self._file = file

    def note(self, name: str, oid: str, raw_sha256: str, listed: Iterable[str]) -> None:
        """A verified bundle at `name`, about the object `oid`, lists these SHA-256 digests. Replaces what was noted."""
        with self._use() as database:
            database.execute("BEGIN")
            self._drop(database, name)
            row = database.execute("INSERT INTO bundle (name, oid, raw) VALUES (?, ?, ?)", (name, oid, raw_sha256))
            rows = ((bytes.fromhex(sha256), row.lastrowid) for sha256 in listed)
            database.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?)", rows)
            database.execute("COMMIT")

    def known(self, name: str) -> str | None:
        """SHA-256 of the bundle noted under `name`."""
        with self._use() as database:
            row = database.execute("SELECT raw FROM bundle WHERE name = ?", (name,)).fetchone()
            return str(row[0]) if row else None

    def forget(self, name: str) -> None:
        """`name` lists nothing any more."""
        with self._use() as database:
            database.execute("BEGIN")
            self._drop(database, name)
            database.execute("COMMIT")

    def listing(self, sha256: str) -> list[str]:
        """Names of bundles that list this digest, newest first."""
        query = "SELECT name FROM listed JOIN bundle ON bundle.id = listed.bundle WHERE sha256 = ? ORDER BY id DESC"
        with self._use() as database:
            return [str(row[0]) for row in database.execute(query, (bytes.fromhex(sha256),))]

    def about(self, oid: str) -> list[str]:
        """Names of bundles about this object, newest first."""
        with self._use() as database:
            return [
                str(r[0]) for r in database.execute("SELECT name FROM bundle WHERE oid = ? ORDER BY id DESC", (oid,))
            ]

    def store(self, oid: str, sha256: str) -> None:
        """The object is in the store with these bytes."""
        with self._use() as database:
            database.execute("INSERT OR REPLACE INTO stored VALUES (?, ?)", (oid, bytes.fromhex(sha256)))

    def stored(self, oids: Iterable[str]) -> dict[str, str]:
        """Object id → SHA-256 of those that passed this gateway."""
        with self._use() as database:
            found = {}
            for oid in oids:
                row = database.execute("SELECT sha256 FROM stored WHERE oid = ?", (oid,)).fetchone()
                if row:
                    found[oid] = row[0].hex()
            return found

    def close(self) -> None:
        """End the use of the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _readable(self._file):
            try:
                yield self._database
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    @staticmethod
    def _drop(database: sqlite3.Connection, name: str) -> None:
        database.execute("DELETE FROM listed WHERE bundle IN (SELECT id FROM bundle WHERE name = ?)", (name,))
        database.execute("DELETE FROM bundle WHERE name = ?", (name,))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unreadable(
            f"the gateway's ledger {file} cannot be used",
            got=str(error),
            remedy="free space, or remove it: it is made anew",
        ) from error
