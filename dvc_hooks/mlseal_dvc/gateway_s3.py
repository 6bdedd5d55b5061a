"""The same gateway for S3 clients: as much of S3 as DVC's file system (s3fs) speaks, path style, one bucket.

===================================  ================================================================================
HEAD, GET of an object; one range    as the HTTP side: what is stored, verified first if the gateway is told so
PUT of an object                     as the HTTP side: judged, then stored
multipart upload                     parts wait here (`gateway_parts`); put together they are judged as one body
list (version 2), HEAD of a bucket   names of files that the HTTP side would hand out, nothing else
anything else                        501, and nothing happens: delete, copy, tags, versions, ACLs, presigned URLs
===================================  ================================================================================

An ETag here says which name and size, not which bytes; no times are told.

Spec: docs.aws.amazon.com/AmazonS3/latest/API
"""

from __future__ import annotations

import hashlib
import logging
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from mlseal.errors import Error, Misuse
from mlseal.evidence.identity import Identity
from mlseal_dvc.gateway import Found, Gateway, status_of
from mlseal_dvc.gateway_access import Action, Callers, NotListed, Unknown
from mlseal_dvc.gateway_parts import NoSuchUpload, WrongParts
from mlseal_dvc.gateway_paths import Malformed, Target, target
from mlseal_dvc.gateway_sigv4 import Misframed, Signed, checked, unframed, verify

_logger = logging.getLogger("mlseal.gateway")
_XML, _HEAD = "application/xml", '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_RESERVED = {"files", "attestations"}
_LIST_LIMIT, _PAGE = 4 << 20, 1000
_TOPS = ("attestations", "files")
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{0,15})|bytes=-(\d{1,15})")
_LISTING = {
    "list-type",
    "prefix",
    "delimiter",
    "max-keys",
    "continuation-token",
    "encoding-type",
    "start-after",
    "fetch-owner",
}
_CODES = {
    400: "InvalidRequest",
    401: "AccessDenied",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    409: "OperationAborted",
    411: "MissingContentLength",
    413: "EntityTooLarge",
    416: "InvalidRange",
    501: "NotImplemented",
    503: "SlowDown",
}


