"""Small tools for wrapping: replace a method once, and ask whether a repository is protected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlseal_dvc import halt, session

_DONE = "_mlseal_wraps"
_ANSWER = "_mlseal_protected"


def replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace ``owner.name`` by ``wrap(original)``, once, however often it is called."""
    original = getattr(owner, name)
    if not wrapped(original):
        setattr(owner, name, marked(wrap(original)))


def wrapped(function: object) -> bool:
    """Whether `function` is one of our wrappers."""
    return bool(getattr(function, _DONE, False))


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, marked as one of our wrappers."""
    setattr(function, _DONE, True)
    return function


def protected(repo: Any) -> bool:
    """Whether evidence is demanded in `repo`; asked once per repository object, state of files and session.

    The answer is kept on the repository with the root it was given for, because DVC moves one `Repo` object through
    revisions. A "no" of a revision without the marker must not become the answer for the workspace.
    """
    key = (repo.root_dir, getattr(repo.fs, "rev", None), id(session.current()))
    known: dict[object, bool] = repo.__dict__.setdefault(_ANSWER, {})
    if key not in known:
        from mlseal_dvc.governing import Governance

        with halt.told_to_dvc():
            known[key] = Governance(repo, session.current()).protected
    return known[key]
