"""Subject → predicate type → log leaf → bundle, rebuilt from the log by whoever judges.

The index belongs to the verifier and lies in its own state directory; the log and the store are untrusted. Each update
reads only what is new and performs:

1. Read the log's checkpoint and check its signature; it must be consistent with the one pinned before.
2. Read the new entries and extend the tree of the entries read so far; the root must be the checkpoint's root. So what
   was indexed is the log, entry by entry, and nothing was left out.
3. Look for the bundle of each new or still unresolved leaf in the store, by evidence id, and note its subjects. A store
   that gives no answer ends the update; what came until then is kept.

A leaf without a bundle stays *unresolved*: somebody signed something that is not shown. A failed test cannot be made to
disappear by deleting its bundle.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlseal.errors import Error, ForgedEvidence, Unchecked
from mlseal.evidence import paths
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.identity import Identity
from mlseal.evidence.leaves import Leaf, parse_leaf
from mlseal.evidence.statement import Statement
from mlseal.evidence.store import BundleStore, Progress, quiet
from mlseal.evidence.trust import LogKey
from mlseal.tlog.checkpoint import open_note
from mlseal.tlog.proofs import EMPTY_ROOT, leaf_hash, node_hash
from mlseal.tlog.tiles import TileSource, iter_entries

_SCHEMA = """
create table if not exists log(origin text primary key, size int, frontier blob) without rowid;
create table if not exists leaf(origin text, position int, evidence_id text, issuer text, san text, resolved int,
  primary key(origin, position)) without rowid;
create index if not exists leaf_evidence on leaf(evidence_id);
create index if not exists leaf_open on leaf(resolved) where resolved = 0;
create table if not exists subject(sha256 text, predicate_type text, evidence_id text,
  primary key(sha256, predicate_type, evidence_id)) without rowid;
