"""From a storage URI to measured files, inside the server.

A model on a disk of this server is hashed where it lies; any other is fetched into a private directory, hashed and
thrown away. Nothing is loaded from either, so a copy of local files would prove nothing more: it is no more atomic than
reading them, and `measure` refuses a file that changes under it.

Models up to a size are hashed while the caller waits. Larger ones are hashed by a background thread; until it is done
the answer is 409 "pending", and the result serves any worker of this server for ten minutes. What changes in storage
after hashing is not seen here: the loader (`mlseal_mlflow.artifact`) verifies the bytes that are loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Error, Pending, Refusal, Unchecked, Unreadable
from mlseal.evidence import paths
from mlseal.evidence.bundle import write_atomic
from mlseal.evidence.digest import Manifest, Measured, Subject, measure
from mlseal_mlflow import private, surface

MAX_FILES = 100_000
RESULT_SECONDS = 600
FAILURE_SECONDS = 30


@dataclass(frozen=True)
class Location:
    """Where a model's files are, reachable without going over HTTP to ourselves."""

    uri: str
    repository: Any
    path: str

    def listing(self) -> list[tuple[str, int]]:
        """Path and size of every file. Raises `Unchecked` beyond `MAX_FILES`."""
        local = self.here()
        found: list[tuple[str, int]] = []
        for entry in self._remote() if local is None else _walk(local):
            found.append(entry)
            if len(found) > MAX_FILES:
                raise Unchecked(f"{self.uri} holds too many files", expected=f"at most {MAX_FILES}")
        return sorted(found)

    def _remote(self) -> Iterator[tuple[str, int]]:
        todo = [self.path or None]
        while todo:
            for entry in self.repository.list_artifacts(todo.pop()):
                if entry.is_dir:
                    todo.append(entry.path)
                else:
                    yield entry.path, int(entry.file_size or 0)

    def here(self) -> Path | None:
        """Where the model lies on a disk of this machine; None for storage elsewhere. `Unreadable` for nothing."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        if not isinstance(self.repository, LocalArtifactRepository):
            return None
        try:
            return Path(self.repository.get_local_path(self.path))
        except MlflowException as error:
            raise Unreadable(f"nothing lies at {self.uri}", remedy="log the model again, then register that") from error

    def fetch(self, directory: Path) -> Path:
        """Copy everything below into `directory` and return where the model lies in it."""
        got = os.path.realpath(self.repository.download_artifacts(self.path, os.fspath(directory)))
        inside = os.path.realpath(directory)
        if got != inside and not got.startswith(inside + os.sep):
            raise Refusal(f"{self.uri} was not copied but lent", got=got, expected="a private copy")
        return Path(got)

    def publish(self, file: Path) -> None:
        """Put `file` beside the model, under ``attestations/``, where no digest counts it."""
        self.repository.log_artifact(os.fspath(file), "/".join(part for part in (self.path, "attestations") if part))


def _walk(directory: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every file below `directory`; links to directories are left to `measure`, which judges them."""
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            yield str(path), path.lstat().st_size


def locate(uri: str, allowed: Sequence[str] = ()) -> Location:
    """The location of a storage URI as this server reaches it. Must run on the request's thread (workspace).

    What the server serves itself is reached without HTTP. Anything else must lie under the server's default artifact
    root or one of `allowed`: whoever registers a version names its source, and must not send the gate to a host of
    their choice, or make it wait there. Raises `Refusal` otherwise.
    """
    from mlflow.server import ARTIFACT_ROOT_ENV_VAR, handlers

    if handlers._is_servable_proxied_run_artifact_root(uri):  # noqa: SLF001 - vetted in surface.py
        path = handlers._get_proxied_run_artifact_destination_path(uri)  # noqa: SLF001
        path = handlers._get_workspace_scoped_repo_path_if_enabled(path)  # noqa: SLF001
        if not path or ".." in path.split("/"):
            raise Refusal(f"{uri} is not the place of one model", got=path or "the root of all artifacts")
        return Location(uri, handlers._get_artifact_repo_mlflow_artifacts(), path)  # noqa: SLF001
    own = os.environ.get(ARTIFACT_ROOT_ENV_VAR)
    if not any(is_under(uri, root) for root in (*allowed, *([own] if own else []))):
        raise Refusal(
            "this model lies where the gate does not look",
            got=uri[:200],
            expected=", ".join(allowed) or "the server's own artifact storage",
            remedy="log the model through this server, or the operator lists its storage in MLSEAL_MLFLOW_SOURCES",
        )
    return Location(uri, surface.repository_for(handlers, uri), "")


def is_under(uri: str, root: str) -> bool:
    """Whether `uri` lies below `root`, compared by whole path segments, in one spelling each."""
    plain = (
        not set(uri) & set("%?#\\") and not {"..", "."} & set(uri.split("/")) and "//" not in uri.rpartition("://")[2]
    )
    return plain and uri.startswith(root.rstrip("/") + "/") and bool(root.strip("/"))


