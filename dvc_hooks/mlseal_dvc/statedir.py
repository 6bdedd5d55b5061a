"""A private place for DVC's memory of hashes, where the usual one can be changed by other users of the machine.

DVC keeps what it remembers (the MD5 of each file, what lies on a remote, links) in ``/var/tmp/dvc/repo``, which it
makes writable by everybody and reads back with pickle. Whoever plants a row there says which MD5 a changed file has:
``dvc add`` then believes that it is another version, and puts that one in its place. Nothing here relies on these
files, but the wrong data would be what gets signed. So in a protected repository, where somebody else could write
there, DVC is given a directory in this user's own state instead. One that only this user can reach is left in use.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from mlseal.evidence import paths
from mlseal_dvc import watching

_KEPT = "_mlseal_site_cache_dir"
_EXPERIMENTS = (".dvc", "tmp", "exps")


def install() -> None:
    """Wrap DVC's property. The caller has checked that it is as expected (`contract`)."""
    from dvc.repo import Repo

    usual = Repo.__dict__["site_cache_dir"]
    make = getattr(usual, "fget", None) or usual.func
    if watching.wrapped(make):
        return

    def site_cache_dir(self: Any) -> str:
        """DVC's directory, or a private one instead of an exposed one."""
        known: dict[str, str] = self.__dict__
        if _KEPT not in known:  # once, as DVC does: the repository object is moved through revisions later
            known[_KEPT] = _of(self, make(self))
        return known[_KEPT]

    Repo.site_cache_dir = property(watching.marked(site_cache_dir))


def scratch(repo: Any) -> Path | None:
    """Directory for what mlseal keeps about `repo` on this machine; None if DVC has none for temporary files.

    An experiment that runs in a directory of its own, below the repository's ``.dvc/tmp/exps``, has the repository's:
    its own directory is removed when it is done, with all that was noted or quarantined there.
    """
    if not repo.tmp_dir:
        return None
    for parent in Path(repo.root_dir).parents:
        if parent.parts[-len(_EXPERIMENTS) :] == _EXPERIMENTS:
            return parent.parent / "mlseal"
    return Path(repo.tmp_dir) / "mlseal"


def _of(repo: Any, directory: str) -> str:
    if not watching.protected(repo) or not exposed(Path(directory)):
        return directory
    return str(paths.private(paths.private(paths.state_dir() / "dvc" / "site") / Path(directory).name))


def exposed(path: Path) -> bool:
    """Whether another user could change what lies below `path`, or put something else in its place."""
    for part in (*reversed(path.absolute().parents), path.absolute()):
        try:
            found = os.stat(part)
        except FileNotFoundError:
            return False  # made later, inside of what was found to be safe
        foreign = found.st_uid not in (0, os.getuid())
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        if foreign or writable:
            return True
        if not found.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            return False  # nobody else gets any further
    return False