create index if not exists subject_type on subject(predicate_type);
"""
_BATCH = 4096


class Index:
    """The index of one store under one trust root.

    Args:
        file: the database, in this user's state directory; deleting it costs a rebuild, nothing else.
        store: where bundles are looked for.
        checkpoints: what this verifier pinned.
    """

    def __init__(self, file: Path, store: BundleStore, checkpoints: PinnedCheckpoints) -> None:
        self._store, self._checkpoints = store, checkpoints
        paths.private(file.parent)
        self._db = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database. An index that is dropped closes itself; who shares one between threads closes it."""
        if (database := getattr(self, "_db", None)) is not None:
            database.close()

    def __del__(self) -> None:
        self.close()

    def update(self, log: LogKey, tiles: TileSource, progress: Progress = quiet) -> int:
        """Bring the index up to the log's checkpoint and return its tree size.

        Raises `SplitView` or `ForgedEvidence` when the log is not the one indexed before, `Unchecked` when it cannot be
        read; then nothing of this update is kept. Raises `ServiceUnavailable` when the store gives no answer; then the
        leaves that it was asked about stay unresolved.
        """
        try:
            note = tiles.read("checkpoint").decode("utf-8")
            checkpoint = open_note(note, log.origin, log.public_key)
            self._checkpoints.require_consistent(log, note, tiles)  # (1)
            with self._writing():
                size = self._extend(log, checkpoint.size, checkpoint.root, tiles)  # (2)
            self._resolve(log.origin, progress)  # (3)
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise Unchecked(
                f"log {log.origin} cannot be read",
                got=str(error)[:120],
                remedy="make the log or a copy of its tiles reachable",
            ) from error
        except sqlite3.Error as error:
            raise Unchecked(
                "the index cannot be written",
                got=str(error),
                remedy="check space and permissions of the state directory",
            ) from error
        return size

    def find(self, sha256s: Collection[str], predicate_types: Collection[str]) -> list[str]:
        """Evidence ids of all bundles that name any of the digests, of these types, in log order."""
        return self._ids("s.sha256", sha256s, predicate_types)

    def about(self, sha256s: Collection[str]) -> list[str]:
        """Evidence ids of all bundles that name any of the digests, of whatever type, in log order."""
        return self._ids("s.sha256", sha256s, None)

    def of_type(self, predicate_types: Collection[str]) -> list[str]:
        """Evidence ids of all bundles of these types, in log order."""
        return self._ids(None, (), predicate_types)

    def unresolved(self) -> list[Leaf]:
        """Leaves up to the indexed tree size whose bundle the store does not hold."""
        rows = self._db.execute(
            "select origin, position, evidence_id, issuer, san from leaf where resolved = 0 order by 1, 2"
        )
        return [
            Leaf(origin, position, evidence_id, Identity(issuer, san))
            for origin, position, evidence_id, issuer, san in rows
        ]

    def size(self, origin: str) -> int:
        """How many entries of a log are indexed."""
        row = self._db.execute("select size from log where origin = ?", (origin,)).fetchone()
        return int(row[0]) if row else 0

    def leaves(self, origin: str | None = None, start: int = 0) -> Iterator[Leaf]:
        """Every indexed leaf, or those of one log from position `start` on, in log order."""
        for where, position, evidence_id, issuer, san in self._db.execute(
            "select origin, position, evidence_id, issuer, san from leaf"
            " where origin = coalesce(?, origin) and position >= ? order by 1, 2",
            (origin, start),
        ):
            yield Leaf(where, position, evidence_id, Identity(issuer, san))

    def ids(self, prefix: str = "") -> Iterator[str]:
        """Evidence ids of all leaves that begin with `prefix`, once each, sorted."""
        query = "select distinct evidence_id from leaf where evidence_id >= ? and evidence_id < ? order by 1"
        for (evidence_id,) in self._db.execute(query, (prefix, prefix + "g")):  # "g" comes after every hex digit
            yield str(evidence_id)

    def resolved(self) -> bool:
        """Whether the store ever showed the bundle of any indexed leaf."""
        return self._db.execute("select 1 from leaf where resolved = 1 limit 1").fetchone() is not None

    def leaf(self, evidence_id: str) -> Leaf | None:
        """The first leaf of this evidence."""
        row = self._db.execute(
            "select origin, position, issuer, san from leaf where evidence_id = ? order by origin, position",
            (evidence_id,),
        ).fetchone()
        return Leaf(row[0], row[1], evidence_id, Identity(row[2], row[3])) if row else None

    def _ids(self, column: str | None, values: Collection[str], types: Collection[str] | None) -> list[str]:
        where = "1" if types is None else f"s.predicate_type in ({_marks(types)})"
        where += f" and {column} in ({_marks(values)})" if column else ""
        query = (
            "select distinct s.evidence_id, l.origin, l.position from subject s"  # noqa: S608 -- only "?" marks are spliced in
            f" join leaf l on l.evidence_id = s.evidence_id where {where} order by l.origin, l.position"
        )
        rows = self._db.execute(query, (*(types or ()), *values))
        return list(dict.fromkeys(str(row[0]) for row in rows))

    def _extend(self, log: LogKey, size: int, root: bytes, tiles: TileSource) -> int:
        row = self._db.execute("select size, frontier from log where origin = ?", (log.origin,)).fetchone()
        start, frontier = (row[0], _unpack(row[1])) if row else (0, [])
        if size < start:
            return int(start)  # an older checkpoint, proved consistent by (1); what is indexed reaches further
        rows: list[tuple[str, int, str, str, str]] = []
        for position, body in iter_entries(tiles, size, start):
            _push(frontier, position, leaf_hash(body))
            leaf = parse_leaf(log.origin, position, body)
            rows.append((leaf.origin, leaf.index, leaf.evidence_id, leaf.identity.issuer, leaf.identity.san))
            if len(rows) == _BATCH:
                self._insert(rows)
        self._insert(rows)
        if _root(frontier) != root:
            raise ForgedEvidence(
                f"the entries of log {log.origin} do not make its signed tree",
                got=_root(frontier).hex()[:16],
                expected=root.hex()[:16],
                remedy="keep a copy and tell the log's operator",
            )
        self._db.execute("insert or replace into log values(?,?,?)", (log.origin, size, b"".join(frontier)))
        return size

    def _insert(self, rows: list[tuple[str, int, str, str, str]]) -> None:
        self._db.executemany("insert into leaf values(?,?,?,?,?,0)", rows)
        rows.clear()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All of the block or nothing of it."""
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")

    def _resolve(self, origin: str, progress: Progress) -> None:
        """Note what the store shows of the open leaves. It is asked outside of any write: it may be slow."""
        rows = self._db.execute("select distinct evidence_id from leaf where resolved = 0 and origin = ?", (origin,))
        still = [str(evidence_id) for (evidence_id,) in rows.fetchall()]
        shown: list[Statement] = []
        try:
            for _, found in self._store.fetch(still, progress) if still else ():
                if not isinstance(found, Error):  # a file that is not this evidence resolves nothing
                    shown.append(found.statement)
        finally:
            if shown:
                self._note(origin, shown)

    def _note(self, origin: str, shown: Iterable[Statement]) -> None:
        with self._writing():
            for said in shown:
                self._db.executemany(
                    "insert or ignore into subject values(?,?,?)",
                    [(subject.sha256, said.predicate_type, said.evidence_id) for subject in said.subjects],
                )
                self._db.execute(
                    "update leaf set resolved = 1 where origin = ? and evidence_id = ?", (origin, said.evidence_id)
                )


def _marks(values: Iterable[str]) -> str:
    return ",".join("?" for _ in values)


def _push(frontier: list[bytes], position: int, leaf: bytes) -> None:
    """Add the leaf at `position` to the roots of the complete subtrees on the right edge (RFC 6962, 2.1)."""
    while position & 1:
        leaf = node_hash(frontier.pop(), leaf)
        position >>= 1
    frontier.append(leaf)


def _root(frontier: list[bytes]) -> bytes:
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def _unpack(data: bytes) -> list[bytes]:
    return [data[i : i + 32] for i in range(0, len(data), 32)]
