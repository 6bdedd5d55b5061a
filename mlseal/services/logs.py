"""Appending to a log of this authority, with its failures told as what they are to a caller: not the caller's fault.

And asking a log what it holds, without its key: a log that a rotation retired takes nothing, but whoever was cut off
between logging and publishing must still get the proof of what it took.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from threading import Lock

from mlseal.errors import Refusal, ServiceUnavailable
from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.identities import IdentityOf
from mlseal.tlog.log import IDENTITIES
from mlseal.tlog.proofs import HashReader
from mlseal.tlog.tiles import DirectoryTiles, iter_entries
from mlseal.tlog.writer import Appended, LogWriter


def append(writer: LogWriter, body: bytes, identity: bytes) -> Appended:
    """Append `body` under `identity`, durable and public when this returns; see `LogWriter.append_all`.

    A log that contradicts itself raises `ServiceUnavailable` here: towards a client nothing was refused, the service
    cannot work until its operator looks. A full disk stays `Unchecked`.
    """
    try:
        return writer.append(body, identity)
    except Refusal as error:
        raise ServiceUnavailable(
            "the log does not reproduce what it signed and takes nothing more",
            got=str(error),
            remedy="its operator restores the log's directory",
        ) from error


class Held:
    """What the log in `directory` holds, by identity; reads only. Thread-safe.

    The writer's own map answers for the entries that it covers; the few behind it are read once.
    """

    def __init__(self, directory: Path, origin: str, key: bytes, identity_of: IdentityOf) -> None:
        self._map, self._tiles = directory / IDENTITIES, DirectoryTiles(directory)
        self._origin, self._key, self._identity_of = origin, key, identity_of
        self._lock = Lock()
        self._behind: dict[bytes, int] = {}
        self._read = -1  # entries that the map and `_behind` cover together; -1 before the first question

    def find(self, identity: bytes) -> Appended | None:
        """The entry that carries `identity`, with its proof; None if the log has none."""
        note = self._tiles.read("checkpoint").decode("utf-8")
        checkpoint = open_note(note, self._origin, self._key)
        index = self._index(identity, checkpoint.size)
        if index is None or index >= checkpoint.size:
            return None
        reader = HashReader(self._tiles.read, checkpoint.size, checkpoint.root)
        _, entry = next(iter_entries(self._tiles, checkpoint.size, index))
        reader.check_entry(index, entry)
        if self._identity_of(entry) != identity:
            return None
        return Appended(index, checkpoint.size, checkpoint.root, reader.inclusion(index), note, entry, duplicate=True)

    def _index(self, identity: bytes, size: int) -> int | None:
        covered, index = self._mapped(identity)
        if index is not None:
            return index
        with self._lock:
            start = covered if self._read < 0 else self._read
            for position, entry in iter_entries(self._tiles, size, start) if start < size else ():
                self._behind.setdefault(self._identity_of(entry), position)
            self._read = max(start, size)
            return self._behind.get(identity)

    def _mapped(self, identity: bytes) -> tuple[int, int | None]:
        """How many entries the writer's map covers, and where it knows `identity`; nothing if there is no map."""
        try:
            with closing(sqlite3.connect(f"{self._map.as_uri()}?mode=ro", uri=True)) as database:
                found = database.execute("SELECT position FROM seen WHERE identity = ?", (identity,)).fetchone()
                extent = database.execute("SELECT size FROM extent").fetchone()
        except sqlite3.Error:
            return 0, None
        return int(extent[0]) if extent else 0, int(found[0]) if found else None


@lru_cache(maxsize=64)
def held(directory: Path, origin: str, key: bytes, identity_of: IdentityOf) -> Held:
    """The one `Held` of a log in this process."""
    return Held(directory, origin, key, identity_of)
