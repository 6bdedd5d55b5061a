"""Wrap DVC, or refuse to let it work. Called once per process, right after ``dvc.repo`` was imported.

What is wrapped are classes and functions whose shape is written down in `contract`. If the installed DVC is of another
version, or any of them looks different, nothing is wrapped and every repository refuses to open: going on
without protection would look like protection.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mlseal.errors import MissingExtra, Unchecked
from mlseal_dvc import (
    colliding,
    committed,
    contract,
    guards,
    halt,
    noting,
    pointers,
    queued,
    reading,
    restoring,
    scheme,
    staging,
    statedir,
    upstream,
    versioned,
    watching,
)

_FUNCTIONS = (("dvc.repo.push", "push"), ("dvc.repo.fetch", "fetch"), ("dvc.repo.checkout", "checkout"))


def activate() -> None:
    """Wrap DVC in this process, once. Never raises for an unexpected DVC: then repositories refuse to open."""
    problem = contract.broken()
    if problem is not None:
        _refuse_everything(problem)
        return
    scheme.register()
    from dvc.repo import Repo

    wraps: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        "push": _pushing,
        "fetch": reading.fetching,
        "checkout": reading.checking_out,
    }
    for module, name in _FUNCTIONS:
        watching.replace(Repo, name, wraps[name])
        # Some of DVC's own modules import the function instead of calling the method. The attribute ``dvc.repo.push``
        # is a module; ``sys.modules`` gives it even where a package attribute of that name hides it.
        import_module(module)
        setattr(sys.modules[module], name, getattr(Repo, name))
    guards.install()
    colliding.install()
    reading.install()
    committed.install()
    noting.install()
    queued.install()
    restoring.install()
    staging.install()
    statedir.install()
    upstream.install()
    versioned.install()


def require_dvc() -> None:
    """Raise `MissingExtra` without DVC, `Unchecked` with one whose insides are not as expected."""
    try:
        import_module("dvc.repo")
    except ModuleNotFoundError as error:
        raise MissingExtra("DVC is not installed", remedy="pip install 'mlseal[dvc]'") from error
    problem = contract.broken()
    if problem is not None:
        raise _unexpected(problem)
    scheme.register()


def _pushing(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Repo.push``: seal under DVC's own lock, then let exactly the sealed objects through."""

    @functools.wraps(original)
    def push(repo: Any, *args: Any, **kwargs: Any) -> Any:
        if not watching.protected(repo):
            return original(repo, *args, **kwargs)
        from dvc.repo import lock_repo

        from mlseal_dvc import sealing
        from mlseal_dvc.desk import Desk

        call = pointers.bound(original, repo, args, kwargs)
        with lock_repo(repo):
            with halt.told_to_dvc():
                if call.get("run_cache"):
                    guards.refuse_run_cache()
                sealed = sealing.seal(Desk(repo, call.get("remote")), call)
            halt.say(f"signed {len(sealed.signed)} outputs, {len(sealed.kept)} already signed")
            guards.allow(repo, sealed)
            try:
                return original(repo, *args, **kwargs)
            finally:
                guards.allow(repo, None)

    return push


def _unexpected(problem: str) -> Unchecked:
    return Unchecked(
        "this DVC is not the one that mlseal knows how to protect",
        got=problem,
        expected=contract.supported(),
        remedy="install a supported DVC, or take mlseal out of it: mlseal dvc uninstall",
    )


def _refuse_everything(problem: str) -> None:
    from dvc.repo import Repo

    def refuse(*_: object, **__: object) -> None:
        raise halt.of(_unexpected(problem))

    Repo.__init__ = refuse
