"""Outputs kept by digest, so that evidence about them can serve again.

A copy is worth no more than its bytes: whoever takes one names a digest that verified evidence states, gets a fresh
copy, and the copy is hashed before anybody sees it. A spoilt or missing one is as good as none. The folder may be
emptied at any time.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from mlseal.errors import Error
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.store import BundleStore
from mlseal.stages.context import copy
from mlseal.stages.workspace import remove


class Kept:
    """Files and directories under ``STORE/outputs/ab/cdef…``; any number of writers.

    Those of a store in a bucket lie in this user's cache: what is large is not sent around in the hope of another time.
    """

    def __init__(self, store: BundleStore) -> None:
        self._root = store.outputs

    def path(self, sha256: str) -> Path:
        """Where the output of that digest rests, whether or not it is there."""
        return self._root / sha256[:2] / sha256[2:]

    def put(self, measured: Measured) -> None:
        """Keep a copy of what was measured, unless it is there. Raises `Unreadable` or `OSError`; then none is kept."""
        final = self.path(measured.sha256)
        if final.exists():
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".new-") as directory:
            fresh = Path(directory) / "output"
            copy(measured, fresh)
            if measure(fresh).sha256 == measured.sha256:
                with contextlib.suppress(OSError):  # a neighbour was faster: the same bytes
                    fresh.rename(final)

    def take(self, sha256: str, target: Path) -> bool:
        """Write a copy of the output of that digest to the new path `target`; whether it has that digest.

        After False nothing is at `target`, and a copy that did not have its digest is no longer kept.
        """
        kept = self.path(sha256)
        if not kept.exists():
            return False
        with contextlib.suppress(Error):
            copy(measure(kept), target)
            if measure(target).sha256 == sha256:
                return True
        for spoilt in (target, kept):
            remove(spoilt)
        return False
