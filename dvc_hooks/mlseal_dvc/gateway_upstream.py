"""What stands behind the gateway: a directory, an HTTP server or an S3 bucket that only the gateway may write.

Names are those of DVC and of `layout`, relative to the remote's root, and checked by the caller. Nothing read here is
trusted. A write is whole or absent; where the store can tell, it never replaces what is there unless asked to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from mlseal.errors import MissingExtra, Misuse, ServiceUnavailable
from mlseal_dvc import layout

_SECONDS = (10.0, 60.0)
_PART = 64 << 20
_SINGLE_PUT = 1 << 30


class UpstreamFailed(ServiceUnavailable):
    """The store behind the gateway did not answer, or not as it should."""


class Source(Protocol):
    """A file being read."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, nothing at the end."""


class Upstream(Protocol):
    """A tree of files."""

    def size(self, name: str) -> int | None:
        """Bytes of the file, None if there is none. Raises `UpstreamFailed`."""

    def open(self, name: str) -> contextlib.AbstractContextManager[Source | None]:
        """The file for reading from its beginning, None if there is none. Raises `UpstreamFailed`."""

    def put(self, name: str, file: Path, *, replace: bool = False) -> bool:
        """Store `file`; False if another is there and stays. Raises `UpstreamFailed`, and then nothing is there."""

    def files(self, directory: str) -> list[tuple[str, int]] | None:
        """Names and sizes of the files below `directory`, sorted; None where listing is not possible.

        Raises `UpstreamFailed`.
        """


class DirectoryUpstream:
    """A directory, for small teams."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, name: str) -> int | None:
        """See `Upstream`."""
        with _failing(self):
            try:
                return (self._root / name).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextmanager
    def open(self, name: str) -> Iterator[Source | None]:
        """See `Upstream`."""
        with _failing(self):
            try:
                file = (self._root / name).open("rb")
            except (FileNotFoundError, NotADirectoryError):
                file = None
        if file is None:
            yield None
            return
        with file:
            yield file

    def put(self, name: str, file: Path, *, replace: bool = False) -> bool:
        """See `Upstream`."""
        target = self._root / name
        aside = target.with_name(f".{secrets.token_hex(8)}.tmp")
        with _failing(self):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with file.open("rb") as source, aside.open("xb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
                    copy.flush()
                    os.fsync(copy.fileno())
                    os.fchmod(copy.fileno(), 0o444)
                if replace:
                    aside.replace(target)
                else:
                    os.link(aside, target)  # unlike a rename, fails if it is there
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)
        return True

    def files(self, directory: str) -> list[tuple[str, int]] | None:
        """See `Upstream`."""
        with _failing(self):
            found = (Path(base, name) for base, _, files in os.walk(self._root / directory) for name in files)
            kept = (path for path in found if not path.name.startswith("."))
            return sorted((path.relative_to(self._root).as_posix(), path.stat().st_size) for path in kept)

    def __str__(self) -> str:
        return str(self._root)


class HttpUpstream:
    """An HTTP server that takes PUT, as DVC's own HTTP remotes do."""

    def __init__(self, url: str) -> None:
        import requests

        self._url = url.rstrip("/")
        self._session = requests.Session()

    def size(self, name: str) -> int | None:
        """See `Upstream`."""
        with _failing(self):
            headers = {"Accept-Encoding": "identity"}
            answer = self._session.head(self._at(name), headers=headers, timeout=_SECONDS, allow_redirects=False)
            return None if answer.status_code == 404 else int(self._good(answer).headers["Content-Length"])

    @contextmanager
    def open(self, name: str) -> Iterator[Source | None]:
        """See `Upstream`."""
        with _failing(self):
            headers = {"Accept-Encoding": "identity"}
            answer = self._session.get(
                self._at(name), headers=headers, timeout=_SECONDS, stream=True, allow_redirects=False
            )
            if answer.status_code != 404:
                self._good(answer)
        with answer:
            yield None if answer.status_code == 404 else _Whole(answer)

    def put(self, name: str, file: Path, *, replace: bool = False) -> bool:
        """See `Upstream`."""
        headers = {} if replace else {"If-None-Match": "*"}
        with _failing(self), file.open("rb") as body:
            answer = self._session.put(
                self._at(name), data=body, headers=headers, timeout=_SECONDS, allow_redirects=False
            )
            if answer.status_code == 412:
                return False
            self._good(answer)
        return True

    def files(self, directory: str) -> list[tuple[str, int]] | None:
        """See `Upstream`."""
        del directory
        return None

    def _at(self, name: str) -> str:
        return f"{self._url}/{name}"

    @staticmethod
    def _good(answer: Any) -> Any:
        if not 200 <= answer.status_code < 300:
            raise OSError(f"HTTP {answer.status_code} {answer.reason}")
        return answer

    def __str__(self) -> str:
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class _Whole:
    """The body of an HTTP answer; one that ends early is an error, not a short file."""

    def __init__(self, answer: Any) -> None:
        self._raw = answer.raw
        self._raw.enforce_content_length = True

    def read(self, size: int = -1, /) -> bytes:
        """See `Source`."""
        try:
            return bytes(self._raw.read(None if size < 0 else size))
        except Exception as error:
            raise OSError(str(error)[:120]) from error


