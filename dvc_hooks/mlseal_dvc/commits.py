"""Which commits a push or a request for review brings, and whether what they track has evidence.

The same for the pre-push hook and for CI: the tip, and each commit on the way to it that touches DVC files and that the
other side does not have. Commits are read from git's objects; nothing of them is checked out, and DVC's configuration
is that of the working tree, never theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlseal.errors import Unchecked, UnknownName
from mlseal_dvc import commands, gitstate, pointers, prepush, session, verifying
from mlseal_dvc.checking import ReadObject
from mlseal_dvc.desk import Desk
from mlseal_dvc.governing import MARKER
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.verifying import Outcome

_NONE = "0" * 40


def of_push(repository: Path, remote: str, lines: str) -> list[str]:
    """The commits to check for what git told its pre-push hook. A tag stands for the commit that it names."""
    found: dict[str, None] = {}
    for tip, known in prepush.pushed(lines):
        commit = gitstate.run(repository, "rev-parse", "-q", "--verify", f"{tip}^{{commit}}", check=False)
        if commit is None:
            if gitstate.run(repository, "cat-file", "-t", tip, check=False) == "blob":
                continue  # a file under a ref of its own tracks nothing
            raise Unchecked(f"{tip[:12]} is pushed and is no commit", expected="branches, and tags of commits")
        found |= dict.fromkeys(gitstate.pointer_commits(repository, commit, _excluded(repository, remote, known)))
    return list(found)


def of_framework(repository: Path, environment: dict[str, str]) -> list[str]:
    """The commits to check for what the pre-commit program tells its hooks: of several pushed refs it names one.

    Started by hand, outside of a push, it is the current commit.
    """
    tip = environment.get("PRE_COMMIT_TO_REF") or environment.get("PRE_COMMIT_LOCAL_BRANCH") or "HEAD"
    if tip == "HEAD":
        return [require(repository, "HEAD")]
    known = environment.get("PRE_COMMIT_FROM_REF") or _NONE
    line = f"ref {require(repository, tip)} ref {require(repository, known) if known.strip('0') else known}"
    return of_push(repository, environment.get("PRE_COMMIT_REMOTE_NAME", ""), line)


def between(repository: Path, known: Sequence[str], tips: Sequence[str]) -> list[str]:
    """The commits to check of what `tips` bring beyond `known`. Raises `UnknownName` for what is no commit."""
    excluded = [require(repository, revision) for revision in known]
    wanted = [gitstate.pointer_commits(repository, require(repository, tip), excluded) for tip in tips]
    return list(dict.fromkeys(commit for part in wanted for commit in part))


def require(repository: Path, revision: str) -> str:
    """The commit id that `revision` stands for. Raises `UnknownName`."""
    spec = f"{revision}^{{commit}}"
    found = gitstate.run(repository, "rev-parse", "-q", "--verify", "--end-of-options", spec, check=False)
    if found is None:
        raise UnknownName(f"no commit {revision[:80]!r} here", remedy="fetch it first; in CI with the whole history")
    return found.splitlines()[-1]


def check(
    repository: Path, revisions: Sequence[str], read: Callable[[Desk, Pointer], ReadObject | None] = lambda _, __: None
) -> list[tuple[Desk, list[Outcome]]]:
    """Examine what `revisions` track, per DVC repository that demands evidence; `read` gives objects not in the cache.

    Raises `Unchecked` for a DVC repository that the working tree does not have: nobody says where its data lie.
    """
    done = []
    for root in roots(repository, revisions):
        if not (repository / root / ".dvc").is_dir():
            held = next(r for r in revisions if root in roots(repository, [r]))
            raise Unchecked(
                f"commit {held[:12]} holds a DVC repository at {root!r} that is not in the working tree",
                expected="its configuration in the tree that does the checking",
                remedy=f"before a push: git checkout {held[:12]}, then push again; in CI: land its .dvc/config first",
            )
        repo = commands.open_repo(repository / root)
        current = session.current()
        current.forced = current.forced or marked(repository, root, revisions)
        desk = Desk(repo, of_others=True)
        if desk.protected:
            done.append((desk, _examine(desk, repo, revisions, read)))
    return done


def _examine(
    desk: Desk, repo: Any, revisions: Sequence[str], read: Callable[[Desk, Pointer], ReadObject | None]
) -> list[Outcome]:
    work = pointers.selected(repo, {"revs": list(revisions), "workspace": False}, strict=True)
    return verifying.examine(desk, work, read=lambda pointer: read(desk, pointer))


def check_push(repository: Path, revisions: Sequence[str]) -> int:
    """What the pre-push hook does; returns how many output versions were verified. Raises for the first that fails."""
    count = 0
    for desk, outcomes in check(repository, revisions):
        verifying.require(desk, outcomes, "before git push", quiet=True)
        count += len(outcomes)
    return count


def verify(repository: Path, revisions: Sequence[str], *, with_bytes: bool) -> list[Outcome]:
    """What CI does: evidence of everything that `revisions` track, and its bytes on the remote. Raises as `check`."""

    def read(desk: Desk, pointer: Pointer) -> ReadObject | None:
        return commands.remote_reader(desk, pointer) if with_bytes else None

    outcomes = [outcome for _, part in check(repository, revisions, read) for outcome in part]
    if with_bytes:
        commands.require_present(outcomes)
    return outcomes


def roots(repository: Path, revisions: Sequence[str]) -> list[str]:
    """Where `revisions` hold a directory ``.dvc``, relative to the git root.

    Any file in it counts, not its ``config`` alone: the directory is what hides everything below from the DVC
    repository above.
    """
    found: dict[str, None] = {}
    for revision in revisions:
        listed = gitstate.run(repository, "ls-tree", "-r", "-z", "--name-only", revision) or ""
        for name in listed.split("\0"):
            parts = PurePosixPath(name).parts
            if ".dvc" in parts[:-1]:
                found[str(PurePosixPath(*parts[: parts.index(".dvc")]))] = None
    return list(found)


def tracking(repository: Path, revisions: Sequence[str]) -> str | None:
    """A file by which DVC tracks outputs in `revisions`; None if there is none."""
    for revision in revisions:
        listed = gitstate.run(repository, "ls-tree", "-r", "-z", "--name-only", revision) or ""
        for name in listed.split("\0"):
            parts = PurePosixPath(name).parts
            if parts and ".dvc" not in parts[:-1] and (parts[-1].endswith(".dvc") or parts[-1] == "dvc.lock"):
                return f"{commands.printable(name)} in {revision[:12]}"
    return None


def marked(repository: Path, root: str, revisions: Sequence[str]) -> bool:
    """Whether any of `revisions`, or a parent that they start from, holds the marker: deleting it frees nothing."""
    path = f".dvc/{MARKER}" if root == "." else f"{root}/.dvc/{MARKER}"
    candidates = [spec for revision in revisions for spec in (revision, f"{revision}^")]
    return any(
        gitstate.run(repository, "cat-file", "-e", f"{revision}:{path}", check=False) is not None
        for revision in candidates
    )


def _excluded(repository: Path, remote: str, known: str) -> list[str]:
    """What the other side has: what it said, and what this clone remembers of it."""
    excluded = [f"--remotes={remote}"] if _remembered(repository, remote) else []
    if known.strip("0") and gitstate.run(repository, "cat-file", "-e", f"{known}^{{commit}}", check=False) is not None:
        excluded.append(known)
    return excluded


def _remembered(repository: Path, remote: str) -> bool:
    """Whether the remote-tracking branches are about the place that is pushed to (``pushurl`` may be another)."""
    if remote not in (gitstate.run(repository, "remote", check=False) or "").split():
        return False
    fetch = gitstate.run(repository, "remote", "get-url", "--all", remote, check=False)
    return fetch == gitstate.run(repository, "remote", "get-url", "--push", "--all", remote, check=False)
