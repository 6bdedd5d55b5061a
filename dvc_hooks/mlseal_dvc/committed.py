"""Copy from another repository on this machine by its commit, not by what lies in somebody's working directory.

``dvc get PATH`` and ``dvc import PATH`` without ``--rev`` copy the workspace files of a local repository, while the
import's ``rev_lock`` names its commit. Those files are nobody's evidence. A protected source is therefore read at the
commit that is checked out there, through objects that are verified (`reading`). One's own repository is left alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlseal_dvc import gitstate, watching


def install() -> None:
    """Wrap DVC's functions. The caller has checked that they are as expected (`contract`)."""
    from dvc.fs.dvc import _DVCFileSystem
    from dvc.repo import Repo

    if not watching.wrapped(Repo.get):
        Repo.get = staticmethod(watching.marked(_getting(Repo.get)))
    make = _DVCFileSystem.__dict__["_make_repo"].__func__
    if not watching.wrapped(make):
        _DVCFileSystem._make_repo = classmethod(watching.marked(_opening(make)))


def _getting(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get(url: Any, path: Any, out: Any = None, rev: Any = None, *args: Any, **kwargs: Any) -> Any:
        return original(url, path, out, rev or _commit_of(url), *args, **kwargs)

    return get


def _opening(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _make_repo(cls: Any, **kwargs: Any) -> Any:
        if kwargs.get("url") and not kwargs.get("rev"):
            kwargs["rev"] = _commit_of(kwargs["url"])
        return original(cls, **kwargs)

    return _make_repo


def _commit_of(url: object) -> str | None:
    """The commit checked out in the local, protected repository at `url`; None for anything else."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    path = os.fspath(url) if isinstance(url, str | os.PathLike) else ""
    if not path or not Path(path).is_dir():
        return None
    try:
        root = os.path.realpath(Repo.find_root(path))
        if root == _own_root():
            return None
        source = Repo(root)
    except NotDvcRepoError:
        return None
    with source:
        if not gitstate.has_git(source) or not watching.protected(source):
            return None
    return gitstate.run(root, "rev-parse", "HEAD")


def _own_root() -> str | None:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return os.path.realpath(Repo.find_root())
    except NotDvcRepoError:
        return None
