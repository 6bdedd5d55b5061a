"""Who signed an S3 request: AWS Signature Version 4, in the header, made again with botocore's own signer and compared.

Steps of `verify`; the first failure refuses:

1. One ``Authorization`` of the form that botocore writes: key id, date, region, service ``s3``, signed headers.
2. The key is one that the gateway's operator gave out.
3. ``x-amz-date`` is within 5 minutes of the clock here and lies on the date of the scope.
4. ``host``, ``x-amz-date``, ``x-amz-content-sha256`` and every other ``x-amz-…`` header are signed, each once.
5. The signature over method, path, query, those headers and the body's digest is the one that the key makes.
6. The body's digest is a SHA-256 that the body is then held against. Over TLS it may be left out of the signature, as
   botocore does for bodies with a checksum behind them: what is stored is held against evidence in any case.

Not spoken: signatures in the query (presigned URLs), chunks that are signed one by one, Version 4A. A captured request
can be sent again for 5 minutes; it then says what it said before, and what is stored is never replaced.

Spec: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html
"""

from __future__ import annotations

import hmac
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlseal.errors import MissingExtra
from mlseal.evidence.clock import SKEW
from mlseal.evidence.identity import Identity
from mlseal_dvc.gateway_access import Key, Unknown

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]{16,128})/([0-9]{8})/([a-z0-9-]{1,40})/s3/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]{1,2000}), ?Signature=([0-9a-f]{64})"
)
_DATE = "%Y%m%dT%H%M%SZ"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MUST = {"host", "x-amz-date", "x-amz-content-sha256"}
UNSIGNED, FRAMED = "UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(frozen=True)
class Signed:
    """A request whose signature holds.

    Attributes:
        by: whom the key belongs to.
        body: SHA-256 that the body must have; None if the signature leaves it open.
        framed: the body comes in ``aws-chunked`` framing with a trailer.
    """

    by: Identity
    body: str | None
    framed: bool


def require_signer() -> None:
    """Raise `MissingExtra` unless botocore is there."""
    try:
        import botocore.auth  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("S3 keys need dvc-s3", remedy="pip install 'dvc[s3]'") from error


def verify(
    method: str, url: str, headers: Sequence[tuple[str, str]], keys: Mapping[str, Key], now: datetime, *, tls: bool
) -> Signed:
    """Who signed the request to `url` (scheme and host included); see the module for the steps. Raises `Unknown`."""
    given = [(name.lower(), value) for name, value in headers]
    found = _AUTHORIZATION.fullmatch(_one(given, "authorization"))  # (1)
    if found is None:
        raise Unknown("the request is not signed in the way that S3 clients sign (AWS4-HMAC-SHA256, in the header)")
    key_id, day, region, names, signature = found.groups()
    key = keys.get(key_id)
    if key is None:  # (2)
        raise Unknown(f"the access key {key_id} is not one of this gateway")
    moment = _one(given, "x-amz-date")
    _require_now(moment, day, now)  # (3)
    signed = _signed_headers(given, names.split(";"))  # (4)
    if not hmac.compare_digest(_signature(method, url, signed, key_id, key.secret, region, moment), signature):  # (5)
        raise Unknown("the request's signature is not the one that this access key makes")
    said = _one(given, "x-amz-content-sha256")
    if _DIGEST.fullmatch(said):  # (6)
        return Signed(key.owner, said, framed=False)
    if said in (UNSIGNED, FRAMED) and tls:
        return Signed(key.owner, None, framed=said == FRAMED)
    raise Unknown(f"the body is not signed in a way known here ({said[:60]})")


def _require_now(moment: str, day: str, now: datetime) -> None:
    try:
        then = datetime.strptime(moment, _DATE).replace(tzinfo=UTC)
    except ValueError:
        raise Unknown("the request has no x-amz-date") from None
    if abs(then - now) > SKEW or moment[:8] != day:
        raise Unknown(f"the request was signed at {moment}, and here it is {now:{_DATE}}: set both clocks")


def _signed_headers(given: Sequence[tuple[str, str]], names: Sequence[str]) -> list[tuple[str, str]]:
    counts = Counter(name for name, _ in given)
    must = _MUST | {name for name in counts if name.startswith("x-amz-")}
    if not must <= set(names):
        raise Unknown(f"the signature leaves out {min(must - set(names))}")
    if len(set(names)) != len(names) or any(counts[name] != 1 for name in names):
        raise Unknown("a signed header is missing or came twice")
    return [(name, value) for name, value in given if name in names]


def _signature(
    method: str, url: str, headers: Sequence[tuple[str, str]], key_id: str, secret: str, region: str, moment: str
) -> str:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    signer: Any = S3SigV4Auth(Credentials(key_id, secret), "s3", region)
    request: Any = AWSRequest(method=method, url=url, headers=dict(headers))
    request.context["timestamp"] = moment
    return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))


def _one(given: Sequence[tuple[str, str]], name: str) -> str:
    found = [value.strip() for key, value in given if key == name]
    if len(found) != 1:
        raise Unknown(f"the request has {'no' if not found else 'more than one'} {name}")
    return found[0]


class Misframed(Exception):
    """The body is not what its framing or its signature says; one sentence."""


def checked(chunks: Iterator[bytes], sha256: str) -> Iterator[bytes]:
    """The same chunks. Raises `Misframed` at their end unless they are the signed body."""
    import hashlib

    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != sha256:
        raise Misframed("the body is not the one that was signed")


_MAX_LINE, _MAX_TRAILER = 100, 1000
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})")


def unframed(chunks: Iterator[bytes], length: int) -> Iterator[bytes]:
    """What ``aws-chunked`` framing holds, `length` bytes. The trailer's checksum is passed over: SHA-256 decides.

    Raises `Misframed`.
    """
    stream = _Stream(chunks)
    while size := _chunk_size(stream.line(_MAX_LINE)):
        length -= size
        if length < 0:
            raise Misframed("the body is longer than x-amz-decoded-content-length says")
        yield from stream.take(size)
        if stream.line(2):
            raise Misframed("a chunk does not end where it should")
    if length:
        raise Misframed("the body is shorter than x-amz-decoded-content-length says")
    stream.rest(_MAX_TRAILER)


def _chunk_size(line: bytes) -> int:
    found = _SIZE.fullmatch(line)
    if found is None:
        raise Misframed("the size of an aws-chunk is no number, or the chunk has a signature of its own")
    return int(found[1], 16)


class _Stream:
    """Lines and stretches of an iterator of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def line(self, limit: int) -> bytes:
        """Up to the next CRLF, which is taken too."""
        while b"\r\n" not in self._left and len(self._left) <= limit:
            self._left += self._more()
        line, end, self._left = self._left.partition(b"\r\n")
        if not end or len(line) > limit:
            raise Misframed("a line of the aws-chunked framing is too long")
        return line

    def take(self, count: int) -> Iterator[bytes]:
        """`count` bytes."""
        while count:
            self._left = self._left or self._more()
            piece, self._left = self._left[:count], self._left[count:]
            count -= len(piece)
            yield piece

    def rest(self, limit: int) -> None:
        """Read to the end; raise if that is far."""
        size = len(self._left)
        for chunk in self._chunks:
            size += len(chunk)
            if size > limit:
                break
        if size > limit:
            raise Misframed("what follows the body is too long")

    def _more(self) -> bytes:
        chunk = next(self._chunks, b"")
        if not chunk:
            raise Misframed("the aws-chunked body ends too early")
        return chunk
