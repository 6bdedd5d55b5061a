"""The remote at the source of an import, opened by what that repository says about itself.

DVC reads the source's own ``.dvc/config`` at the imported commit, and on top of it what the importing ``.dvc`` file
says (``config`` and ``remote`` below ``repo``). Both belong to somebody else. They decide where bytes and evidence are
fetched, never who is believed: trust root, signers and policy come from whoever verifies, and bytes are compared.

They can do harm in another way. Settings of a remote name programs that DVC runs for credentials
(``bearer_token_command``; ``credential_process`` in a file that ``configpath`` names), files that it reads, and servers
that it sends the reader's tokens to. Who imports or pulls, runs DVC, and DVC opens the source so with or without
mlseal. A check of a request for review is different: a commit that nobody agreed to would choose the repository, and
with it the program. So whatever only looks (`Desk.of_others`: verify, status, the pre-push hook, CI) opens a source's
remote only if its settings are of the harmless ones listed here; with any other, the answer is "not checkable".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlseal.errors import ServiceUnavailable, Unchecked
from mlseal_dvc import gitstate, pointers
from mlseal_dvc.pointers import Pointer

if TYPE_CHECKING:
    from mlseal_dvc.desk import Desk

_ANYWHERE = frozenset(
    {"url", "version_aware", "worktree", "verify", "no_traverse", "use_ssl", "allow_anonymous_login"}
    | {"jobs", "checksum_jobs"}
)
# A signed S3 request is of no use to another server; other stores' clients would send it a token that is.
_BY_SCHEME: Mapping[str, frozenset[str]] = {
    "": frozenset({"type", "protected", "shared", "slow_link_warning"}),
    "s3": frozenset({"endpointurl", "region"}),
    "mlseals3": frozenset({"endpointurl", "region"}),
    "http": frozenset(),
    "https": frozenset(),
    "gs": frozenset({"projectname"}),
    "azure": frozenset({"account_name"}),
}


@dataclass(frozen=True)
class Source:
    """The source's remote (`dvc.data_cloud.Remote`), and the import as the source's own output has it there."""

    remote: Any
    pointer: Pointer


def of(desk: Desk, pointer: Pointer) -> Source | None:
    """Where the data of an import lie at its source; None when the source has no remote.

    The remote is that of the source's output (``remote:``), else the default one of the DVC repository that the path
    lies in, which may be in a subdirectory of the source.

    Raises:
        ServiceUnavailable: the source cannot be read.
        Unchecked: a commit of others wants a source opened in a way that could do harm; see the module.
    """
    from dvc.config import NoRemoteError
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    if pointer.source is None:
        return None
    url, path = pointer.dependencies[0].repo_url, pointer.dependencies[0].path
    if desk.of_others and "::" in (url or ""):
        raise _harmful(pointer, url, "a URL that git hands to another program")
    try:
        repo, out = _opened(pointer.source().fs, path)
        name = out.remote if out is not None else None
        if desk.of_others:
            _require_harmless(repo, name, pointer, url)
        remote = repo.cloud.get_remote(name)
    except NoRemoteError:
        return None
    except (DvcException, SCMError, OSError) as error:
        raise ServiceUnavailable(
            f"the repository that {pointer.path} was imported from cannot be read",
            got=f"{gitstate.without_credentials(url or '')}: {error}"[:160],
            remedy="check its URL and your access to it",
        ) from error
    return Source(remote, pointer if out is None else _as_there(pointer, out))


def _opened(filesystem: Any, path: str) -> tuple[Any, Any]:
    """The DVC repository at the source that `path` lies in, and its output that holds it; None if none does."""
    key = filesystem._get_key_from_relative(path)
    repo, _, inside = filesystem._get_subrepo_info(key)
    for out in repo.index.outs:
        if out.use_cache and out.is_in_repo and inside[: len(held := tuple(out.index_key[1]))] == held:
            return repo, out
    return repo, None


def _as_there(pointer: Pointer, out: Any) -> Pointer:
    """`pointer` with the versions that the source records; with its list of files if it is the whole output."""
    whole = out.files and str(out.hash_info.value) == pointer.oid
    listed = bytes(out.get_obj().as_bytes()) if whole else pointer.listed
    return replace(pointer, versions=tuple(pointers.versions_of(out)), listed=listed)


def _require_harmless(repo: Any, name: str | None, pointer: Pointer, url: str | None) -> None:
    name = name or repo.config["core"].get("remote")
    settings: Mapping[str, Any] = repo.config["remote"].get(name) or {}
    scheme = urlsplit(str(settings.get("url", ""))).scheme
    if settings and scheme not in _BY_SCHEME:
        raise _harmful(pointer, url, f"{scheme}:// of remote {name}")
    # DVC's schema fills in defaults, which say nothing.
    said = {key for key, value in settings.items() if value not in (None, False, "", [])}
    if more := sorted(said - _ANYWHERE - _BY_SCHEME.get(scheme, frozenset())):
        raise _harmful(pointer, url, f"{more[0]} of remote {name}")


def _harmful(pointer: Pointer, url: str | None, what: str) -> Unchecked:
    return Unchecked(
        f"the source of {pointer.path} is not opened for a commit that is only being checked",
        got=f"{what} in {gitstate.without_credentials(url or '')}"[:200],
        expected="a source whose remote is a directory, http, s3, gs or azure without further settings",
        remedy="import what was checked elsewhere: dvc get, then dvc add, here",
    )
