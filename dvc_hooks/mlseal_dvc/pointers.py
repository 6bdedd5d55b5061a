"""What ``.dvc`` files and ``dvc.lock`` say about outputs, read through DVC's own index.

The same selection as ``Repo.push`` and ``Repo.fetch`` of DVC 3.67 make. A pointer is frozen inside the loop over
revisions, because DVC swaps the file system under its `Output` objects there and they are unusable afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mlseal.errors import Unchecked
from mlseal_dvc import gitstate

_SELECTORS = ("revs", "all_branches", "all_tags", "all_commits")


@dataclass(frozen=True)
class Dependency:
    """A recorded dependency: path, and DVC's hash of it when there is one."""

    path: str
    hash_name: str | None
    oid: str | None
    repo_url: str | None = None
    rev: str | None = None


@dataclass(frozen=True)
class Version:
    """Where a cloud-versioned remote holds one file: path from the DVC root, object id, version if recorded."""

    parts: tuple[str, ...]
    oid: str
    version: str | None


@dataclass(frozen=True)
class Pointer:
    """One version of one output.

    Attributes:
        path: relative to the git root, POSIX.
        names: paths under which evidence may be filed: `path`, and for ``dvc import`` also the path at the source.
        cache_path: from an object id to the file in the local cache.
        remote_oid_path: from an object id to its path on the remote; None without one.
        remote_name: the remote that the output belongs to; None for the default.
        rev: git revision; None for the workspace.
        unchanged: tells whether the workspace already holds this version, as DVC sees it.
        source: gives DVC's file system of the repository that ``dvc import`` took it from; None for everything else.
        listed: the directory object that DVC makes of the files listed in the ``.dvc`` file itself (``files:``, as
            cloud-versioned remotes have them); None where the file names an object instead.
        versions: of its files on a cloud-versioned remote; none for a directory that was never pushed to one.
        kind: the ``type`` that the author wrote beside the output, such as ``model``; None if there is none.
    """

    path: str
    names: tuple[str, ...]
    hash_name: str
    oid: str
    cache_path: Callable[[str], str]
    remote_name: str | None
    rev: str | None
    stage: str
    command: str | None
    imported: bool
    repo_import: bool
    dependencies: tuple[Dependency, ...]
    unchanged: Callable[[], bool]
    source: Callable[[], Any] | None = None
    listed: bytes | None = None
    versions: tuple[Version, ...] = ()
    kind: str | None = None

    @property
    def isdir(self) -> bool:
        """Whether the output is a directory."""
        return self.oid.endswith(".dir")

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two pointers the same: the data, whose rules judge them, and where they are said to lie."""
        source = self.dependencies[0].repo_url if self.repo_import else None
        return self.path, self.hash_name, self.oid, source, self.versions

    @property
    def recorded(self) -> bool:
        """Whether a cloud-versioned remote's version of any file is known."""
        return any(version.version is not None for version in self.versions)

    def directory_object(self) -> bytes | None:
        """The bytes of the directory object as DVC will use it, unverified; None if it is not in the local cache."""
        if self.listed is not None:
            return self.listed
        try:
            with open(self.cache_path(self.oid), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def bound(
    function: Callable[..., Any], repo: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call of a `Repo` method by name, defaults filled in."""
    call = inspect.signature(function).bind(repo, *args, **kwargs)
    call.apply_defaults()
    arguments = dict(call.arguments)
    arguments.update(arguments.pop("kwargs", {}))
    return {name: value for name, value in arguments.items() if value is not repo}


def selected(repo: Any, call: Mapping[str, Any], *, push: bool = False, strict: bool = False) -> list[Pointer]:
    """Every output version that a push, fetch or checkout with the arguments `call` selects, each once.

    A revision that DVC cannot read is left out, as DVC does: nothing of it is then transferred. Raises that error when
    no revision can be read at all, or, when `strict`, any: a check must not pass over what it cannot read.
    """
    found: dict[object, Pointer] = {}
    failed: Exception | None = None
    readable = False
    prefix = gitstate.prefix(repo)
    revisions = {name: call[name] for name in _SELECTORS if call.get(name)}
    for rev in repo.brancher(**revisions, workspace=call.get("workspace", True)):
        try:
            for pointer in _of_revision(repo, call, None if rev in ("", "workspace") else rev, prefix, push):
                found.setdefault(pointer.key, pointer)
            readable = True
        except Exception as error:  # noqa: BLE001 - whatever DVC raises for a revision it cannot read
            failed = error
    if failed is not None and (strict or not readable):
        raise failed
    return _recorded(list(found.values()))


def _recorded(pointers: list[Pointer]) -> list[Pointer]:
    """`pointers` without those of a commit made before the push that recorded where the same data lie.

    DVC fetches nothing for such a commit; evidence and bytes are those of the later one.
    """
    told = {pointer.key[:-1] for pointer in pointers if pointer.recorded}
    return [pointer for pointer in pointers if pointer.recorded or pointer.key[:-1] not in told]


def _of_revision(repo: Any, call: Mapping[str, Any], rev: str | None, prefix: str, push: bool) -> Iterator[Pointer]:
    from dvc.repo.index import index_from_targets
    from dvc.utils import glob_targets

    targets = call.get("targets")
    targets = [targets] if isinstance(targets, str) else targets
    remote = call.get("remote")

    def wanted(out: Any) -> bool:
        return not (push and not out.can_push) and not (remote and out.remote and remote != out.remote)

    view = index_from_targets(
        repo,
        glob_targets(targets, glob=call.get("glob", False)),
        with_deps=call.get("with_deps", False),
        recursive=call.get("recursive", False),
        max_size=call.get("max_size"),
        types=call.get("types"),
        stage_filter=lambda stage: not (push and stage.is_repo_import),
        outs_filter=wanted,
    )
    for out in view.outs:
        if out.use_cache and out.hash_info:
            yield pointer_of(out, rev, prefix)


def pointer_of(out: Any, rev: str | None, prefix: str) -> Pointer:
    """The frozen facts of one DVC `Output`. Raises `Unchecked` for outputs outside of the repository."""
    if not out.is_in_repo:
        raise Unchecked(
            f"output {out.def_path} lies outside of the repository",
            expected="outputs inside, whose path means the same to everyone",
            remedy="move it into the repository, or target other outputs",
        )
    stage = out.stage
    path = str(PurePosixPath(prefix, *out.index_key[1]))
    dependencies = tuple(_dependencies(stage, prefix))
    sources = tuple(d.path for d in dependencies) if stage.is_repo_import else ()
    return Pointer(
        path=path,
        names=(path, *sources),
        hash_name=out.hash_name,
        oid=str(out.hash_info.value),
        cache_path=out.cache.oid_to_path,
        remote_name=out.remote,
        rev=rev,
        stage=str(stage.addressing),
        command=_command(stage.cmd),
        imported=bool(stage.is_import),
        repo_import=bool(stage.is_repo_import),
        dependencies=dependencies,
        unchanged=lambda: bool(out.exists) and not out.changed_checksum(),
        source=(lambda: stage.deps[0].fs) if stage.is_repo_import else None,
        listed=bytes(out.get_obj().as_bytes()) if out.files else None,
        versions=tuple(versions_of(out)),
        kind=getattr(getattr(out, "annot", None), "type", None),
    )


def versions_of(out: Any) -> Iterator[Version]:
    """What a DVC `Output` records of its files on a cloud-versioned remote."""
    key = tuple(out.index_key[1])
    for row in out.files or ():
        yield Version((*key, *row["relpath"].split("/")), str(row.get("md5")), row.get("version_id"))
    if not out.files and not out.hash_info.isdir:
        yield Version(key, str(out.hash_info.value), out.meta.version_id if out.meta else None)


def _command(command: object) -> str | None:
    if not command:
        return None
    return (command if isinstance(command, str) else "\n".join(map(str, command)))[:2000]  # type: ignore[call-overload]


def _dependencies(stage: Any, prefix: str) -> Iterator[Dependency]:
    for dep in stage.deps:
        recorded = dep.dumpd()
        source = recorded.get("repo") or {}
        path = str(recorded.get("path", dep.def_path))
        if not source and dep.protocol == "local" and getattr(dep, "is_in_repo", False):
            path = str(PurePosixPath(prefix, *dep.index_key[1]))
        info = dep.hash_info
        yield Dependency(
            path=path,
            hash_name=info.name if info else None,
            oid=str(info.value) if info and info.value else None,
            repo_url=source.get("url"),
            rev=source.get("rev_lock"),
        )
