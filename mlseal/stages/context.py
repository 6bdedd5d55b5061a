"""What the runner lends to a stage while it runs: where it runs, what was measured, whom to tell, when to stop."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import DigestMismatch, Unreadable
from mlseal.evidence.clock import Clock, rfc3339
from mlseal.evidence.digest import FileEntry, Manifest, Measured, measure
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.evidence.planning import Asking
from mlseal.evidence.predicates.base import Harness
from mlseal.stages.cancellation import Cancellation
from mlseal.stages.checkpoints import Checkpoints
from mlseal.stages.shard import Found, Shard

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive


@dataclass(frozen=True)
class Context:
    """What the runner lends to a stage while it runs.

    Attributes:
        run_id: of the pipeline run or invocation.
        clock: the injected clock.
        started_on: when the runner began, RFC 3339.
        measured: input name → what the runner hashed.
        workspace: a directory of mode 0700, removed afterwards.
        harness_base: name, version, provider and configuration digest of this stage.
        log: shows a line to the person who waits.
        show: shows how far it is: done, of how many (None if nobody knows), of what.
        cancellation: whether the run is to stop.
        archive: opens the verified evidence at hand; raises when no trust is configured.
        naming: how names of files are written in evidence; subjects are written so without a stage's doing.
        asking: what it takes to ask the owners of parts of an input; the inputs as a whole are cleared already.
        checkpoints: where a stage that says `resumable` keeps what it has so far; None unless that was asked for.
        shard: the part that a stage with `merge` looks at; None for all of it.
        parts: what all shards found, in their order, where a stage that merges by itself is to do that instead of
            looking at anything; None otherwise.
    """

    run_id: str
    clock: Clock
    started_on: str
    measured: Mapping[str, Measured]
    workspace: Path
    harness_base: Harness
    log: Callable[[str], None]
    archive: Callable[[], Archive]
    naming: Naming = PLAIN
    show: Callable[[int, int | None, str], None] = lambda *_: None
    cancellation: Cancellation = field(default_factory=Cancellation)
    asking: Asking = field(default_factory=Asking)
    checkpoints: Checkpoints | None = None
    shard: Shard | None = None
    parts: tuple[Found, ...] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop; a stage that waits for others looks at it."""
        return self.cancellation.asked

    def check(self) -> None:
        """Raise `Cancelled` if somebody asked the run to stop."""
        self.cancellation.check()

    def progress(self, done: int, total: int | None, what: str) -> None:
        """Say how far the stage is, such as ``progress(3, 20, "epochs")``; raises `Cancelled` like `check`.

        Cheap enough for every step of a loop. `what` is a word of the stage's own, never one of the data.
        """
        self.cancellation.check()
        self.show(done, total, what)

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once when the run is stopped or ends: it ends a server or children of the stage."""
        self.cancellation.on_cancel(callback)

    def harness(self, libraries: Mapping[str, str]) -> Harness:
        """The harness of this run, with the libraries that measured."""
        resumed = {"resumed": True} if self.checkpoints is not None and self.checkpoints.resumed else {}
        return self.harness_base.model_copy(update={"libraries": dict(libraries), **resumed})

    def now(self) -> str:
        """The time, RFC 3339."""
        return rfc3339(self.clock())

    def resource(self, name: str) -> dict[str, Any]:
        """Input `name` as evidence names it: by the digest that binds all of it, a directory's by its manifest."""
        measured = self.measured[name]
        return {"name": self.naming.subject(measured.subjects[-1].name), "digest": {"sha256": measured.sha256}}

    def private_copy(self, name: str) -> Path:
        """A copy of input `name` in the workspace, proven equal to what the runner measured.

        What is loaded or executed is the copy, so that nobody can swap the original between hashing and use.
        Raises `DigestMismatch` when the original changed in between.
        """
        original = self.measured[name]
        target = self.workspace / name / original.name
        if not target.exists():
            target.parent.mkdir(mode=0o700)
            copy(original, target)
            require_unchanged(name, original, measure(target, name=original.name))
        return target

    def share(self, name: str) -> tuple[FileEntry, ...]:
        """The files of directory `name` that this run looks at: its shard's, all without one, none where it merges.

        Raises `Misuse` for a single file, which is not divided.
        """
        measured = self.measured[name]
        if self.shard is not None:
            return self.shard.files(measured)
        return () if self.parts is not None or measured.manifest is None else measured.manifest.files

    def private_files(self, name: str, wanted: Collection[FileEntry]) -> Path:
        """`private_copy` of no more than the `wanted` files of directory `name`, each at its place in it."""
        original = self.measured[name]
        target = self.workspace / f"{name}-files" / original.name
        target.mkdir(parents=True, mode=0o700)
        chosen = set(wanted)
        only = tuple(entry for entry in original.manifest.files if entry in chosen) if original.manifest else ()
        for entry in only:
            _copy(original.path / entry.path, target / entry.path)
        if any(entry.size for entry in only):  # files without content alone are not measured
            require_same(name, Manifest(only).sha256, measure(target).sha256)
        return target

    def private_file(self, name: str, entry: str) -> Path:
        """A proven copy of one file of directory `name`; `entry` is its path in the manifest, "" for a file input."""
        original = self.measured[name]
        if original.manifest is None or not entry:
            return self.private_copy(name)
        expected = next(file.sha256 for file in original.manifest.files if file.path == entry)
        target = self.workspace / f"{name}-file" / Path(entry).name
        _copy(original.path / entry, target)
        require_same(f"{name}/{entry}", expected, measure(target).sha256)
        return target


def copy(measured: Measured, target: Path) -> None:
    """Copy exactly the files that were measured; the caller measures the copy. Raises `Unreadable`."""
    for entry in measured.manifest.files if measured.manifest else [None]:
        _copy(measured.path / entry.path if entry else measured.path, target / entry.path if entry else target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise Unreadable(f"cannot copy {source}", got=error.strerror, remedy="check space and permissions") from error


def require_unchanged(name: str, before: Measured, after: Measured) -> None:
    """Raise `DigestMismatch` unless both measurements bind the same bytes under the same names."""
    require_same(name, before.sha256, after.sha256)


def require_same(name: str, before: str, after: str) -> None:
    """Raise `DigestMismatch` unless both digests are equal."""
    if before != after:
        raise DigestMismatch(
            f"input {name} changed while the stage ran",
            got=after,
            expected=before,
            remedy="stop what writes to it, then run the stage again",
        )
