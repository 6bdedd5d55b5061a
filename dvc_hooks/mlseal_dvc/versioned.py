"""Cloud-versioned remotes (``version_aware``, ``worktree``): DVC stores files under their own paths there.

What is different, seen in DVC 3.67.1 and 3.64.0:

* An object lies at ``<remote>/<path of the output>``, in as many versions as it had. Which one is meant says the
  ``.dvc`` file: ``version_id`` beside ``md5``, in a section ``cloud`` that ``dvc push`` writes *after* the upload. A
  directory loses its object id and gets a list of its files (`pointers.Pointer.listed`).
* So the statement cannot name versions. It binds what it always binds: path, object id and SHA-256. The object id does
  not change when a push rewrites the ``.dvc`` file, and a version whose bytes are others is refused when it is read.
* Uploads go round ``HashFileDB.add``: they are guarded here, in ``dvc_data.index.push`` (`install`).
* Evidence lies below ``<remote>/.dvc/``, where no output can be; ``dvc gc`` does not work on such remotes at all.
* ``dvc update`` of a worktree remote takes the latest version of each file, whoever put it there, straight into the
  workspace. Nobody can have evidence about it before it has an object id, so it is refused (`_updating`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from mlseal.errors import DigestMismatch, Refusal, Unchecked
from mlseal_dvc import guards, halt, objects, watching
from mlseal_dvc.pointers import Pointer

RESERVED = ".dvc"


def is_versioned(remote: Any) -> bool:
    """Whether a DVC remote (`dvc.data_cloud.Remote`) stores files under their own paths."""
    return bool(remote.worktree or remote.fs.version_aware)


def install() -> None:
    """Wrap DVC's functions. The caller has checked that they are as expected (`contract`)."""
    watching.replace(import_module("dvc_data.index.push"), "apply", _applying)
    watching.replace(import_module("dvc.repo.worktree"), "update_worktree_stages", _updating)


def read(remote: Any, pointer: Pointer, oid: str) -> objects.Hashed | None:
    """The hash of an object as the remote holds it at the recorded versions; None if one of them is not there.

    Raises:
        Unchecked: the ``.dvc`` file records no version of it.
        DigestMismatch: two files of the output that should be the same are not.
    """
    found: objects.Hashed | None = None
    for path in _paths(remote, pointer, oid):
        try:
            with remote.fs.open(path, "rb") as file:
                hashed = objects.hash_stream(file)
        except FileNotFoundError:
            return None
        if found is not None and found.sha256 != hashed.sha256:
            raise DigestMismatch(
                f"versions of {pointer.path} that should be the same file differ on the remote",
                got=f"{oid} at {path}",
                remedy="compare the version ids in its .dvc file with an earlier commit's",
            )
        found = hashed
    return found


def absent(remote: Any, pointer: Pointer, *, quick: bool) -> tuple[int, int]:
    """How many files of an output are not on the remote at their recorded versions, of how many that were asked for.

    Args:
        quick: ask for one.
    """
    versions = pointer.versions[:1] if quick else pointer.versions
    if not versions:
        return 1, 1
    there = [v.version is not None and remote.fs.exists(_path(remote, v.parts, v.version)) for v in versions]
    return there.count(False), len(there)


def _paths(remote: Any, pointer: Pointer, oid: str) -> Iterator[str]:
    named = [version for version in pointer.versions if version.oid == oid]
    if not named or any(version.version is None for version in named):
        raise Unchecked(
            f"the version of {pointer.path} on the cloud-versioned remote is not recorded",
            got=f"no version_id for {oid}",
            remedy="dvc push, then commit the .dvc file that it rewrites",
        )
    for version in named:
        yield _path(remote, version.parts, version.version)


def _path(remote: Any, parts: tuple[str, ...], version: str | None) -> str:
    return str(remote.fs.version_path(remote.fs.join(remote.path, *parts), version))


def _applying(original: Callable[..., Any]) -> Callable[..., Any]:
    """Each file that would be created on a remote is covered by the seal of this push, and still holds its bytes."""

    @functools.wraps(original)
    def apply(diff: Any, path: Any, fs: Any, *args: Any, **kwargs: Any) -> Any:
        repo = guards.repo_of(fs)
        if repo is not None and watching.protected(repo):
            with halt.told_to_dvc():
                for entry in diff.files_create:
                    cache, source = diff.new.storage_map.get_cache(entry)
                    guards.require_sealed(repo, cache, source, str(entry.hash_info.value))
        return original(diff, path, fs, *args, **kwargs)

    return apply


def _updating(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def update_worktree_stages(repo: Any, stage_infos: Any) -> Any:
        if watching.protected(repo):
            with halt.told_to_dvc():
                raise Refusal(
                    "dvc update would take what anybody put on the worktree remote",
                    expected="versions that a push signed and a commit records",
                    remedy="whoever made the new version runs dvc add, dvc push and git push; then: git pull, dvc pull",
                )
        return original(repo, stage_infos)

    return update_worktree_stages
