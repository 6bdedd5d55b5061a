"""Read guard: nothing unverified reaches the workspace or a caller.

=====================================================  =====================================================
way in                                                 checked where
=====================================================  =====================================================
``fetch``, ``pull``                                    after the download, in the cache (`fetching`)
``checkout``, ``pull``, ``exp apply``                  before the first link (`checking_out`)
``get``, ``import``, ``dvc.api``, plots, metrics       on a private copy, in `DataFileSystem` (`_getting`)
``repro --pull``, ``Output.get_dir_cache``             after the transfer, in ``DataCloud._pull`` (`_pulling`)
directory listings                                     ``Tree.load`` while a checkout runs (`_loading`)
restoring one output (``repro``, run cache, import)    against evidence this user has, if any (`_checking_out_one`)
=====================================================  =====================================================
"""

from __future__ import annotations

import functools
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import DigestMismatch, Error, NoEvidence, NotInitialised, Refusal
from mlseal_dvc import gitstate, halt, objects, pointers, restoring, upstream, watching
from mlseal_dvc.pointers import Pointer

if TYPE_CHECKING:
    from mlseal_dvc.checking import Attested
    from mlseal_dvc.desk import Desk

_INDEX = "_mlseal_index"
_trees: dict[str, str] | None = None  # while a checkout runs: directory object → SHA-256 of its verified bytes
_lock = threading.RLock()


def install() -> None:
    """Wrap DVC's classes below `Repo`. The caller has checked that they are as expected (`contract`)."""
    from dvc.data_cloud import DataCloud
    from dvc.output import Output
    from dvc.repo.index import Index
    from dvc_data.fs import DataFileSystem
    from dvc_data.hashfile.tree import Tree

    watching.replace(DataFileSystem, "get_file", _getting)
    watching.replace(DataFileSystem, "_open", _opening)
    watching.replace(DataCloud, "_pull", _pulling)
    watching.replace(Output, "checkout", _checking_out_one)
    _tag_index(Index)
    load = Tree.__dict__["load"].__func__
    if not watching.wrapped(load):
        Tree.load = classmethod(watching.marked(_loading(load)))


