"""Where bundles rest: a directory, by evidence id. Its contents are untrusted.

Whoever can write the directory can delete a bundle or put another there. Neither helps: what is read is verified, and
a deleted bundle leaves its log entry behind, which the index reports as unresolved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mlseal.errors import MalformedEvidence, NoEvidence, Unreadable
from mlseal.evidence.bundle import Bundle

_SUFFIX = ".sigstore.json"
_HEX = re.compile(r"[0-9a-f]{64}")


class Store:
    """Bundles under ``ROOT/bundles/ab/cdef….sigstore.json``; any number of writers."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def path(self, evidence_id: str) -> Path:
        """Where the bundle of `evidence_id` rests, whether or not it exists."""
        if not _HEX.fullmatch(evidence_id):
            raise MalformedEvidence("not an evidence id", got=evidence_id[:80], expected="64 hex digits")
        return self.root / "bundles" / evidence_id[:2] / (evidence_id[2:] + _SUFFIX)

    def put(self, bundle: Bundle) -> Path:
        """Keep `bundle`; the first encoding of a piece of evidence stays. Whole or not at all."""
        path = self.path(bundle.evidence_id)
        if not path.exists():
            self._make_like_root(path.parent)
            bundle.write(path)
        return path

    def _make_like_root(self, folder: Path) -> None:
        """Make `folder` with the permissions of the store's root: a store opened to a group stays open to it."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            mode = self.root.stat().st_mode & 0o1777
            for part in (folder.parent, folder):
                if not part.exists():
                    part.mkdir(exist_ok=True)
                    part.chmod(mode)
        except OSError as error:
            raise Unreadable(
                f"cannot write to the store {self.root}", got=error.strerror, remedy="check space and permissions"
            ) from error

    def get(self, evidence_id: str) -> Bundle:
        """The bundle of `evidence_id`. Raises `NoEvidence` if absent, `MalformedEvidence` if it is another."""
        path = self.path(evidence_id)
        if not path.is_file():
            raise NoEvidence(
                f"the store {self.root} has no evidence {evidence_id[:16]}…", remedy="copy its bundle there"
            )
        bundle = Bundle.read(path)
        if bundle.evidence_id != evidence_id:
            raise MalformedEvidence(f"{path} holds other evidence", got=bundle.evidence_id, expected=evidence_id)
        return bundle

    def ids(self) -> Iterator[str]:
        """Evidence ids of all files that carry one in their name; contents unread."""
        for file in sorted(self.root.glob(f"bundles/??/*{_SUFFIX}")):
            name = file.parent.name + file.name.removesuffix(_SUFFIX)
            if _HEX.fullmatch(name):
                yield name


def resolve(explicit: str | os.PathLike[str] | None = None) -> Store:
    """The store in force: `explicit`, ``$MLSEAL_STORE``, else ``.mlseal/evidence`` here."""
    return Store(explicit or os.environ.get("MLSEAL_STORE") or Path(".mlseal") / "evidence")
