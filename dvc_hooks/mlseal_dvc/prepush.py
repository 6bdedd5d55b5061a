"""The git pre-push hook: no commit leaves whose outputs lack valid provenance. It chains with a hook that is there.

Installed as ``pre-push`` in the directory that git really uses (``core.hooksPath``, linked worktrees). A hook that was
there is renamed and run first, with the same arguments and input, so ``dvc install`` keeps pushing the data before ours
checks that they are signed. Removing ours puts the other back.

What is checked: the tip of every pushed ref and each commit on the way to it that touches DVC files and that the remote
does not have. Evidence is read from the DVC remote and verified; bytes are compared as far as they are in the cache.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlseal.errors import DuplicateName, Misuse
from mlseal.evidence.bundle import write_atomic
from mlseal_dvc import gitstate

NAME = "pre-push"
CHAINED = "pre-push.before-mlseal"
_MARK = "# mlseal dvc pre-push hook v1"


@dataclass(frozen=True)
class State:
    """What lies in the hooks directory."""

    directory: Path
    ours: bool
    chained: bool
    interpreter_missing: bool


def directory_of(repository: Path) -> Path:
    """The hooks directory that git uses for this working tree."""
    answer = gitstate.run(repository, "rev-parse", "--git-path", "hooks") or ""
    return (repository / answer).resolve()


def state(repository: Path) -> State:
    """What is installed in `repository`."""
    directory = directory_of(repository)
    text = _text(directory / NAME)
    ours = _MARK in text
    python = _interpreter(text) if ours else None
    missing = python is not None and not os.access(python, os.X_OK)
    return State(directory, ours, (directory / CHAINED).exists(), missing)


def install(repository: Path) -> State:
    """Install our hook, keeping the present one to run first. Repeating it renews ours and changes nothing else.

    Raises `DuplicateName` when both a foreign hook and one kept earlier are there: which one counts is not ours to say.
    """
    directory = directory_of(repository)
    hook, chained = directory / NAME, directory / CHAINED
    if os.path.lexists(hook) and _MARK not in _text(hook):
        if os.path.lexists(chained):
            raise DuplicateName(
                f"{directory} holds two pre-push hooks besides mlseal's",
                got=f"{NAME} and {CHAINED}",
                remedy="merge them into one, then install again",
            )
        directory.mkdir(parents=True, exist_ok=True)
        os.replace(hook, chained)
    write_atomic(hook, _script().encode(), mode=0o755)
    return state(repository)


def uninstall(repository: Path) -> bool:
    """Remove our hook and put back the one it chained; False if ours was not there."""
    directory = directory_of(repository)
    hook, chained = directory / NAME, directory / CHAINED
    if _MARK not in _text(hook):
        return False
    if os.path.lexists(chained):
        os.replace(chained, hook)
    else:
        hook.unlink()
    return True


def pushed(lines: str) -> Iterator[tuple[str, str]]:
    """(commit that is pushed, what the remote has) for each line that git gives the hook; deletions carry nothing."""
    for line in lines.splitlines():
        fields = line.split()
        if len(fields) != 4:
            raise Misuse("not the input of a pre-push hook", got=line[:80], expected="<ref> <id> <remote ref> <id>")
        if fields[1].strip("0"):
            yield fields[1], fields[3]


def commits(repository: Path, tip: str, known: str, remote: str) -> list[str]:
    """The commits to check for one pushed ref."""
    excluded = [f"--remotes={remote}"] if _is_remote(repository, remote) else []
    if known.strip("0") and gitstate.run(repository, "cat-file", "-e", f"{known}^{{commit}}", check=False) is not None:
        excluded.append(known)
    return gitstate.pointer_commits(repository, tip, excluded)


def _is_remote(repository: Path, remote: str) -> bool:
    return remote in (gitstate.run(repository, "remote", check=False) or "").split()


def _script() -> str:
    # -P keeps the working tree off the module path: a hostile clone may hold a package named mlseal.
    command = f"exec {shlex.quote(sys.executable)} -P -m mlseal dvc hook {NAME}"
    return f"""#!/bin/sh
{_MARK} (installed by 'mlseal dvc install', removed by 'mlseal dvc uninstall')
# python: {sys.executable}
here=$(dirname "$0")
input=$(mktemp) || exit 1
trap 'rm -f "$input"' EXIT
cat > "$input"
if [ -x "$here/{CHAINED}" ]; then
    "$here/{CHAINED}" "$@" < "$input" || exit $?
fi
exec 3< "$input"
rm -f "$input"
{command} -- "$@" <&3
"""


def _interpreter(text: str) -> str | None:
    for line in text.splitlines():
        if line.startswith("# python: "):
            return line.removeprefix("# python: ")
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
