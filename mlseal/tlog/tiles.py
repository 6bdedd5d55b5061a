"""Where the parts of a log lie and how entries are framed (https://c2sp.org/tlog-tiles).

A tile holds up to 256 hashes of one level; level L counts subtrees of 256**L leaves. An entry bundle holds the
entries of one level-0 tile, each behind its length in two bytes. A partial tile's name ends in its width, so a
file, once published under a name, never changes.

Reading here checks framing only. What the entries are worth is for `proofs.HashReader` and `proofs.checked_entries`
to say, which compare them with a signed root.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, Unreadable

TILE_HEIGHT = 8
"""Rows of the tree in one tile."""

TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes in a full tile, entries in a full bundle."""

MAX_ENTRY = 0xFFFF
"""Largest entry in bytes: its length is written as an unsigned 16-bit number."""

_LENGTH_SIZE = 2
_GROUP = 1000
_PATH = re.compile(r"checkpoint|tile/(?:entries|0|[1-9][0-9]?)/(?:x[0-9]{3}/)*[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?")


class TileSource(Protocol):
    """Anything that hands out a log's files by their tlog-tiles paths: a directory, an HTTP origin, an archive."""

    def read(self, path: str) -> bytes:
        """The bytes at `path`; raises `FileNotFoundError` if there are none."""
        ...


class DirectoryTiles:
    """A log in a directory, as `writer.LogWriter` leaves it and as a static web server publishes it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self, path: str) -> bytes:
        """The bytes at `path`.

        Guarantees: only paths that tlog-tiles defines are opened, so a path taken from a request cannot leave the
        directory, nor reach the writer's own files.

        Raises:
            FileNotFoundError: no such file, or no such path in any log.
            Unreadable: the file exists and cannot be read.
        """
        if _PATH.fullmatch(path) is None:
            raise FileNotFoundError(f"not a path of a tile log: {path[:100]!r}")
        try:
            return (self.path / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(f"no {path} in {self.path}") from None
        except OSError as error:
            raise Unreadable(f"log file {self.path / path} cannot be read", got=error.strerror) from error


def tile_path(level: int | str, n: int, width: int = TILE_WIDTH) -> str:
    """Path of tile `n` at `level`; `width` below 256 names the partial tile."""
    n, last = divmod(n, _GROUP)
    path = f"{last:03d}"
    while n:
        n, group = divmod(n, _GROUP)
        path = f"x{group:03d}/{path}"
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{path}{suffix}"


def entries_path(n: int, width: int = TILE_WIDTH) -> str:
    """Path of entry bundle `n`; `width` below 256 names the partial bundle."""
    return tile_path("entries", n, width)


def join_entries(entries: Iterable[bytes]) -> bytes:
    """The entries as bundle bytes, each behind its big-endian 16-bit length.

    Raises:
        Misuse: an entry is longer than `MAX_ENTRY`.
    """
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY:
            raise Misuse(
                "entry is too large for the log",
                got=f"{len(entry)} bytes",
                expected=f"at most {MAX_ENTRY}",
                remedy="keep bulk beside the evidence and refer to it by digest",
            )
        parts += (len(entry).to_bytes(_LENGTH_SIZE, "big"), entry)
    return b"".join(parts)


def split_entries(data: bytes) -> list[bytes]:
    """The entries in a bundle's bytes.

    Raises:
        MalformedEvidence: the bytes end inside an entry or its length.
    """
    entries = []
    at, end = 0, len(data)
    while at < end:
        start = at + _LENGTH_SIZE
        at = start + int.from_bytes(data[at:start], "big")
        if at > end or start > end:
            raise MalformedEvidence(
                "entry bundle ends inside an entry", got=f"{end} bytes", expected=f"at least {max(at, start)}"
            )
        entries.append(data[start:at])
    return entries


def read_tile(source: TileSource, level: int | str, n: int, width: int) -> tuple[bytes, bool]:
    """Bytes of the tile of `width`, or of the full tile that has replaced it; the flag says that it is the full one.

    tlog-tiles lets a log delete a partial tile once the full one exists, and tells clients to fall back to it.

    Raises:
        FileNotFoundError: neither exists.
    """
    try:
        return source.read(tile_path(level, n, width)), width == TILE_WIDTH
    except FileNotFoundError:
        if width == TILE_WIDTH:
            raise
        return source.read(tile_path(level, n)), True


def read_bundle(source: TileSource, n: int, width: int) -> list[bytes]:
    """The first `width` entries of bundle `n`.

    Raises:
        FileNotFoundError: the source has neither the partial nor the full bundle.
        ForgedEvidence: the bundle holds another number of entries than its name says.
    """
    data, full = read_tile(source, "entries", n, width)
    entries = split_entries(data)
    named = TILE_WIDTH if full else width
    if len(entries) != named:
        raise ForgedEvidence(
            f"{entries_path(n, named)} holds a wrong number of entries", got=len(entries), expected=named
        )
    return entries[:width]


def iter_entries(source: TileSource, size: int, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of each entry from `start` up to `size`, unchecked against any root.

    One bundle is held at a time. Use `proofs.checked_entries` where the source is not trusted.

    Raises:
        Unreadable: the source lacks a bundle that a log of `size` entries must have.
        ForgedEvidence, MalformedEvidence: a bundle is not what its name says.
    """
    for n in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        first = n * TILE_WIDTH
        width = min(TILE_WIDTH, size - first)
        try:
            bundle = read_bundle(source, n, width)
        except FileNotFoundError as error:
            raise missing_part(entries_path(n, width), size) from error
        for index in range(max(start, first), first + width):
            yield index, bundle[index - first]


def missing_part(path: str, size: int) -> Unreadable:
    """The error for a file that a log of `size` entries must have and its source does not."""
    return Unreadable(
        f"the log's {path} is missing",
        expected=f"a file of a log with {size} entries",
        remedy="restore it from a mirror",
    )
