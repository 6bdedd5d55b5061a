"""The pre-commit program's configuration: hooks in it that run DVC where the autoload is not.

DVC offers itself as hooks of that program with ``language: python``: they run in an environment of their own, built
from DVC's repository. Nothing of mlseal is in it, so ``dvc-pre-push`` uploads unsigned data and ``dvc-post-checkout``
places unverified ones, while plain ``dvc`` in the same shell signs and verifies. This finds such hooks and says what to
put in their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Unreadable
from mlseal_dvc import prepush, wheel

CONFIG = ".pre-commit-config.yaml"
REMEDY = (
    "replace it by a 'repo: local' hook with 'language: system' and the same entry (dvc git-hook …), or by the hook "
    "mlseal-dvc-push of mlseal's repository (docs/dvc.md)"
)
_DVC = re.compile(r"(^|[/:])(treeverse|iterative)/dvc(\.git)?/?$")
_MOVES_DATA = {"dvc-pre-push": "pushes data unsigned", "dvc-post-checkout": "places data unverified"}
_ENTRY = re.compile(r"\bdvc\b.*\b(push|pull|fetch|checkout|pre-push|post-checkout)\b")
_HERE = ("system", "unsupported", "script", "unsupported_script")
_AUTOLOAD = re.compile(re.escape(wheel.NAME).replace("\\-", "[-_.]"), re.IGNORECASE)


@dataclass(frozen=True)
class Isolated:
    """A hook that runs DVC without mlseal."""

    hook: str
    config: str
    does: str

    def __str__(self) -> str:
        return f"hook {self.hook} in {self.config} runs DVC in an environment without mlseal and {self.does}"


def isolated(repository: Path) -> list[Isolated]:
    """Every such hook of the configuration files in use. Raises `Unreadable` for one that cannot be parsed."""
    names = dict.fromkeys(name for name in (CONFIG, prepush.state(repository).config) if name)
    return [found for name in names for found in _in_file(repository / name, name)]


def _in_file(path: Path, name: str) -> Iterator[Isolated]:
    import yaml

    try:
        config = yaml.safe_load(path.read_bytes()) or {}
        for repo in config.get("repos") or []:
            for hook in repo.get("hooks") or []:
                does = _does(str(repo.get("repo", "")), hook)
                if does and not _safe(hook):
                    yield Isolated(str(hook.get("id")), name, does)
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise Unreadable(
            f"{name} cannot be read, so nobody knows which hooks move data",
            got=f"{type(error).__name__}: {error}"[:160],
            remedy=f"mend it: pre-commit validate-config {name}",
        ) from error


def _does(repo: str, hook: dict[str, Any]) -> str | None:
    """What the hook does with data; None for one that does not."""
    if _DVC.search(repo):
        return _MOVES_DATA.get(str(hook.get("id")))
    if repo == "local" and _ENTRY.search(str(hook.get("entry", ""))) and "mlseal" not in str(hook.get("entry")):
        return "moves data that nothing signs or verifies"
    return None


def _safe(hook: dict[str, Any]) -> bool:
    """Whether it runs in the user's own environment, or the autoload wheel is put into its own."""
    installed = any(_AUTOLOAD.search(str(each)) for each in hook.get("additional_dependencies") or [])
    return installed or hook.get("language") in _HERE
