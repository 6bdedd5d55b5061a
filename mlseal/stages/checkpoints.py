"""Where a long stage rests what it has so far, so that a run that was stopped goes on instead of beginning again.

    STATE/checkpoints/KEY/   0700, one for each stage, version, configuration and input digests (the key of reuse)
        lock       held by the run that uses them
        record     digest of the newest checkpoint, and the key
        newest/    the checkpoint

Another input, setting, seed or version has another key, so what belongs to it is never found. What is loaded is a fresh
copy that has the recorded digest; a spoilt one is thrown away, and the stage begins anew. A directory that others can
read or write is refused. It holds what the stage computed from the data, so it is removed when the stage is done; what
a run left that nobody takes up again, ``rm -r`` of the directory removes.

Evidence of a run that went on says so (``harness.resumed``). That the part before was computed by the same program from
the same bytes is this account's word: whoever can write here as this user can put another checkpoint here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from mlseal.errors import Error, Misuse, Unchecked
from mlseal.evidence import canonical, paths
from mlseal.evidence.digest import measure
from mlseal.evidence.predicates.base import Harness
from mlseal.stages.workspace import remove


class Checkpoints:
    """The checkpoints of one question; used by one run at a time. Made by `opened`."""

    def __init__(self, root: Path, key: str, workspace: Path, log: Callable[[str], None]) -> None:
        self._root, self._key, self._workspace, self._log = root, key, workspace, log
        self.resumed = False

    def load(self) -> Path | None:
        """A private copy of the newest checkpoint, proven to be what was saved; None if there is none to go on from."""
        record, newest = self._root / "record", self._root / "newest"
        if not record.exists():
            return None
        target = self._workspace / f"checkpoint-{secrets.token_hex(4)}"
        try:
            said = canonical.parse(record.read_bytes(), what="the record of a checkpoint")
            if not newest.is_symlink() and isinstance(said, dict) and said.get("key") == self._key:
                shutil.copytree(newest, target, symlinks=True)
                if measure(target).sha256 == said.get("sha256"):
                    self.resumed = True
                    return target
        except (OSError, Error) as error:
            self._log(f"the checkpoint cannot be read: {error}")
        self._log("the checkpoint is not what was saved; the stage begins anew")
        remove(target)
        self.clear()
        return None

    def save(self, fill: Callable[[Path], None]) -> None:
        """Keep what `fill` writes into the new directory that it is given, in place of what was kept before.

        Killed at any moment, the one before or this one is whole, or none is. Raises what `fill` raises.
        """
        fresh = self._root / f"new-{secrets.token_hex(6)}"
        fresh.mkdir(mode=0o700)
        try:
            fill(fresh)
            record = canonical.dumps({"key": self._key, "sha256": measure(fresh).sha256})
            written = self._root / f"{fresh.name}.record"
            written.write_bytes(record)
            remove(self._root / "record")  # between here and the end there is none: a mixture would be worse
            remove(self._root / "newest")
            fresh.rename(self._root / "newest")
            written.rename(self._root / "record")
        finally:
            remove(fresh)

    def clear(self) -> None:
        """Forget what was kept."""
        for entry in self._root.iterdir():
            if entry.name != "lock":
                remove(entry)


def key_of(harness: Harness) -> str:
    """The question: stage, version, provider, configuration, inputs with their digests, seed."""
    said = {key: value for key, value in harness.to_json().items() if key not in {"libraries", "resumed"}}
    return hashlib.sha256(canonical.dumps(said)).hexdigest()


@contextlib.contextmanager
def opened(harness: Harness, workspace: Path, log: Callable[[str], None]) -> Iterator[Checkpoints]:
    """The checkpoints of the run that `harness` describes, held for the block; forgotten if it ends well.

    Raises `Misuse` for a directory that others can use, and `Unchecked` when another run holds them.
    """
    key = key_of(harness)
    root = paths.state_dir() / "checkpoints" / key
    for directory in (root.parent, root):
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        what = directory.lstat()
        if directory.is_symlink() or what.st_uid != os.getuid() or what.st_mode & 0o077:
            raise Misuse(
                f"others can use the checkpoints in {directory}",
                got=f"mode {what.st_mode & 0o777:o}, owner {what.st_uid}",
                expected=f"a directory of mode 700 of user {os.getuid()}",
                remedy=f"look at what lies there, then remove it: rm -r {directory}",
            )
    handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise Unchecked(
            "another run of the same stage, settings and inputs uses the checkpoints",
            expected="one at a time",
            remedy="wait for it, or run without --resume",
        ) from error
    try:
        held = Checkpoints(root, key, workspace, log)
        yield held
        held.clear()
    finally:
        os.close(handle)