class Wire(Protocol):
    """What this needs of a connection."""

    command: str
    headers: Any
    server: Any

    def incoming(self, limit: int) -> AbstractContextManager[Iterator[bytes]]:
        """The body, as it comes."""

    def require_no_body(self) -> None:
        """Raise if there is one."""

    def begin(self, status: int, reason: str, size: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        """The head of an answer."""

    def say(self, status: int, reason: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer."""

    def send(
        self, found: Found, start: int, size: int, status: int = 200, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Answer with a piece of a file."""

    def peer(self, who: str) -> str:
        """Who that is, for the log."""


class S3Front:
    """One bucket.

    Args:
        bucket: its name, the first part of every path.
        callers: whose keys count; None lets everybody.
    """

    def __init__(self, gateway: Gateway, bucket: str, callers: Callers | None) -> None:
        if not _BUCKET.fullmatch(bucket) or bucket in _RESERVED:
            raise Misuse(
                "not a name for a bucket here", got=bucket, expected="3 to 63 of a-z, 0-9 and '-'; not 'files'"
            )
        self._gateway, self._bucket, self._callers, self.parts = gateway, bucket, callers, gateway.parts()

    def owns(self, path: str) -> bool:
        """Whether a request's path is in the bucket."""
        return path.split("/", 2)[1:2] == [self._bucket]

    def serve(self, wire: Wire, path: str, query: str) -> None:
        """Answer one request. Raises `Malformed`."""
        asked = _query(query)
        key = path.removeprefix(f"/{self._bucket}").removeprefix("/")
        writes = wire.command not in ("GET", "HEAD")
        signed = self._signed(wire, path, query, "write" if writes else "read")
        if "x-amz-copy-source" in wire.headers:
            raise Malformed(501, "copying is not served here")
        if not writes:
            wire.require_no_body()
        if not key:
            self._bucket_itself(wire, asked)
        elif (found := target(f"/{key}")) is None:
            raise Malformed(
                403 if writes else 404, "no file of a DVC remote (version 3) or of its evidence has this name"
            )
        elif writes:
            self._write(wire, found, asked, signed)
        elif asked:
            raise Malformed(501, "only whole objects are served here, without versions or other qualities")
        else:
            self._hand_out(wire, found)

    def _signed(self, wire: Wire, path: str, query: str, action: Action) -> Signed:
        headers = [(name, value) for name, value in wire.headers.items()]
        if self._callers is None:
            digest = wire.headers.get("x-amz-content-sha256", "")
            return Signed(Identity("", ""), None, framed=digest.startswith("STREAMING-"))
        tls = wire.server.tls is not None
        url = f"{'https' if tls else 'http'}://{wire.headers.get('Host', '')}{path}{'?' if query else ''}{query}"
        try:
            signed = verify(wire.command, url, headers, self._callers.keys, self._callers.clock(), tls=tls)
            self._callers.access.require(signed.by, action)
        except (Unknown, NotListed) as error:
            raise Malformed(403, str(error)) from error
        return signed

    # --- reading --------------------------------------------------------------------------------------------------

    def _hand_out(self, wire: Wire, found: Target) -> None:
        try:
            if wire.command == "HEAD":
                size = self._gateway.size(found)
                if size is None:
                    raise Malformed(404, "no such key")
                wire.begin(200, "OK", size, _qualities(found, size))
                return
            with self._gateway.read(found) as file:
                if file is None:
                    raise Malformed(404, "no such key")
                start, size = _stretch(wire.headers.get("Range"), file.size)
                headers = _qualities(found, file.size)
                if wire.headers.get("Range"):
                    headers += [("Content-Range", f"bytes {start}-{start + size - 1}/{file.size}")]
                wire.send(file, start, size, 206 if wire.headers.get("Range") else 200, headers)
        except Error as error:
            raise Malformed(status_of(error), str(error)) from error

    def _bucket_itself(self, wire: Wire, asked: dict[str, str]) -> None:
        if wire.command == "HEAD" and not asked:
            wire.say(200, "OK", b"", [("x-amz-bucket-region", "us-east-1")])
        elif wire.command == "GET" and "location" in asked:
            self._say(wire, "LocationConstraint", "")
        elif wire.command == "GET" and asked.get("list-type") == "2" and set(asked) <= _LISTING:
            self._list(wire, asked)
        else:
            raise Malformed(501, "this is not served for the bucket: it can be listed (version 2), that is all")

    def _list(self, wire: Wire, asked: dict[str, str]) -> None:
        prefix, delimiter, most = asked.get("prefix", ""), asked.get("delimiter", ""), asked.get("max-keys", str(_PAGE))
        after = asked.get("continuation-token") or asked.get("start-after", "")
        if delimiter not in ("", "/") or not (most.isascii() and most.isdecimal() and len(most) < 7):
            raise Malformed(400, "the listing is asked for in a way not known here")
        try:
            rows = _grouped(self._below(prefix), prefix, delimiter)
        except Error as error:
            raise Malformed(status_of(error), str(error)) from error
        begin = bisect_right(rows, after, key=lambda row: row[0]) if after else 0
        page = rows[begin : begin + min(int(most), _PAGE)]
        more = begin + len(page) < len(rows) and bool(page)
        told = [("Name", self._bucket), ("Prefix", prefix), ("Delimiter", delimiter), ("KeyCount", str(len(page)))]
        told += [("MaxKeys", most), ("IsTruncated", str(more).lower())]
        told += [("NextContinuationToken", page[-1][0])] if more else []
        told += [("EncodingType", "url")] if "encoding-type" in asked else []
        coded = quote if "encoding-type" in asked else str
        self._say(wire, "ListBucketResult", _elements(told) + "".join(_row(name, size, coded) for name, size in page))

    def _below(self, prefix: str) -> list[tuple[str, int]]:
        """All files whose names begin with `prefix`, sorted."""
        directory = prefix.rpartition("/")[0]
        if ".." in prefix or prefix.startswith("/"):
            return []
        tops = [directory] if directory else [top for top in _TOPS if top.startswith(prefix)]
        return sorted(row for top in tops for row in self._gateway.files(top) if row[0].startswith(prefix))

    # --- writing --------------------------------------------------------------------------------------------------

    def _write(self, wire: Wire, found: Target, asked: dict[str, str], signed: Signed) -> None:
        names = set(asked)
        try:
            if wire.command == "PUT" and not names:
                self._store(wire, found, signed)
            elif wire.command == "POST" and names == {"uploads"}:
                upload = self._begin(wire, found, signed)
                rows = [("Bucket", self._bucket), ("Key", found.name), ("UploadId", upload)]
                self._say(wire, "InitiateMultipartUploadResult", _elements(rows))
            elif wire.command == "PUT" and names == {"partNumber", "uploadId"}:
                self._part(wire, found, asked, signed)
            elif wire.command == "POST" and names == {"uploadId"}:
                self._complete(wire, found, asked["uploadId"], signed)
            elif wire.command == "DELETE" and names == {"uploadId"}:
                with suppress(NoSuchUpload):  # s3fs takes back what was refused, and must not lose the reason over it
                    self.parts.end(asked["uploadId"], found, signed.by)
                wire.say(204, "No Content")
            else:
                raise Malformed(501, f"{wire.command} of this kind is not served: nothing is deleted or changed here")
        except NoSuchUpload:
            raise Malformed(404, "no such upload: it has ended, or is somebody else's") from None
        except WrongParts as error:
            raise Malformed(400, str(error)) from error

    def _store(self, wire: Wire, found: Target, signed: Signed) -> None:
        with self._body(wire, self._gateway.limit(found), signed) as chunks:
            answer = self._gateway.store(found, chunks, wire.peer(signed.by.san))
        if answer.status >= 400:
            raise Malformed(answer.status, answer.message)
        wire.say(200, "OK", b"", _etag(found))

    def _begin(self, wire: Wire, found: Target, signed: Signed) -> str:
        with self._body(wire, 0, signed) as chunks:
            for _ in chunks:
                pass
            return self.parts.begin(found, signed.by)

    def _part(self, wire: Wire, found: Target, asked: dict[str, str], signed: Signed) -> None:
        number, limit = asked["partNumber"], self._gateway.limit(found)
        if not (number.isascii() and number.isdecimal() and len(number) < 6):
            raise Malformed(400, "the number of the part is none")
        with self._body(wire, limit, signed) as chunks:
            md5 = self.parts.add(asked["uploadId"], found, signed.by, int(number), chunks, limit)
        wire.say(200, "OK", b"", [("ETag", f'"{md5}"')])

    def _complete(self, wire: Wire, found: Target, upload: str, signed: Signed) -> None:
        with self._body(wire, _LIST_LIMIT, signed) as chunks:
            listed = _listed(b"".join(chunks))
        with self.parts.whole(upload, found, signed.by, listed) as chunks:
            answer = self._gateway.store(found, chunks, wire.peer(signed.by.san))
        if answer.status < 500:  # a store that fails may be asked again
            self.parts.end(upload, found, signed.by)
        if answer.status >= 400:
            raise Malformed(answer.status, answer.message)
        _logger.info("put together %s of %d parts", found.name, len(listed))
        rows = [("Bucket", self._bucket), ("Key", found.name), ("ETag", _etag(found)[0][1])]
        self._say(wire, "CompleteMultipartUploadResult", _elements(rows))

    @contextmanager
    def _body(self, wire: Wire, limit: int, signed: Signed) -> Iterator[Iterator[bytes]]:
        """The body without its framing, held against its signature. Raises `Malformed`."""
        room = limit
        if signed.framed:
            said = wire.headers.get("x-amz-decoded-content-length", "")
            if not (said.isascii() and said.isdecimal() and len(said) <= 15):
                raise Malformed(411, "the framed body does not say how long it is")
            if int(said) > limit:
                raise Malformed(413, f"the body is larger than {limit} bytes")
            room = limit + limit // 64 + 4096  # sizes of chunks, and the trailer
        try:
            with wire.incoming(room) as chunks:
                inner = unframed(chunks, int(said)) if signed.framed else chunks
                yield checked(inner, signed.body) if signed.body is not None else inner
        except Misframed as error:
            raise Malformed(400, str(error)) from error

    @staticmethod
    def _say(wire: Wire, root: str, inside: str) -> None:
        body = f'{_HEAD}<{root} xmlns="{_NAMESPACE}">{inside}</{root}>'.encode()
        wire.say(200, "OK", body, [("Content-Type", _XML)])


def fault(status: int, message: str) -> bytes:
    """A refusal as S3 clients read it."""
    code = "NoSuchUpload" if "no such upload" in message else _CODES.get(status, "InternalError")
    return f"{_HEAD}<Error>{_elements([('Code', code), ('Message', message)])}</Error>".encode()


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=20)
    except ValueError:
        pairs = [("", ""), ("", "")]
    if len(dict(pairs)) != len(pairs) or any(name.lower().startswith("x-amz-") for name, _ in pairs):
        raise Malformed(400, "the query cannot be read in one way only, or holds a signature")
    return dict(pairs)


def _etag(found: Target, size: int = 0) -> list[tuple[str, str]]:
    digest = hashlib.sha256(f"{found.name} {size}".encode()).hexdigest()[:32]
    return [("ETag", f'"{digest}-1"')]


def _qualities(found: Target, size: int) -> list[tuple[str, str]]:
    return [*_etag(found, size), ("Accept-Ranges", "bytes"), ("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")]


def _stretch(asked: str | None, size: int) -> tuple[int, int]:
    """Where to begin and how much to send. Raises `Malformed` for a range that is not there."""
    if not asked:
        return 0, size
    found = _RANGE.fullmatch(asked.strip())
    if found is None:
        raise Malformed(416, "one range of bytes is served at a time")
    first, last, final = found.groups()
    start = max(0, size - int(final)) if final else int(first)
    end = size if final or not last else min(int(last) + 1, size)
    if start >= end:
        raise Malformed(416, "the object has no such bytes")
    return start, end - start


def _listed(raw: bytes) -> list[tuple[int, str]]:
    """Number and MD5 of each part that is to be put together."""
    if b"<!" in raw:
        raise WrongParts("the list of parts declares things")
    try:
        rows = [
            {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in part}
            for part in ET.fromstring(raw)  # noqa: S314 - no declarations, so nothing to expand
        ]
        return [(int(row["PartNumber"]), row["ETag"].strip('"')) for row in rows]
    except (ET.ParseError, KeyError, ValueError) as error:
        raise WrongParts("the list of parts cannot be read") from error


def _grouped(rows: list[tuple[str, int]], prefix: str, delimiter: str) -> list[tuple[str, int | None]]:
    """The same, with what lies below a further `delimiter` as one row without a size."""
    if not delimiter:
        return [*rows]
    found: dict[str, int | None] = {}
    for name, size in rows:
        head, more, _ = name[len(prefix) :].partition(delimiter)
        found[prefix + head + more] = None if more else size
    return sorted(found.items())


def _row(name: str, size: int | None, coded: Any) -> str:
    if size is None:
        return f"<CommonPrefixes>{_elements([('Prefix', coded(name))])}</CommonPrefixes>"
    seen = target(f"/{name}")
    tag = _etag(seen, size)[0][1] if seen else ""
    rows = [("Key", coded(name)), ("Size", str(size)), ("ETag", tag)]
    rows += [("LastModified", "1970-01-01T00:00:00.000Z"), ("StorageClass", "STANDARD")]
    return f"<Contents>{_elements(rows)}</Contents>"


def _elements(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in rows)
