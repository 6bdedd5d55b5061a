"""Step 2: what comes in, before it is read as anything: one meaning of each header, a media type, a length."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mlseal.errors import Misuse
from mlseal.services.guard.settings import LimitsPart

if TYPE_CHECKING:
    from starlette.requests import Request

_ONCE = ("authorization", "content-type", "content-encoding", "content-length", "transfer-encoding", "host")


class BadFraming(Misuse):
    """Headers of which two readers could make two different things; the connection is closed, too."""


class BadSize(Misuse):
    """The body is too long."""

    http_status = 413


class BadForm(Misuse):
    """The body is of a kind that is not read."""

    http_status = 415


def framed(request: Request) -> None:
    """Raise `BadFraming` for a header twice that counts once, or for two statements of the body's length."""
    headers = request.headers
    if twice := [name for name in _ONCE if len(headers.getlist(name)) > 1]:
        raise BadFraming(f"the header {twice[0]} comes more than once", expected="once")
    if "content-length" in headers and "transfer-encoding" in headers:
        raise BadFraming("a length and an encoding both say where the body ends", expected="one of them")


async def body(request: Request, limits: LimitsPart) -> bytes:
    """The body. Raises before more than the limit is held."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or "content-encoding" in request.headers:
        raise BadForm("only plain JSON is read", got=kind or "no content type", expected="application/json")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limits.max_bytes:
        raise BadSize("the body is too long", got=declared[:20], expected=f"at most {limits.max_bytes} bytes")
    read = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                read += chunk
                if len(read) > limits.max_bytes:
                    raise BadSize("the body is too long", expected=f"at most {limits.max_bytes} bytes")
    except TimeoutError as error:
        raise Misuse("the body came too slowly", expected=f"within {limits.seconds:g} s") from error
    return bytes(read)
