"""Strict remotes, ``mlseals3://bucket/prefix``: S3 that DVC can only use together with mlseal.

A DVC without the plugin does not know the scheme and ends every command of the repository with "Unsupported URL type"
(exit code 251), so nobody pushes unsigned or pulls unverified by forgetting the plugin. With it, the remote is S3 with
all of DVC's S3 settings, the evidence lies under the same prefix, and the repository is protected: `demanded`.

DVC takes for a directory what it does not recognise as a URL: ``mlseal+s3://b/p`` and ``mlseals3:///p`` become a local
path, and a push "succeeds". Whoever has the plugin gets an error for such look-alikes instead. A typing error in a
scheme that DVC does parse (``mlseal3://b``) it refuses itself.

The scheme names remotes, and nothing else: ``dvc get-url`` and ``import-url`` would read such a URL as plain S3, past
all evidence. So its file system opens only while DVC opens a remote.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

NAME = "mlseals3"
_CLASS = "mlseal_dvc.s3remote.StrictS3FileSystem"
_MISSING = "mlseals3 remotes need dvc-s3: pip install 'dvc[s3]'"
_MARK = "_mlseal_scheme"
_BEFORE_COLON = re.compile(r"\s*([\w+.\- ]{1,40}?)\s*:(?:/|$)")
_ALIKE = 0.75
_OPENS = "_mlseal_opens_remotes"
_opening: ContextVar[bool] = ContextVar("opening a remote", default=False)


def register() -> None:
    """Teach this process's DVC the scheme, once. The caller has checked DVC's shape (`contract`)."""
    from dvc import config, config_schema
    from dvc.data_cloud import DataCloud
    from dvc_objects.fs import known_implementations

    if getattr(config_schema.SCHEMA["remote"][str], _MARK, False):
        return
    known_implementations[NAME] = {"class": _CLASS, "err": _MISSING}
    config_schema.REMOTE_SCHEMAS[NAME] = config_schema.REMOTE_SCHEMAS["s3"]
    # ByUrl has compiled its mapping, and the schema as a whole is remembered: both are made anew.
    config_schema.SCHEMA["remote"] = {str: _refusing(config_schema.ByUrl(config_schema.REMOTE_SCHEMAS))}
    config.get_compiled_schema.memory.clear()
    if not getattr(DataCloud.get_remote, _OPENS, False):
        DataCloud.get_remote = _telling(DataCloud.get_remote)


def require_remote() -> None:
    """Raise, into DVC, unless a remote is being opened: the answer to a strict URL in any other place."""
    from mlseal.errors import Refusal
    from mlseal_dvc import halt

    if not _opening.get():
        raise halt.of(
            Refusal(
                "a strict URL names a remote and nothing else: read like this, its data would be unverified",
                got=f"{NAME}://…",
                expected="a target in a DVC repository that has it as its remote",
                remedy="dvc get REPOSITORY PATH or dvc import REPOSITORY PATH",
            )
        )


def demanded(repo: Any) -> bool:
    """Whether any remote of `repo` is strict: in the configuration in force, or in the committed file.

    The second matters where somebody's own configuration, or ``--remote-config``, puts another URL in its place.
    """
    return _strict(repo.config) or _strict(_committed(repo))


def urls(remotes: object) -> list[str]:
    """The URLs in a ``remote`` section of DVC's configuration."""
    sections = remotes.values() if isinstance(remotes, Mapping) else ()
    return [str(section.get("url", "")) for section in sections if isinstance(section, Mapping)]


def is_strict(url: str) -> bool:
    """Whether a remote's URL has this scheme; schemes are written in any case."""
    return urlsplit(url.strip()).scheme == NAME


def looks_alike(url: str) -> str | None:
    """What in `url` was probably meant to be this scheme, although DVC takes the URL for a local path; None if nothing.

    DVC has made such a URL absolute by then, so every component of the path is looked at.
    """
    if urlsplit(url).netloc:
        return None
    for part in url.split("/"):
        found = _BEFORE_COLON.match(f"{part}/")
        if found is None and part.strip().lower().startswith(f"{NAME}:"):
            return part
        if found is not None and _alike(found[1]):
            return part
    return None


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    """``DataCloud.get_remote``, during which `require_remote` is content."""

    @functools.wraps(original)
    def get_remote(*args: Any, **kwargs: Any) -> Any:
        before = _opening.set(True)
        try:
            return original(*args, **kwargs)
        finally:
            _opening.reset(before)

    setattr(get_remote, _OPENS, True)
    return get_remote


def _alike(text: str) -> bool:
    letters = re.sub("[^a-z0-9]", "", text.lower())
    return "mlseal" in letters or difflib.SequenceMatcher(None, letters, NAME).ratio() >= _ALIKE


def _refusing(by_url: Callable[[Any], Any]) -> Callable[[Any], Any]:
    from dvc.config_schema import Invalid

    def validate(data: Any) -> Any:
        part = looks_alike(str(data.get("url", ""))) if isinstance(data, Mapping) else None
        if part is not None:
            raise Invalid(f"mlseal: {part!r} would be a local directory; a strict remote is {NAME}://bucket/prefix")
        return by_url(data)

    setattr(validate, _MARK, True)
    return validate


def _strict(config: Mapping[str, Any]) -> bool:
    return any(map(is_strict, urls(config.get("remote"))))


def _committed(repo: Any) -> Mapping[str, Any]:
    """The tree's own ``.dvc/config``, without what shadows it. Empty where there is none."""
    from dvc.config import Config

    if not repo.dvc_dir:
        return {}
    path = repo.fs.join(repo.dvc_dir, Config.CONFIG)
    found: Mapping[str, Any] = Config.load_file(path, fs=repo.fs) if repo.fs.exists(path) else {}
    return found
