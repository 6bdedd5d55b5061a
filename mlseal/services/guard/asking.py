"""Step 7: the model is asked, and must answer in time, in full, uncompressed, and without leaving anything behind."""

from __future__ import annotations

import asyncio
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

from mlseal.errors import ServiceUnavailable

if TYPE_CHECKING:
    import httpx

_CONNECTIONS = 64


class BadUpstream(ServiceUnavailable):
    """The model's server failed, or gave no answer that can be read."""

    http_status = 502


def client(url: str, seconds: float) -> httpx.AsyncClient:
    """Connections to the model's server. No cookie is kept: one caller's would go out with another's request."""
    import httpx

    return httpx.AsyncClient(
        base_url=url,
        trust_env=False,
        timeout=seconds,
        limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        headers={"accept-encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


async def answer_of(client: httpx.AsyncClient, body: bytes, limit: int, seconds: float) -> bytes:
    """The model's answer to `body`: at most `limit` bytes, whole within `seconds`.

    Raises `BadUpstream`; what the model's server says of an error is not passed on.
    """
    import httpx

    try:
        async with asyncio.timeout(seconds):
            return await _read(client, body, limit)
    except TimeoutError as error:
        raise BadUpstream("the model did not answer in time", expected=f"within {seconds:g} s") from error
    except httpx.HTTPError as error:
        raise BadUpstream("the model's server does not answer", got=type(error).__name__) from error


async def _read(client: httpx.AsyncClient, body: bytes, limit: int) -> bytes:
    import httpx

    read = bytearray()
    async with client.stream(
        "POST", "/invocations", content=body, headers={"content-type": "application/json"}
    ) as answer:
        if answer.status_code != httpx.codes.OK:
            raise BadUpstream("the model's server refused the request", got=f"status {answer.status_code}")
        if answer.headers.get("content-encoding", "identity") != "identity":  # a few bytes could become gigabytes
            raise BadUpstream("the model's answer is compressed", expected="accept-encoding: identity")
        async for chunk in answer.aiter_raw():
            read += chunk
            if len(read) > limit:
                raise BadUpstream("the model's answer is too long", expected=f"at most {limit} bytes")
    return bytes(read)


async def well(client: httpx.AsyncClient, seconds: float) -> None:
    """Raise `BadUpstream` unless the model's server says that it is well."""
    import httpx

    try:
        async with asyncio.timeout(seconds):
            answer = await client.get("/ping")
    except (httpx.HTTPError, TimeoutError) as error:
        raise BadUpstream("the model's server does not answer", got=type(error).__name__) from error
    if answer.status_code != httpx.codes.OK:
        raise BadUpstream("the model's server is not well", got=answer.status_code)