class S3Upstream:
    """A bucket and a prefix in it, with the credentials that botocore finds."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None) -> None:
        try:
            import botocore.session
            from botocore.config import Config
        except ModuleNotFoundError as error:
            raise MissingExtra("an S3 upstream needs dvc-s3", remedy="pip install 'dvc[s3]'") from error
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        config = Config(connect_timeout=_SECONDS[0], read_timeout=_SECONDS[1], retries={"max_attempts": 3})
        session = botocore.session.get_session()
        self._client = session.create_client("s3", endpoint_url=endpoint, config=config)

    def size(self, name: str) -> int | None:
        """See `Upstream`."""
        with _failing(self):
            try:
                return int(self._client.head_object(**self._at(name))["ContentLength"])
            except self._client.exceptions.ClientError as error:
                _require_absent(error)
                return None

    @contextmanager
    def open(self, name: str) -> Iterator[Source | None]:
        """See `Upstream`."""
        with _failing(self):
            try:
                body = self._client.get_object(**self._at(name))["Body"]
            except self._client.exceptions.ClientError as error:
                _require_absent(error)
                body = None
        if body is None:
            yield None
            return
        with contextlib.closing(body):
            yield body

    def put(self, name: str, file: Path, *, replace: bool = False) -> bool:
        """See `Upstream`."""
        unless = {} if replace else {"IfNoneMatch": "*"}
        with _failing(self):
            try:
                if file.stat().st_size > _SINGLE_PUT:
                    self._put_parts(name, file, unless)
                else:
                    with file.open("rb") as body:
                        self._client.put_object(**self._at(name), Body=body, **unless)
            except self._client.exceptions.ClientError as error:
                if error.response.get("Error", {}).get("Code") in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    return False
                raise
        return True

    def _put_parts(self, name: str, file: Path, unless: dict[str, str]) -> None:
        upload = self._at(name) | {"UploadId": self._client.create_multipart_upload(**self._at(name))["UploadId"]}
        part_size = max(_PART, file.stat().st_size // 9_000)
        try:
            with file.open("rb") as body:
                chunks = enumerate(iter(lambda: body.read(part_size), b""), 1)
                parts = [
                    {"PartNumber": n, "ETag": self._client.upload_part(**upload, PartNumber=n, Body=chunk)["ETag"]}
                    for n, chunk in chunks
                ]
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **unless)
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.abort_multipart_upload(**upload)
            raise

    def files(self, directory: str) -> list[tuple[str, int]] | None:
        """See `Upstream`."""
        with _failing(self):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}{directory}/"
            )
            rows = (row for page in pages for row in page.get("Contents", []))
            return sorted((row["Key"].removeprefix(self._prefix), int(row["Size"])) for row in rows)

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{name}"}

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")


class EvidenceUpstream:
    """The evidence in an upstream, as the rest of this adapter reads it (`places.Place`); not written this way."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        return read_small(self._upstream, evidence_name(name), layout_limit(name))

    def write(self, name: str, data: bytes) -> None:
        """Never: what is written passes the gateway."""
        raise Misuse(f"{name} is written by the gateway only", got=f"{len(data)} bytes")

    def create(self, name: str, data: bytes) -> None:
        """Never, as `write`."""
        self.write(name, data)

    def names(self, directory: str) -> list[str] | None:
        """See `Place`."""
        found = self._upstream.files(evidence_name(directory))
        top = len(evidence_name(""))
        return None if found is None else [name[top:] for name, _ in found]

    def __str__(self) -> str:
        return f"{self._upstream}/{evidence_name('')}".rstrip("/")


def evidence_name(name: str) -> str:
    """Name from the remote's root of a file of `layout`."""
    return "/".join((*layout.ROOT, name))


def layout_limit(name: str) -> int:
    """The largest file of this kind that is read into memory."""
    return (1 << 30) if name.startswith("manifests/") else (16 << 20)


def read_small(upstream: Upstream, name: str, limit: int) -> bytes | None:
    """The bytes of a file of at most `limit`. Raises `UpstreamFailed`, also for larger ones."""
    with upstream.open(name) as file:
        if file is None:
            return None
        with _failing(upstream):
            data = file.read(limit + 1)
            if len(data) > limit:
                raise OSError(f"{name} is larger than {limit} bytes")
            return data


def open_upstream(url: str, endpoint: str | None = None) -> Upstream:
    """The upstream at a URL or path. Raises `Misuse` for anything that is neither."""
    parts = urlsplit(url)
    if endpoint is not None and parts.scheme != "s3":
        raise Misuse("--endpoint-url is for s3:// upstreams", got=url)
    if parts.scheme in ("http", "https") and parts.netloc:
        return HttpUpstream(url)
    if parts.scheme == "s3" and parts.netloc:
        return S3Upstream(parts.netloc, parts.path, endpoint)
    if parts.scheme or ":" in url.split("/", maxsplit=1)[0] or not os.path.isdir(url):
        raise Misuse(
            "no upstream of this kind", got=url, expected="http(s)://…, s3://bucket/prefix or a directory that exists"
        )
    return DirectoryUpstream(Path(url).resolve())


def _require_absent(error: Any) -> None:
    """Raise `error` again unless it says that there is no such file."""
    if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
        raise error
    if error.response.get("Error", {}).get("Code") == "NoSuchBucket":
        raise error


@contextmanager
def _failing(upstream: object) -> Iterator[None]:
    try:
        yield
    except ServiceUnavailable:
        raise
    except Exception as error:  # each store has its own errors
        raise UpstreamFailed(
            f"the store behind the gateway ({upstream}) failed",
            got=f"{type(error).__name__}: {error}"[:160],
            remedy="try again later; whoever runs the gateway looks at the store",
        ) from error
