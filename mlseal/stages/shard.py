"""A part of a stage's work: which of how many, and what of the input belongs to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse, RuleBroken
from mlseal.evidence.digest import FileEntry, Manifest, Measured

MOST = 500
"""Evidence of the whole names every part by its id, and stays below 64 kB."""


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`. Every item of the input belongs to exactly one, by its place in the input."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MOST:
            raise Misuse(
                "there is no such shard",
                got=str(self),
                expected=f"such as 1/4: from 1 to the count, at most {MOST}",
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``2/4`` names. Raises `Misuse`."""
        if not (match := re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)):
            raise Misuse("this is no shard", got=text[:40], expected="such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def owns(self, place: int) -> bool:
        """Whether the item at `place` (from 0) belongs to this shard."""
        return place % self.count == self.index - 1

    def files(self, measured: Measured) -> tuple[FileEntry, ...]:
        """The files of a directory that belong to this shard, in manifest order. Raises `Misuse` for a single file."""
        if measured.manifest is None:
            raise Misuse(f"{measured.name} is one file", expected="a directory, whose files are divided")
        return tuple(entry for place, entry in enumerate(measured.manifest.files) if self.owns(place))

    def part(self, measured: Measured) -> str:
        """SHA-256 of what belongs to this shard: the manifest of its files; of one file its digest and the shard."""
        if measured.manifest is None:
            return hashlib.sha256(f"{measured.sha256} {self}\n".encode()).hexdigest()
        return Manifest(self.files(measured)).sha256


@dataclass(frozen=True)
class Found:
    """What one shard found, verified: its fields as signed, and a private copy of each thing that it made.

    Attributes:
        shard: which part this is.
        fields: of the part's finding.
        made: output name → a copy whose digest is the one that the part states.
    """

    shard: Shard
    fields: Mapping[str, Any]
    made: Mapping[str, Path]

    def require_all(self, looked_at: int, measured: Measured) -> None:
        """Raise `RuleBroken` unless the part looked at as many files as are its share of `measured`."""
        share = len(self.shard.files(measured))
        if looked_at != share:
            raise RuleBroken(f"part {self.shard} did not look at all of its files", got=looked_at, expected=share)


def missing(shards: Sequence[Shard], count: int) -> list[int]:
    """Indices from 1 to `count` that are not among `shards`."""
    return sorted(set(range(1, count + 1)) - {shard.index for shard in shards})
