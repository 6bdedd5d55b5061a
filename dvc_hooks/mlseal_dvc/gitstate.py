"""The git side of a DVC repository, asked of git itself."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mlseal.errors import Misuse, Unreadable

# A hook runs with these set; left in place they would point git at another repository than the one asked about.
_INHERITED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")


def run(directory: str | os.PathLike[str], *arguments: str, check: bool = True) -> str | None:
    """Standard output of ``git``, stripped; None on failure when `check` is off. Raises `Unreadable` otherwise."""
    environment = {name: value for name, value in os.environ.items() if name not in _INHERITED}
    command = ["git", "-C", os.fspath(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
    except OSError as error:
        raise Unreadable("git cannot be run", got=str(error), remedy="install git") from error
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")
    if check:
        raise Unreadable(f"git {arguments[0]} failed", got=done.stderr.decode(errors="replace").strip()[:200])
    return None


def root_of(directory: str | os.PathLike[str]) -> Path:
    """The working tree that `directory` lies in. Raises `Misuse` outside of one."""
    top = run(directory, "rev-parse", "--show-toplevel", check=False)
    if not top:
        raise Misuse(f"{os.fspath(directory)} is not inside a git working tree", remedy="run it in the repository")
    return Path(top)


def has_git(repo: Any) -> bool:
    """Whether this DVC repository is under git."""
    return type(repo.scm).__name__ == "Git"


def top(repo: Any) -> str:
    """The git root of a DVC repository; its own root without git."""
    return str(repo.scm.root_dir if has_git(repo) else repo.root_dir)


def prefix(repo: Any) -> str:
    """Path of the DVC root relative to the git root, POSIX; empty when they are the same."""
    from dvc.fs import LocalFileSystem

    if not isinstance(repo.fs, LocalFileSystem):
        return str(repo.root_dir).strip("/")
    if not has_git(repo):
        return ""
    relative = os.path.relpath(os.path.realpath(repo.root_dir), os.path.realpath(repo.scm.root_dir))
    return "" if relative == "." else relative.replace(os.sep, "/")


def state(repo: Any, rev: str | None) -> tuple[str | None, bool, str | None]:
    """Commit, whether tracked files differ from it, and the URL of ``origin`` without credentials."""
    if not has_git(repo):
        return None, True, None
    directory = repo.scm.root_dir
    commit = run(directory, "rev-parse", "--verify", f"{(rev or 'HEAD').split(',')[0]}^{{commit}}", check=False)
    dirty = rev is None and (commit is None or run(directory, "status", "--porcelain", "-uno") != "")
    url = run(directory, "remote", "get-url", "origin", check=False)
    return commit, dirty, without_credentials(url) if url else None


def without_credentials(url: str) -> str:
    """`url` without user, password, query and fragment: what a URL is used to hide secrets in."""
    parts = urlsplit(url)
    if not parts.scheme:
        return re.sub(r"^[^/@:]*@(?=[^/]*:)", "", url)  # scp style: user@host:path
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def pointer_commits(directory: Path, tip: str, excluded: Sequence[str]) -> list[str]:
    """`tip` and the commits leading to it that touch DVC files, without those reachable from `excluded`.

    With ``--full-history``: git otherwise leaves out a side branch whose changes the merge does not show, such as one
    that adds data and takes them back.
    """
    paths = [":(top,glob)**/*.dvc", ":(top,glob)**/dvc.lock", ":(top,glob)**/dvc.yaml"]
    listed = run(directory, "rev-list", "--full-history", tip, "--not", *excluded, "--", *paths) or ""
    return list(dict.fromkeys([tip, *listed.split()]))
