"""Upload guard: no object reaches a remote unless a seal of this process covers it, whichever code path sends it.

`Repo.push` is one way to upload; ``dvc add --to-remote`` and its like (`staging`), ``repo.cloud.push`` and
``dvc push --run-cache`` are others. They meet in ``HashFileDB.add``, except for the last, which copies files itself: a
run-cache entry says which output a stage had, nobody signs it, and it does not say in which directory. And except for
cloud-versioned remotes (`versioned`), which have no object database.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlseal.errors import DigestMismatch, Refusal
from mlseal_dvc import halt, objects, watching

if TYPE_CHECKING:
    from mlseal_dvc.sealing import Sealed

_TAG = "_mlseal_repo"
_NAME = "_mlseal_remote"
_SEALS = "_mlseal_sealed"


def allow(repo: Any, sealed: Sealed | None) -> None:
    """Let uploads of `repo` pass for the objects of `sealed`; None ends that."""
    setattr(repo, _SEALS, sealed)


def remote_of(odb: Any) -> str | None:
    """Name of the remote whose objects `odb` holds; None for any other database, and for none."""
    return getattr(odb, _NAME, None)


def repo_of(fs: Any) -> Any:
    """The repository whose remote the file system `fs` was opened for; None for any other."""
    return getattr(fs, _TAG, None)


def require_sealed(repo: Any, fs: Any, path: str, oid: str) -> None:
    """The object `oid` in the file `path` may be uploaded from `repo`. Raises `Refusal`."""
    _require_sealed(getattr(repo, _SEALS, None), fs, [path], [oid])


def install() -> None:
    """Wrap DVC's classes. The caller has checked that they are as expected (`contract`)."""
    from dvc.data_cloud import DataCloud
    from dvc.stage.cache import StageCache
    from dvc_data.hashfile.db import HashFileDB

    watching.replace(DataCloud, "get_remote", _tagging)
    watching.replace(HashFileDB, "add", _adding)
    watching.replace(StageCache, "push", _pushing_run_cache)
    watching.replace(StageCache, "pull", _pulling_run_cache)


def _tagging(original: Callable[..., Any]) -> Callable[..., Any]:
    """Mark file system and object databases of every remote, so that an upload is known for one."""

    @functools.wraps(original)
    def get_remote(self: Any, *args: Any, **kwargs: Any) -> Any:
        remote = original(self, *args, **kwargs)
        for odb in (remote.odb, remote.legacy_odb):
            setattr(odb, _TAG, self.repo)
            setattr(odb, _NAME, remote.name)
        setattr(remote.fs, _TAG, self.repo)
        return remote

    return get_remote


def _adding(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def add(self: Any, path: Any, fs: Any, oid: Any, *args: Any, **kwargs: Any) -> Any:
        repo = getattr(self, _TAG, None)
        if repo is not None and watching.protected(repo):
            with halt.told_to_dvc():
                _require_sealed(
                    getattr(repo, _SEALS, None),
                    fs,
                    [path] if isinstance(path, str) else path,
                    [oid] if isinstance(oid, str) else oid,
                )
        return original(self, path, fs, oid, *args, **kwargs)

    return add


def _require_sealed(sealed: Sealed | None, fs: Any, paths: Sequence[str], oids: Sequence[str]) -> None:
    """Each object is in the seal, and its file still holds the sealed bytes. Raises `Refusal`."""
    for path, oid in zip(paths, oids, strict=True):
        expected = sealed.objects.get(oid) if sealed is not None else None
        if sealed is None or expected is None:
            raise Refusal(
                "nobody signed this object, so it is not uploaded",
                got=oid,
                expected="objects of outputs that this push signed or found signed",
                remedy="upload with 'dvc push', which signs first",
            )
        if fs.protocol != "local":
            raise Refusal("an object may be uploaded only from the local cache", got=f"{fs.protocol} {path}")
        if _sha256(sealed, path) != expected:
            raise DigestMismatch(
                "an object in the cache is not what was signed, so it is not uploaded",
                got=f"{oid} in {path}",
                expected=f"sha256 {expected[:16]}…",
                remedy="find out what replaced it; 'dvc fetch' brings the signed bytes if the remote has them",
            )


def _sha256(sealed: Sealed, path: str) -> str:
    """Digest of the file, read again unless nothing about it changed since it was sealed."""
    seen = sealed.seen.get(path)
    if seen is not None and seen.stamp == objects.stamp(path):
        return seen.sha256
    return objects.hash_file(path).sha256


def _pushing_run_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def push(self: Any, *args: Any, **kwargs: Any) -> Any:
        if watching.protected(self.repo):
            with halt.told_to_dvc():
                refuse_run_cache()
        return original(self, *args, **kwargs)

    return push


def refuse_run_cache() -> None:
    """Raise `Refusal`: what a push with ``--run-cache`` gets, before anything is signed."""
    raise Refusal(
        "the run cache is not signed, so it is not uploaded",
        expected="a push without --run-cache",
        remedy="dvc push",
    )


def _pulling_run_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    """Whoever can write the remote can write run cache entries, and ``dvc repro`` would believe them: never taken."""

    @functools.wraps(original)
    def pull(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not watching.protected(self.repo):
            return original(self, *args, **kwargs)
        from dvc.stage.cache import RunCacheNotSupported

        halt.say("the remote's run cache is ignored: nobody signs it, and it would be believed")
        raise RunCacheNotSupported("mlseal: the run cache of a remote is not signed")

    return pull
