"""URLs that name an evidence store: ``s3://bucket/prefix``. No secret may stand in one, and none leads out of itself.

What is refused is not repeated in the message, for it may hold a password.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mlseal.errors import Misuse

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
_CHAINED = re.compile(r"[a-z][a-z0-9+.-]*::", re.IGNORECASE)
_LOST_SLASH = re.compile(r"([a-z][a-z0-9+.-]+):/[^/]", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9._~+=@:,/!$&'()*-]+")
_SAME = {"s3a": "s3", "gcs": "gs"}
_NAMED = (
    *(
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
    ),
    *("AZURE_STORAGE_ACCOUNT_NAME", "STORAGE_EMULATOR_HOST"),
)
_OPTIONS = ("endpoint_url", "profile", "account_name", "account_host", "host", "port", "base_url")
_FILES = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
_FILE_LINE = re.compile(r"\s*(\[|endpoint_url|services|ignore_configured_endpoint_urls|s3\s*=\s*$)", re.IGNORECASE)
_CONNECTION = re.compile(r"(?:AccountName|BlobEndpoint|EndpointSuffix)=[^;]*", re.IGNORECASE)
_AZURE = ("abfs", "abfss", "wasb", "wasbs")
_CONTAINER = re.compile(r"[^@:/]+@[^@:/]+(/[^@]*)?")
LOCAL = ("file", "local")


@dataclass(frozen=True)
class BucketURL:
    """A store's URL, taken apart. ``str()`` of it holds no secret and may be shown to everybody."""

    scheme: str
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.rest}"

    @property
    def name(self) -> str:
        """16 hex digits for files of ours about this store: another service with the same bucket is another store.

        Which service it is say the environment, fsspec's configuration and AWS's files; nobody is asked. No secret is
        hashed. Where more is said than concerns this store, its name changes without need, which costs a cache.
        """
        return hashlib.sha256("\0".join([str(self), *_service()]).encode()).hexdigest()[:16]


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether `place` is meant as a URL. A `pathlib.Path` never is: it has lost a slash already."""
    return isinstance(place, str) and bool(_URL.fullmatch(place) or _CHAINED.match(place))


def parse(text: str) -> BucketURL:
    """The URL in `text`.

    Raises `Misuse` for a user or password, a query or fragment, a chain of file systems, and for parts such as ``..``.
    A password may hold a slash, so ``@`` is refused wherever it stands, save in Azure's ``container@account`` and in
    paths of this machine.
    """
    match = _URL.fullmatch(text)
    if match is None or "::" in text:
        _refuse(text, "a chain of file systems")
    scheme, rest = match[1].lower(), match[2]
    plain = (scheme in _AZURE and _CONTAINER.fullmatch(rest)) or (scheme in LOCAL and rest.startswith("/"))
    if "@" in rest and not plain:
        _refuse(text, "a user or password")
    if "?" in rest or "#" in rest:
        _refuse(text, "a query or fragment")
    if not _PLAIN.fullmatch(rest):
        _refuse(text, "characters other than letters, digits and plain signs" if rest else "nothing after the scheme")
    rest = rest.rstrip("/")
    parts = rest.removeprefix("/").split("/")  # memory:///x has no host
    if any(part in {"", ".", ".."} for part in parts):
        _refuse(text, "an empty or relative part")
    return BucketURL(_SAME.get(scheme, scheme), rest)


def local_path(url: BucketURL) -> str:
    """The directory that a ``file:`` URL names. Raises `Misuse` unless it is absolute, on this machine."""
    path = url.rest.removeprefix("localhost")
    if not path.startswith("/"):
        raise Misuse("a file: URL needs an absolute path", got=str(url)[:120], expected="file:///path/of/the/store")
    return path


def require_no_lost_slash(path: str) -> None:
    """Raise `Misuse` for ``s3:/bucket``, made by a path of a URL: evidence would lie in a directory named ``s3:``."""
    lost = _LOST_SLASH.match(path)
    if lost and not os.path.isdir(path):  # noqa: PTH112 - as text, before it becomes a path
        raise Misuse(
            "this is a URL that lost a slash",
            got=f"{lost[1][:20]}:/…",
            expected="SCHEME://BUCKET/PREFIX, or a directory",
            remedy="pass it as text, not as a path; a directory of that name is ./NAME",
        )


def _service() -> Iterator[str]:
    """What chooses between services that have buckets of one name."""
    yield from (os.environ.get(variable, "") for variable in _NAMED)
    yield from _CONNECTION.findall(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    with contextlib.suppress(ImportError, ValueError, OSError):  # not there, or its files cannot be read: told at use
        from fsspec.config import conf

        yield from _options(conf)
    for variable, usual in _FILES:
        with contextlib.suppress(OSError, RuntimeError):
            file = Path(os.environ.get(variable) or usual).expanduser()
            yield from filter(_FILE_LINE.match, file.read_text("utf-8", "replace").splitlines())


def _options(given: Mapping[str, Any]) -> Iterator[str]:
    """Those of fsspec's options, however deep, that name a service."""
    for key, value in sorted(given.items()):
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _options(value))
        elif key == "connection_string":
            yield from _CONNECTION.findall(str(value))
        elif key in _OPTIONS:
            yield f"{key}={value}"


def _refuse(text: str, found: str) -> NoReturn:
    raise Misuse(
        "this URL cannot name an evidence store",
        got=f"{found} ({text.partition(':')[0][:20]}:)",
        expected="SCHEME://BUCKET/PREFIX, with credentials in the environment or the cloud's own configuration",
        remedy="take it out; a secret that stood in a command line or variable should be replaced",
    )
