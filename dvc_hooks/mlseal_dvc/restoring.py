"""Restoring a stage's outputs instead of running it: only what somebody signed, and signed for these inputs.

A run-cache entry is an unsigned file. Whoever can write it, in a shared cache or on a remote, says which output the
stage would have had, and DVC writes that into ``dvc.lock``. So, in a protected repository:

* every output that would be restored needs verified evidence, else it is no cache hit and the stage runs;
* an output that the run cache names, and not ``dvc.lock``, needs evidence whose recorded command and dependencies are
  the stage's own, so that signed bytes cannot be passed off as the output of other inputs;
* an output outside of DVC's cache (``cache: false``) has no evidence; it counts only if the workspace holds it already.

The bytes are compared when they are checked out (`reading`). What was restored is noted as ``run-cache`` (`noting`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, NoEvidence
from mlseal.evidence.naming import PLAIN, Naming
from mlseal.evidence.predicates import data_provenance
from mlseal_dvc import gitstate, halt, pointers, statement, watching
from mlseal_dvc.pointers import Pointer

if TYPE_CHECKING:
    from mlseal_dvc.checking import Attested
    from mlseal_dvc.desk import Desk

RESTORED = "_mlseal_restored"
_STAGE = "_mlseal_stage"
_FROM_RUN_CACHE = "_mlseal_from_run_cache"
_EXPECTED = "_mlseal_restorable"


def install() -> None:
    """Wrap DVC's class. The caller has checked that it is as expected (`contract`)."""
    from dvc.stage.cache import StageCache

    watching.replace(StageCache, "restore", _restoring)
    watching.replace(StageCache, "_load", _loading)
    watching.replace(StageCache, "_create_stage", _creating)


def restorable(repo: Any) -> list[Pointer]:
    """Outputs that a restore in `repo` is about, beside those of the current revision; all of them have evidence."""
    found: list[Pointer] = repo.__dict__.get(_EXPECTED, [])
    return found


def _restoring(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def restore(self: Any, stage: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__[_STAGE] = stage
        self.__dict__[_FROM_RUN_CACHE] = False
        try:
            result = original(self, stage, *args, **kwargs)
        finally:
            self.__dict__.pop(_STAGE, None)
            self.repo.__dict__.pop(_EXPECTED, None)
        stage.__dict__[RESTORED] = True
        return result

    return restore


def _loading(original: Callable[..., Any]) -> Callable[..., Any]:
    """``_load`` answers from the run cache; without it, what is restored comes from ``dvc.lock``."""

    @functools.wraps(original)
    def _load(self: Any, stage: Any) -> Any:
        self.__dict__[_FROM_RUN_CACHE] = True
        return original(self, stage)

    return _load


def _creating(original: Callable[..., Any]) -> Callable[..., Any]:
    """The stage made here says what would be restored; raising DVC's "not in the run cache" lets the real one run."""

    @functools.wraps(original)
    def _create_stage(self: Any, *args: Any, **kwargs: Any) -> Any:
        made, stage = original(self, *args, **kwargs), self.__dict__.get(_STAGE)
        if stage is not None and watching.protected(self.repo):
            with halt.told_to_dvc():
                missing = _missing(stage, made, from_run_cache=self.__dict__[_FROM_RUN_CACHE])
            if missing is not None:
                from dvc.stage.cache import RunCacheNotFoundError

                halt.say(f"stage {stage.addressing} runs: what the cache holds for it is not used ({missing.message})")
                raise RunCacheNotFoundError(stage)
        return made

    return _create_stage


def _missing(stage: Any, made: Any, *, from_run_cache: bool) -> Error | None:
    """Why the outputs of `made` may not stand for running `stage`; None if they may."""
    from mlseal_dvc.desk import Desk

    repo = stage.repo
    desk, prefix = Desk(repo), gitstate.prefix(repo)
    real = {out.fs_path: out for out in stage.outs}
    found: list[Pointer] = []
    try:
        for out in made.outs:
            if not real[out.fs_path].use_cache:
                _require_in_workspace(out)
                continue
            pointer = pointers.pointer_of(out, None, prefix)
            attested = desk.checker(pointer, "pull").attested(pointer)
            if from_run_cache:
                _require_of(attested, pointers.pointer_of(real[out.fs_path], None, prefix), desk)
            found.append(pointer)
    except Error as error:
        return error
    repo.__dict__[_EXPECTED] = found
    return None


def _require_in_workspace(out: Any) -> None:
    if not out.exists or out.changed_checksum():
        raise NoEvidence(f"{out.def_path} is kept outside of DVC's cache, so nobody signs it")


def _require_of(attested: Attested, wanted: Pointer, desk: Desk) -> None:
    """The evidence records the command and dependencies of `wanted`, as its statement writes names."""
    predicate = attested.verified.predicate
    assert isinstance(predicate, data_provenance.Predicate)
    for naming in _namings(attested, desk, wanted):
        said = {(dep.name, (dep.annotations or {}).get("dvcHash")) for dep in predicate.lineage}
        named = {(naming.of("path", dep.path), f"{dep.hash_name}:{dep.oid}") for dep in wanted.dependencies}
        command = naming.of("command", wanted.command) if wanted.command is not None else None
        if said == named and predicate.dvc.command == command and len(named) <= statement.MAX_LINEAGE:
            return
    raise NoEvidence(f"the evidence for {wanted.path} was signed for another command or other dependencies")


def _namings(attested: Attested, desk: Desk, pointer: Pointer) -> list[Naming]:
    if attested.salt_id is None:
        return [PLAIN]
    shelf = desk.checker(pointer, "pull").shelf
    known = [naming for place in shelf.places for naming in shelf.names.at(place)]
    return [naming for naming in known if naming.salt_id == attested.salt_id]
