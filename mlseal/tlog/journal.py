"""The writer's journal: what makes an append durable with a single flush.

A log's checkpoint refers to several files in several directories; flushing each for every append would cost a dozen
disk round trips. Instead the batch and the checkpoint that it leads to are appended to one file, and one flush later
they cannot be lost. Tiles follow at leisure; until they have settled, recovery can write them from the journal.

    journal  = record*
    record   = length (4 bytes, big-endian) ‖ SHA-256(digest of the record before ‖ payload) ‖ payload
    payload  = length of the note (4 bytes) ‖ note ‖ entries, framed as in an entry bundle

The first record has no entries: its note is the settled checkpoint that the others build on. The digests chain, so
records cannot be reordered or taken from another place. The file is the writer's own and not part of what a log
publishes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from mlseal.errors import ForgedEvidence, MalformedEvidence
from mlseal.tlog.files import sync
from mlseal.tlog.tiles import join_entries, split_entries

_START = sha256(b"mlseal journal v1").digest()
_LENGTH = 4
_HEAD = _LENGTH + len(_START)


@dataclass(frozen=True)
class Record:
    """One batch: the entries appended and the signed note that they led to."""

    note: str
    entries: tuple[bytes, ...]


class Journal:
    """The journal of one log, open for appending. Made by `create` or `load`.

    Raises (all methods): `OSError` as the system gave it.
    """

    def __init__(self, path: Path, size: int, digest: bytes) -> None:
        self.path = path
        self.size = size
        """Bytes that are known to be good."""
        self._digest = digest
        self._handle = os.open(path, os.O_WRONLY)

    @classmethod
    def create(cls, path: Path, note: str, records: Sequence[Record] = ()) -> Journal:
        """A durable journal that starts from `note` and holds `records`, in place of the one there was."""
        fresh, size, digest = path.with_suffix(".new"), 0, _START
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)  # the writer's own; what a log publishes are its tiles
            for record in (Record(note, ()), *records):
                frame, digest = _frame(digest, record)
                size += file.write(frame)
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
        return cls(path, size, digest)

    @classmethod
    def load(cls, path: Path) -> tuple[Journal, list[Record]]:
        """The journal at `path` and its records, all durable.

        A last record that was cut short belongs to an append that nobody was told about; it is cut off.

        Raises:
            ForgedEvidence: a record that was durable has changed.
            MalformedEvidence: not a journal.
        """
        data = path.read_bytes()
        records, size, digest = _parse(data, path)
        journal = cls(path, size, digest)
        os.ftruncate(journal._handle, size)
        os.fsync(journal._handle)  # a record may be complete but not yet flushed: its writer died in between
        return journal, records

    def append(self, record: Record) -> None:
        """Append one record and flush it; on failure the file is as it was.

        Should even the cutting back fail, the record is complete or torn, and `load` deals with both.
        """
        frame, digest = _frame(self._digest, record)
        try:
            written = 0
            while written < len(frame):
                written += os.pwrite(self._handle, frame[written:], self.size + written)
            os.fdatasync(self._handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, self.size)
                os.fsync(self._handle)
            raise
        self.size += len(frame)
        self._digest = digest

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)


def _frame(before: bytes, record: Record) -> tuple[bytes, bytes]:
    note = record.note.encode()
    payload = len(note).to_bytes(_LENGTH, "big") + note + join_entries(record.entries)
    digest = sha256(before + payload).digest()
    return len(payload).to_bytes(_LENGTH, "big") + digest + payload, digest


def _parse(data: bytes, path: Path) -> tuple[list[Record], int, bytes]:
    records: list[Record] = []
    at, digest = 0, _START
    while at < len(data):
        start = at + _HEAD
        end = start + int.from_bytes(data[at : at + _LENGTH], "big")
        payload = data[start:end]
        expected = sha256(digest + payload).digest()
        if end > len(data) or data[at + _LENGTH : start] != expected:
            if end < len(data) and any(data[at:start]):
                raise ForgedEvidence(
                    f"the log's journal {path} was altered",
                    got=f"a broken record at byte {at} of {len(data)}",
                    expected="at most the last record incomplete",
                    remedy="restore the log's directory from a backup or mirror",
                )
            break
        records.append(_record(payload))
        at, digest = end, expected
    if not records:
        raise MalformedEvidence(f"{path} is not a log's journal", got=f"{len(data)} bytes without a whole first record")
    return records, at, digest


def _record(payload: bytes) -> Record:
    end = _LENGTH + int.from_bytes(payload[:_LENGTH], "big")
    return Record(payload[_LENGTH:end].decode(), tuple(split_entries(payload[end:])))