@dataclass(frozen=True)
class Limits:
    """How much this server hashes: while the caller waits, at all, and how many at once in one worker."""

    inline_bytes: int = 2 << 30
    max_bytes: int = 64 << 30
    at_once: int = 4


class Measuring:
    """Hashes models for the gate.

    Args:
        directory: private state, shared by the workers of this server.
        limits: what is hashed now, later, never.
        notice: called with each model's directory before it is hashed, so that evidence lying beside it is found.
    """

    def __init__(self, directory: Path, limits: Limits, notice: Callable[[Path], None]) -> None:
        self._directory = paths.private(directory)
        self._limits, self._notice = limits, notice
        self._slots = threading.BoundedSemaphore(limits.at_once)

    def measured(self, location: Location, key: object, *, name: str) -> Measured:
        """The files of the model at `location`; `key` is what they will be used for, so that it is not reused.

        Their ``path`` may be gone when this returns: what is far away is copied, measured and thrown away.

        Raises `Pending` while a large model is hashed, `Refusal` beyond the limit, `Unreadable` for no content.
        """
        listing = location.listing()
        total = sum(size for _, size in listing)
        if not listing:
            raise Unreadable(f"nothing lies at {location.uri}", remedy="log the model again, then register that")
        if total > self._limits.max_bytes:
            raise Refusal(
                "this model is larger than the gate hashes",
                got=f"{total} bytes",
                expected=f"at most {self._limits.max_bytes}",
                remedy="raise MLSEAL_MLFLOW_MAX_BYTES on the server",
            )
        if total <= self._limits.inline_bytes:
            return self._measure(location, name)
        job = hashlib.sha256(json.dumps([location.uri, listing, repr(key)]).encode()).hexdigest()[:32]
        return self._later(location, job, total, name)

    def _measure(self, location: Location, name: str) -> Measured:
        if not self._slots.acquire(timeout=30):
            raise Pending("the gate is hashing other models", remedy="ask again")
        try:
            if (local := location.here()) is not None:
                return self._of(local, name)
            with private.passing() as directory:
                return self._of(location.fetch(directory), name)
        finally:
            self._slots.release()

    def _of(self, model: Path, name: str) -> Measured:
        self._notice(model)
        return measure(model, name=name)

    def _later(self, location: Location, job: str, total: int, name: str) -> Measured:
        result = self._directory / f"{job}.json"
        if (known := _fresh(result)) is not None:
            return known
        lock = os.open(self._directory / f"{job}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)  # another worker is at it; its lock ends with it, even if it dies
        else:
            threading.Thread(target=self._work, args=(location, result, lock, name), daemon=True).start()
        raise Pending(
            "verification pending: this model is hashed in the background",
            got=f"{total} bytes",
            expected=f"at most {self._limits.inline_bytes} to be hashed at once",
            remedy="ask again in a while",
        )

    def _work(self, location: Location, result: Path, lock: int, name: str) -> None:
        try:
            try:
                outcome: dict[str, Any] = _told(self._measure(location, name))
            except Exception as error:  # noqa: BLE001 - whatever it is, the next request reports it
                outcome = {
                    "failed": str(error)[:300] if isinstance(error, Error) else f"{type(error).__name__}: {error}"[:300]
                }
            write_atomic(result, json.dumps(outcome).encode(), mode=0o600)
            _sweep(self._directory)
        finally:
            os.close(lock)


def _told(measured: Measured) -> dict[str, Any]:
    """What `_fresh` reads in any worker: the subjects, and every file, which rules about file names need."""
    files = measured.manifest and measured.manifest.to_bytes().decode("utf-8")
    return {"subjects": [[s.name, s.sha256] for s in measured.subjects], "files": files}


def _fresh(result: Path) -> Measured | None:
    try:
        age = time.time() - result.stat().st_mtime
        outcome = json.loads(result.read_bytes())
    except (OSError, ValueError):
        return None
    if "failed" in outcome and age < FAILURE_SECONDS:
        raise Unchecked("this model could not be hashed in the background", got=outcome["failed"], remedy="ask again")
    if "files" not in outcome or age > RESULT_SECONDS:
        return None
    files = outcome["files"] and Manifest.from_bytes(outcome["files"].encode("utf-8"))
    return Measured(result, tuple(Subject(name, sha256) for name, sha256 in outcome["subjects"]), files)


def _sweep(directory: Path) -> None:
    """Remove results that are too old to be used, and their locks."""
    horizon = time.time() - 2 * RESULT_SECONDS
    for file in directory.iterdir():
        if file.stat().st_mtime < horizon:
            file.unlink(missing_ok=True)
