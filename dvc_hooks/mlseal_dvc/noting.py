"""Take notes on how outputs come to be (`origin`): when a stage ran or was restored, and when it was committed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mlseal_dvc import gitstate, origin, pointers, restoring, watching


def install() -> None:
    """Wrap DVC's classes. The caller has checked that they are as expected (`contract`)."""
    from dvc.repo import Repo
    from dvc.stage import Stage

    watching.replace(Stage, "run", _running)
    watching.replace(Repo, "commit", _committing)


def _running(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__dict__.pop(restoring.RESTORED, None)
        result = original(self, *args, **kwargs)
        ran = self.cmd and not self.frozen and not pointers.bound(original, self, args, kwargs).get("dry")
        if ran and watching.protected(self.repo):
            _note_outputs(self, "run-cache" if self.__dict__.get(restoring.RESTORED) else "ran")
        return result

    return run


def _committing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def commit(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        directory = origin.notes_of(self)
        if directory is not None and watching.protected(self):
            for pointer in pointers.selected(self, {}):
                if pointer.command is not None and origin.of(pointer, directory) == "unknown":
                    origin.note(directory, pointer, "committed")
        return result

    return commit


def _note_outputs(stage: Any, how: origin.Origin) -> None:
    directory = origin.notes_of(stage.repo)
    if directory is None:
        return
    prefix = gitstate.prefix(stage.repo)
    for out in stage.outs:
        if out.use_cache and out.hash_info and out.is_in_repo:
            origin.note(directory, pointers.pointer_of(out, None, prefix), how)
