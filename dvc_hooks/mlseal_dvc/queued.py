"""The queue's workers run the DVC of this interpreter, not whichever program is called ``dvc``.

``dvc queue start`` and ``dvc exp run --run-all`` start a worker by the name ``dvc``, and the worker starts each
experiment by that name. Found first on the path may be another environment's DVC, without the autoload: then what the
worker restores and saves is not protected. Found nowhere, as after ``python -m dvc``, no worker ever starts and
``--run-all`` waits for it for ever. So, in a protected repository, the name becomes this interpreter's ``-m dvc``. The
environment is inherited as DVC has it, so trust root, policy and store are those of whoever started the worker.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from mlseal_dvc import watching

_NAME = "dvc"


def install() -> None:
    """Wrap DVC's property. The caller has checked that it is as expected (`contract`)."""
    from dvc.repo import Repo

    # The class is wrapped when it is first used, since importing it takes longer than most commands.
    _after(Repo, "experiments", lambda _, made: _after(type(made), "celery_queue", _watch))


def _after(owner: Any, name: str, act: Callable[[Any, Any], None]) -> None:
    """Call ``act(self, made)`` when the cached property `name` of `owner` has been made."""
    descriptor = owner.__dict__[name]
    make = getattr(descriptor, "fget", None) or descriptor.func
    if watching.wrapped(make):
        return

    @functools.wraps(make)
    def making(self: Any) -> Any:
        made = make(self)
        act(self, made)
        return made

    replaced = type(descriptor)(watching.marked(making))
    if hasattr(replaced, "__set_name__"):
        replaced.__set_name__(owner, name)
    setattr(owner, name, replaced)


def _watch(experiments: Any, _: Any) -> None:
    if watching.protected(experiments.repo):
        from dvc_task.proc.process import ManagedProcess

        watching.replace(ManagedProcess, "__init__", _naming)


def _naming(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def init(self: Any, args: Any, *more: Any, **kwargs: Any) -> None:
        original(self, args, *more, **kwargs)
        self.args = here(self.args)

    return init


def here(command: list[str]) -> list[str]:
    """`command` with the bare name of DVC replaced by this interpreter's; anything else as it is.

    ``-P``: a file ``dvc.py`` in the repository is not DVC.
    """
    return [sys.executable, "-P", "-m", "dvc", *command[1:]] if command[:1] == [_NAME] else command