def fetching(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Repo.fetch``: afterwards everything selected that is in the cache is verified, also when the fetch failed."""

    @functools.wraps(original)
    def fetch(repo: Any, *args: Any, **kwargs: Any) -> Any:
        if not watching.protected(repo):
            return original(repo, *args, **kwargs)
        from dvc.repo import lock_repo

        call = pointers.bound(original, repo, args, kwargs)
        with lock_repo(repo):
            repo.drop_data_index()
            since = time.time_ns() - 2_000_000_000  # file systems round times; nothing older than the lock is at stake
            try:
                result = original(repo, *args, **kwargs)
            except Exception:
                _verify_fetched(repo, call, since)
                raise
            _verify_fetched(repo, call, since)
            return result

    return fetch


def checking_out(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Repo.checkout`` and ``dvc.repo.checkout.checkout``: everything selected is verified first."""

    @functools.wraps(original)
    def checkout(repo: Any, *args: Any, **kwargs: Any) -> Any:
        if not watching.protected(repo):
            return original(repo, *args, **kwargs)
        from dvc.repo import lock_repo

        call = pointers.bound(original, repo, args, kwargs)
        with lock_repo(repo):
            with halt.told_to_dvc():
                repo.drop_data_index()
                trees = _verify_before_checkout(repo, call)
            with _only_these_trees(trees):
                return original(repo, *args, **kwargs)

    return checkout


def _verify_fetched(repo: Any, call: dict[str, Any], since: int) -> None:
    from mlseal_dvc import verifying
    from mlseal_dvc.desk import Desk

    with halt.told_to_dvc():
        desk = Desk(repo, call.get("remote"))
        outcomes = verifying.examine(desk, pointers.selected(repo, call), since=since)
        verifying.require(desk, outcomes, "after fetch")


def _verify_before_checkout(repo: Any, call: dict[str, Any]) -> dict[str, str]:
    from mlseal_dvc import verifying
    from mlseal_dvc.desk import Desk

    desk = Desk(repo)
    outcomes = verifying.examine(desk, pointers.selected(repo, call))
    passed = [o for o in outcomes if o.error is None or (not call.get("relink") and verifying.own_and_unpushed(o))]
    verifying.require(desk, [o for o in outcomes if o not in passed], "before checkout", quiet=True)
    halt.say(f"verified {sum(o.attested is not None for o in passed)} outputs before checkout")
    trees = {}
    for outcome in passed:
        raw = outcome.pointer.directory_object() if outcome.pointer.isdir else None
        if raw is not None:
            trees[outcome.pointer.oid] = objects.sha256(raw)
    return trees


def _checking_out_one(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Output.checkout``: DVC restores single outputs from the cache, among them products that nobody signed yet.

    So missing evidence does not stop it, but evidence that the cache contradicts does.
    """

    @functools.wraps(original)
    def checkout(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.use_cache and self.hash_info and self.is_in_repo and watching.protected(self.repo):
            with halt.told_to_dvc():
                _require_not_contradicted(self)
        return original(self, *args, **kwargs)

    return checkout


def _require_not_contradicted(out: Any) -> None:
    from mlseal_dvc import verifying
    from mlseal_dvc.desk import Desk

    desk = Desk(out.repo)
    outcome = verifying.contradiction(desk, pointers.pointer_of(out, None, gitstate.prefix(out.repo)))
    if outcome is not None:
        verifying.require(desk, [outcome], "before checkout")


class _only_these_trees:  # noqa: N801 - used like a function
    """While active, a directory object loads only if its bytes are the verified ones, wherever DVC finds it."""

    def __init__(self, trees: dict[str, str]) -> None:
        self._trees_before: dict[str, str] | None = None
        self._new = trees

    def __enter__(self) -> None:
        global _trees  # DVC reads directories from a pool of threads, so not a context variable
        self._trees_before, _trees = _trees, self._new

    def __exit__(self, *_: object) -> None:
        global _trees  # noqa: PLW0603
        _trees = self._trees_before


def _loading(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(cls: Any, odb: Any, hash_info: Any, *args: Any, **kwargs: Any) -> Any:
        allowed = _trees
        if allowed is not None:
            found = odb.get(hash_info.value)
            with found.fs.open(found.path, "rb") as file:
                data = file.read()
            if allowed.get(hash_info.value) != objects.sha256(data):
                raise halt.of(
                    Refusal(
                        "a directory object that was not verified is not used",
                        got=f"{hash_info.value} in {found.path}",
                        remedy="dvc fetch, then check out again",
                    )
                )
        return original(cls, odb, hash_info, *args, **kwargs)

    return load


def _pulling(original: Callable[..., Any]) -> Callable[..., Any]:
    """Transfers that DVC starts by object id alone: only objects of verified outputs may stay in the cache."""

    @functools.wraps(original)
    def _pull(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if result.transferred and watching.protected(self.repo):
            with halt.told_to_dvc():
                _require_expected(self.repo, result.transferred)
        return result

    return _pull


def _require_expected(repo: Any, transferred: Any) -> None:
    from mlseal_dvc.desk import Desk

    desk = Desk(repo)
    expected: dict[str, str] = {}
    for pointer in [*pointers.selected(repo, {}), *restoring.restorable(repo)]:
        try:
            attested = desk.checker(pointer, "pull").attested(pointer)
        except Error:
            continue
        expected.update(_expected_objects(attested, pointer))
    for info in transferred:
        cache = repo.cache.legacy if info.name == "md5-dos2unix" else repo.cache.local
        path = cache.oid_to_path(info.value)
        if os.path.exists(path) and objects.hash_file(path).sha256 != expected.get(info.value):
            kept = objects.quarantine(path, desk.quarantine, info.value)
            raise DigestMismatch(
                "an object came from the remote that no verified output of this revision contains",
                got=f"{info.value}, now in {kept}",
                remedy="run the command without --pull, or fetch the outputs with 'dvc fetch'",
            )


def _expected_objects(attested: Attested, pointer: Pointer) -> dict[str, str]:
    if attested.manifest is None:
        return {pointer.oid: attested.sha256}
    raw = pointer.directory_object()
    signed = {entry.path: entry.sha256 for entry in attested.manifest.files}
    tree = objects.read_tree(raw, pointer.path) if raw is not None else {}
    if tree.keys() != signed.keys():
        return {}
    assert raw is not None
    return {pointer.oid: objects.sha256(raw), **{oid: signed[path] for path, oid in tree.items()}}


def _tag_index(index_type: Any) -> None:
    """Let a `DataIndex` know the `Index` it was made from: `DataFileSystem` is given only the former."""
    descriptor = index_type.__dict__["data"]
    make = getattr(descriptor, "func", None) or descriptor.fget
    if watching.wrapped(make):
        return

    @functools.wraps(make)
    def data(self: Any) -> Any:
        result = make(self)
        for made in result.values():
            setattr(made, _INDEX, self)
        return result

    watching.marked(data)
    replaced = type(descriptor)(data)
    if hasattr(replaced, "__set_name__"):
        replaced.__set_name__(index_type, "data")
    index_type.data = replaced


class _Expected:
    """The signed digest of each file below one `Index`, looked up once per output."""

    def __init__(self, index: Any) -> None:
        from mlseal_dvc.desk import Desk

        self.repo = index.repo
        self.desk = Desk(index.repo)
        prefix = gitstate.prefix(index.repo)
        self._outs = {
            tuple(out.index_key[1]): pointers.pointer_of(out, None, prefix)
            for out in index.outs
            if out.use_cache and out.hash_info and out.is_in_repo
        }
        self._attested: dict[tuple[str, ...], Attested] = {}

    def of(self, key: tuple[str, ...]) -> str | None:
        """SHA-256 that the file at `key` must have; None if it belongs to no tracked output. Raises for the rest."""
        owner = next((k for k in self._outs if key[: len(k)] == k), None)
        if owner is None:
            return None
        pointer = self._outs[owner]
        if owner not in self._attested:
            try:
                self._attested[owner] = self.desk.checker(pointer, "pull").attested(pointer)
            except (NoEvidence, NotInitialised):
                if upstream.excusing():
                    return None
                raise
        attested = self._attested[owner]
        if attested.manifest is None:
            return attested.sha256
        inside = "/".join(key[len(owner) :])
        for entry in attested.manifest.files:
            if entry.path == inside:
                return entry.sha256
        raise NoEvidence(
            f"{pointer.path}/{inside} is not in the signed manifest", remedy="tell the owner of the remote"
        )


def _expected_of(filesystem: Any, path: str) -> tuple[str, Desk] | None:
    index = getattr(filesystem.index, _INDEX, None)
    if index is None or not (upstream.demanding() or watching.protected(index.repo)):
        return None
    with _lock, halt.told_to_dvc():
        known = index.__dict__.get("_mlseal_expected")
        if known is None:
            known = index.__dict__["_mlseal_expected"] = _Expected(index)
        sha256 = known.of(tuple(filesystem._get_key(path)))
    return None if sha256 is None else (sha256, known.desk)


def _getting(original: Callable[..., Any]) -> Callable[..., Any]:
    """``get_file``: to a name beside the target, verified, then renamed."""

    @functools.wraps(original)
    def get_file(self: Any, rpath: Any, lpath: Any, *args: Any, **kwargs: Any) -> None:
        info = kwargs.get("info") or (args[1] if len(args) > 1 else None) or self.info(rpath)
        expected = None if info["type"] == "directory" else _expected_of(self, rpath)
        if expected is None:
            original(self, rpath, lpath, *args, **kwargs)
            return
        sha256, desk = expected
        before = self._get_fs_path(rpath, kwargs.get("info")).typ
        aside = f"{os.fspath(lpath)}.mlseal-{secrets.token_hex(4)}"
        try:
            original(self, rpath, aside, *args, **kwargs)
            with halt.told_to_dvc():
                try:
                    _require_same(aside, sha256, rpath, desk)
                except DigestMismatch:
                    _drop_cached(self, rpath, before, desk)
                    raise
            Path(aside).replace(lpath)
        finally:
            Path(aside).unlink(missing_ok=True)

    return get_file


def _drop_cached(filesystem: Any, path: str, before: str, desk: Desk) -> None:
    """Quarantine the copy that this very call brought into the cache; one that was there before may be another's."""
    found = filesystem._get_fs_path(path)
    if before == "remote" and found.typ == "cache":
        objects.quarantine(found.fs_path, desk.quarantine, Path(path).name[:40])


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    """``_open``: the caller reads a private copy whose digest was compared."""

    @functools.wraps(original)
    def _open(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        expected = _expected_of(self, path)
        if expected is None:
            return original(self, path, *args, **kwargs)
        sha256, desk = expected
        copy = tempfile.NamedTemporaryFile(prefix="mlseal-")  # noqa: SIM115 - handed to the caller open
        with original(self, path, *args, **kwargs) as source:
            while chunk := source.read(1 << 20):
                copy.write(chunk)
        copy.flush()
        with halt.told_to_dvc():
            _require_same(copy.name, sha256, path, desk, keep=True)
        copy.seek(0)
        return copy

    return _open


def _require_same(path: str, sha256: str, name: str, desk: Desk, *, keep: bool = False) -> None:
    found = objects.hash_file(path).sha256
    if found == sha256:
        return
    kept = None
    if not keep:
        kept = objects.quarantine(path, desk.quarantine, Path(name).name[:40])
    raise DigestMismatch(
        f"{name}: these bytes are not the signed ones",
        got=f"sha256 {found[:16]}…" + (f", kept in {kept}" if kept else ""),
        expected=f"sha256 {sha256[:16]}…",
        remedy="tell the owner of the remote; nothing of it was handed out",
    )
