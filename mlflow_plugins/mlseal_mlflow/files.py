"""From a storage URI to a model's files, inside the server; what is done with them is in `mlseal_mlflow.measuring`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Pending, Refusal, Unchecked, Unreadable
from mlseal.evidence.digest import EXCLUDED_AT_ROOT
from mlseal_mlflow import surface

MAX_FILES = 100_000


@dataclass(frozen=True)
class Location:
    """Where a model's files are, reachable without going over HTTP to ourselves."""

    uri: str
    repository: Any
    path: str

    def listing(self) -> list[tuple[str, int]]:
        """Path and size of every file; -1 where the storage tells no size. Raises `Unchecked` beyond `MAX_FILES`."""
        local = self.here()
        found: list[tuple[str, int]] = []
        for entry in self._remote() if local is None else _walk(local):
            found.append(entry)
            if len(found) > MAX_FILES:
                raise Unchecked(
                    f"{self.uri} holds too many files",
                    got=f"more than {MAX_FILES}",
                    expected=f"at most {MAX_FILES}",
                    remedy="pack small files together, such as in one archive that the model's code reads",
                )
        return sorted(found)

    def _remote(self) -> Iterator[tuple[str, int]]:
        todo = [self.path or None]
        while todo:
            for entry in self.repository.list_artifacts(todo.pop()):
                if entry.is_dir:
                    todo.append(entry.path)
                else:
                    yield entry.path, -1 if entry.file_size is None else int(entry.file_size)

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

    def require_as_listed(self, listing: Sequence[tuple[str, int]], model: Path) -> None:
        """Raise `Refusal` unless the copy in `model` is what the storage had listed, file by file and size by size.

        What no digest counts is left out: the gate itself puts verdicts there.
        """
        said = {path[len(self.path) :].lstrip("/"): size for path, size in listing}
        gave = {os.path.relpath(path, model): size for path, size in _walk(model)}
        for name in sorted(said.keys() | gave.keys()):
            if name.split("/")[0] in EXCLUDED_AT_ROOT or said.get(name) in (-1, gave.get(name)):
                continue
            raise Refusal(
                "the storage lists other files than it gives",
                got=f"{name[:200]}: {_bytes(gave.get(name))}",
                expected=_bytes(said.get(name)),
                remedy="ask again; if it stays so, whoever runs the storage must look",
            )

    def publish(self, file: Path) -> None:
        """Put `file` beside the model, under ``attestations/``, where no digest counts it."""
        self.repository.log_artifact(os.fspath(file), "/".join(part for part in (self.path, "attestations") if part))


def _walk(directory: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every file below `directory`; links to directories are left to `measure`, which judges them.

    Raises `Pending` when a file goes while they are listed, as the half of an upload does that is renamed at its end.
    """
    for root, _, names in os.walk(directory):
        for name in names:
            path = Path(root, name)
            try:
                yield str(path), path.lstat().st_size
            except FileNotFoundError as error:
                raise Pending(
                    "the model's files are being changed", got=f"{name[:200]} went", remedy="ask again"
                ) from error


def _bytes(size: int | None) -> str:
    return "no such file" if size is None else f"{size} bytes"


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
