"""URLs that name an evidence store: ``s3://bucket/prefix``. No secret may stand in one, and none leads out of itself.

What is refused is not repeated in the message, for it may hold a password.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import NoReturn

from mlseal.errors import Misuse

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
_CHAINED = re.compile(r"[a-z][a-z0-9+.-]*::", re.IGNORECASE)
_LOST_SLASH = re.compile(r"([a-z][a-z0-9+.-]+):/[^/]", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9._~+=@:,/!$&'()*-]+")
_SAME = {"s3a": "s3", "gcs": "gs"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL", "FSSPEC_GS_ENDPOINT_URL")
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
        """16 hex digits for files of ours about this store: another service with the same bucket is another store."""
        asked = [os.environ.get(variable, "") for variable in _ENDPOINTS]
        return hashlib.sha256("\0".join([str(self), *asked]).encode()).hexdigest()[:16]


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


def _refuse(text: str, found: str) -> NoReturn:
    raise Misuse(
        "this URL cannot name an evidence store",
        got=f"{found} ({text.partition(':')[0][:20]}:)",
        expected="SCHEME://BUCKET/PREFIX, with credentials in the environment or the cloud's own configuration",
        remedy="take it out; a secret that stood in a command line or variable should be replaced",
    )
