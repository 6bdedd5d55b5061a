"""Opening a log for writing: what was durable is brought back, what contradicts it is refused.

The rule above all others: never sign a checkpoint that a checkpoint published before cannot precede. What the journal
holds was durable before any of it was published, and tiles are written only after the journal, so:

| found | it means | done |
|---|---|---|
| tiles torn or missing behind the settled size | power was lost before they settled | written again |
| an incomplete last journal record | its append was never acknowledged | cut off |
| published checkpoint older than the journal | killed before publishing, or the file was put back | published anew |
| published checkpoint newer than the journal | the journal was put back or lost entries | refused |
| tiles newer than the journal | journal and checkpoint were put back | refused |
| settled tiles that do not make the settled root | altered or damaged | refused |
| a note that is not signed by this log's key | not this log, or altered | refused |
| no journal, but a checkpoint whose tree is whole | a mirror's copy taken into use | goes on from it |

A directory that was put back as a whole, by restoring a snapshot, contradicts itself nowhere. Only those who
remember a later checkpoint can tell: verifiers that pin checkpoints, and witnesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlseal.errors import ForgedEvidence, MalformedEvidence, SplitView
from mlseal.tlog.checkpoint import Checkpoint
from mlseal.tlog.edge import Edge, Growth, read_edge
from mlseal.tlog.files import CHECKPOINT, LogFiles, sync
from mlseal.tlog.journal import Journal, Record
from mlseal.tlog.proofs import HashReader
from mlseal.tlog.tiles import TILE_WIDTH, tile_path

JOURNAL = "journal"
_RESTORE = "restore the log's directory from a backup or mirror that is whole; never sign on from this state"

OpenOwn = Callable[[str], Checkpoint]
"""Verifies a note as this log's own."""


@dataclass
class Recovered:
    """A log that is ready for its next entry."""

    edge: Edge
    root: bytes
    note: str
    journal: Journal
    settled: int
    """Size of the log that the journal starts from."""


def recover(files: LogFiles, open_own: OpenOwn, empty_note: Callable[[], str]) -> Recovered:
    """Bring the log in `files` to its last durable state, publish that, and return it.

    1. Read the published checkpoint and the journal; a new log gets an empty journal.
    2. Read the settled right edge and check that it makes the settled root.
    3. Replay the journal: its entries must make the root that was signed last, which commits to all of them.
    4. Check that nothing on disk is newer than the result, nor contradicts it.
    5. Write again what the journal covers, then publish.

    Raises:
        Refusal: see the table above.
        Unreadable: a settled tile is missing.
        OSError: the directory cannot be written.
    """
    # (1): what there is
    published = _published(files, open_own)
    journal, records = _journal(files, published, empty_note)
    try:
        # (2): the settled edge
        base = open_own(records[0].note)
        files.start_from(base.size)
        edge = read_edge(files, base.size, base.root)
        # (3): the batches
        growth = edge.grow([entry for record in records for entry in record.entries])
        last = open_own(records[-1].note)
        _refuse_mismatch(growth, last)
        # (4): nothing newer
        _refuse_newer(files, published, last)
        # (5): write, compare with what was published, publish
        for path, data in growth.files():
            files.write(path, data)
        if published is not None:
            _refuse_other(files, published, last)
        note = records[-1].note
        if published != last:
            files.publish(note)
    except BaseException:
        journal.close()
        raise
    return Recovered(growth.edge, last.root, note, journal, base.size)


def _published(files: LogFiles, open_own: OpenOwn) -> Checkpoint | None:
    try:
        data = files.read(CHECKPOINT)
    except FileNotFoundError:
        return None
    if not data.strip(b"\0"):
        return None  # its name reached the disk and its bytes did not; the journal knows what it said
    try:
        note = data.decode()
    except UnicodeDecodeError as error:
        raise MalformedEvidence(f"{files.path / CHECKPOINT} is not a signed note", remedy=_RESTORE) from error
    return open_own(note)


def _journal(
    files: LogFiles, published: Checkpoint | None, empty_note: Callable[[], str]
) -> tuple[Journal, list[Record]]:
    path = files.path / JOURNAL
    if path.exists():
        return Journal.load(path)
    if published is None:
        if (files.path / "tile").exists():
            raise ForgedEvidence(f"log {files.path} has tiles but neither checkpoint nor journal", remedy=_RESTORE)
        note = empty_note()
        sync(files.path.parent)
    else:
        note = files.read(CHECKPOINT).decode()
    return Journal.create(path, note), [Record(note, ())]


def _refuse_mismatch(growth: Growth, last: Checkpoint) -> None:
    """The settled tree and the journal's entries must make the checkpoint that was signed for them."""
    tree = growth.tree()
    if (tree.size, tree.root()) != (last.size, last.root):
        raise SplitView(
            "the entries in the journal do not make the root that was signed for them",
            got=f"{tree.root().hex()} at {tree.size}",
            expected=f"{last.root.hex()} at {last.size}",
            remedy=_RESTORE,
        )


def _refuse_newer(files: LogFiles, published: Checkpoint | None, last: Checkpoint) -> None:
    if published is not None and published.size > last.size:
        raise SplitView(
            "the log's journal is older than its published checkpoint",
            got=f"{last.size} entries",
            expected=f"at least {published.size}",
            remedy=_RESTORE,
        )
    for path in _behind(files.path, last.size):
        raise SplitView(
            "the log holds a tile newer than its last checkpoint",
            got=path.relative_to(files.path),
            expected=f"nothing behind {last.size} entries",
            remedy=_RESTORE,
        )


def _behind(root: Path, size: int) -> Iterator[Path]:
    """Tiles and bundles that a log of `size` entries cannot have yet: the next ones, full or partial."""
    n, width = divmod(size, TILE_WIDTH)
    for level in ("entries", 0):
        for following in (n, n + 1):
            full = root / tile_path(level, following)
            yield from [full] if full.exists() else []
            partial = full.with_name(f"{full.name}.p")
            widest = width if following == n else 0
            for path in partial.iterdir() if partial.is_dir() else ():
                if not path.name.isdigit() or int(path.name) > widest:
                    yield path


def _refuse_other(files: LogFiles, published: Checkpoint, last: Checkpoint) -> None:
    """The published checkpoint must begin the tree that goes on."""
    root = HashReader(files.read, last.size, last.root).prefix_root(published.size)
    if root != published.root:
        raise SplitView(
            "the published checkpoint is not part of this log",
            got=f"{published.root.hex()} at {published.size}",
            expected=root.hex(),
            remedy=_RESTORE,
        )
