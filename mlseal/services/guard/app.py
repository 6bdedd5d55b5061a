"""The guard as an ASGI application: the steps of `mlseal.services.guard`, under those numbers.

Three paths and no other: ``POST /invocations``, ``GET /ping`` (503 while the model may not serve) and ``GET /posture``.
Errors are one JSON object, as ``--json`` prints it. Flags travel in the answer's header ``X-Mlseal-Flags``.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, MalformedEvidence, Misuse, Refusal, ServiceUnavailable
from mlseal.evidence import canonical
from mlseal.services.guard import injection, payload
from mlseal.services.guard.callers import Callers, Unidentified
from mlseal.services.guard.outliers import Outliers
from mlseal.services.guard.output import Output
from mlseal.services.guard.payload import Rows
from mlseal.services.guard.rates import Rates, TooMany
from mlseal.services.guard.settings import Settings
from mlseal.services.guard.signature import Signature
from mlseal.services.guard.standing import Standing
from mlseal.services.guard.upstream import Upstream

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

FLAGS = "x-mlseal-flags"
_ANSWER_FACTOR = 16  # an answer may be so many times as long as the longest request


class BadSize(Misuse):
    """The body is too long."""

    http_status = 413


class BadForm(Misuse):
    """The body is of a kind that is not read."""

    http_status = 415


class BadUpstream(ServiceUnavailable):
    """The model's server failed, or gave no answer that can be read."""

    http_status = 502


class Suspicious(Refusal):
    """A signal fired, and the settings say to refuse then."""


@dataclass
class Guard:
    """Everything that a request meets.

    Attributes:
        model: name and digest of the model, for the posture.
        counted: how many requests ended where; counts only.
    """

    settings: Settings
    model: tuple[str, str]
    standing: Standing
    callers: Callers
    rates: Rates
    signature: Signature
    outliers: Outliers | None
    output: Output
    upstream: Upstream
    counted: Counter[str] = field(default_factory=Counter)

    def screen(self, rows: Rows, caller: str) -> dict[str, int]:
        """Steps 4 to 6 on the rows; the signals that fired and only flag, with how many rows. Raises otherwise."""
        self.rates.take_rows(caller, len(rows))  # (4)
        self.signature.require(rows)  # (5)
        fired = {"out-of-distribution": self.outliers.count(rows) if self.outliers else 0}  # (6)
        fired["prompt-injection"] = self._instructions(rows)
        actions = {
            "out-of-distribution": self.settings.outliers.action if self.settings.outliers else "flag",
            "prompt-injection": self.settings.injection.action,
        }
        for name, count in fired.items():
            self.counted[f"signal:{name}"] += count > 0
            if count and actions[name] == "refuse":
                raise Suspicious(f"the request shows signs of {name.replace('-', ' ')}", got=f"{count} rows")
        return {name: count for name, count in fired.items() if count}

    def posture(self) -> dict[str, Any]:
        """What is in force, and counts; nothing of any request."""
        name, digest = self.model
        return {
            "guard": self.settings.guard,
            "settings": {"sha256": self.settings.digest},
            "model": {"name": name, "sha256": digest, "bound": self.upstream.bound},
            "anonymous": self.settings.identity.anonymous,
            "outOfDistribution": self.settings.outliers.action if self.outliers and self.settings.outliers else "off",
            "promptInjection": self.settings.injection.action,
            "outputPii": self.settings.output.pii,
            "counts": dict(sorted(self.counted.items())),
        }

    def _instructions(self, rows: Rows) -> int:
        wanted = set(self.settings.injection.columns or self.signature.texts)
        places = [place for place, name in enumerate(rows.columns) if name in wanted]
        texts = ([row[place] for place in places] for row in rows.data)
        return sum(any(isinstance(text, str) and injection.rule_of(text) for text in row) for row in texts)


def make(guard: Guard) -> Starlette:
    """The application; it opens its connection to the upstream when it starts."""
    import httpx
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    @asynccontextmanager
    async def _life(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            base_url=guard.upstream.url,
            trust_env=False,
            timeout=guard.settings.limits.seconds,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=64),
        ) as client:
            app.state.client = client
            yield

    async def _invocations_(request: Request) -> Response:
        return await _answered(guard, request, lambda: _invoke(guard, request, request.app.state.client))

    async def _ping_(request: Request) -> Response:
        return await _answered(guard, request, lambda: _ping(guard, request.app.state.client))

    async def _posture_(_: Request) -> Response:
        return JSONResponse(guard.posture())

    async def _missing_(_: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 404))
        return JSONResponse({"error": "UnknownName", "message": "there is nothing here"}, status_code=status)

    routes = [
        Route("/invocations", _invocations_, methods=["POST"]),
        Route("/ping", _ping_, methods=["GET"]),
        Route("/posture", _posture_, methods=["GET"]),
    ]
    return Starlette(routes=routes, lifespan=_life, exception_handlers={404: _missing_, 405: _missing_})


async def _answered(guard: Guard, request: Request, act: Callable[[], Awaitable[Response]]) -> Response:
    """What `act` answers, or its error as JSON with the right status; any other exception is a stop, too."""
    from starlette.responses import JSONResponse

    try:
        response = await act()
    except Error as error:
        known = error
    except Exception as error:  # noqa: BLE001 - a fault of ours is never a way through
        known = ServiceUnavailable("the guard failed", got=type(error).__name__)
    else:
        if request.method == "POST":
            guard.counted["passed"] += 1
        return response
    guard.counted[f"stopped:{type(known).__name__}"] += 1
    headers = {"retry-after": str(known.seconds)} if isinstance(known, TooMany) else {}
    if isinstance(known, Unidentified):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(known.to_dict(), status_code=known.http_status, headers=headers)


async def _invoke(guard: Guard, request: Request, client: httpx.AsyncClient) -> Response:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    guard.standing.require()  # (1)
    body = await _body(request, guard.settings)  # (2)
    header = request.headers.get("authorization")
    caller = guard.callers.remembered(header)  # (3)
    if caller is None:  # keys may have to be fetched, so not on the loop
        caller = await run_in_threadpool(guard.callers.identify, header)
    guard.rates.take_request(caller)  # (4)
    limits = guard.settings.limits
    rows = payload.read(body, limits.max_bytes, limits.max_rows)
    flags = guard.screen(rows, caller)  # (4) to (6)
    raw, answer = await _asked(client, body, limits.max_bytes * _ANSWER_FACTOR)  # (7)
    made, masked = guard.output.filtered(answer)  # (8)
    guard.counted["masked"] += masked
    if masked:
        flags["masked"] = masked
    headers = {FLAGS: ", ".join(f"{name}={count}" for name, count in flags.items())} if flags else None
    content = json.dumps(made, ensure_ascii=False).encode() if masked else raw
    return Response(content, media_type="application/json", headers=headers)


async def _ping(guard: Guard, client: httpx.AsyncClient) -> Response:
    import httpx
    from starlette.responses import PlainTextResponse

    guard.standing.require()
    try:
        answer = await client.get("/ping")
    except httpx.HTTPError as error:
        raise BadUpstream("the model's server does not answer", got=type(error).__name__) from error
    if answer.status_code != httpx.codes.OK:
        raise BadUpstream("the model's server is not well", got=answer.status_code)
    return PlainTextResponse("\n")


async def _body(request: Request, settings: Settings) -> bytes:
    """Step 2. Raises before more than the limit is held."""
    limits = settings.limits
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


async def _asked(client: httpx.AsyncClient, body: bytes, limit: int) -> tuple[bytes, Any]:
    """Step 7: the model's answer as bytes and as JSON. What the model's server says of an error is not passed on."""
    import httpx

    read = bytearray()
    try:
        async with client.stream(
            "POST", "/invocations", content=body, headers={"content-type": "application/json"}
        ) as answer:
            if answer.status_code != httpx.codes.OK:
                raise BadUpstream("the model's server refused the request", got=f"status {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                read += chunk
                if len(read) > limit:
                    raise BadUpstream("the model's answer is too long", expected=f"at most {limit} bytes")
    except httpx.HTTPError as error:
        raise BadUpstream("the model's server does not answer", got=type(error).__name__) from error
    raw = bytes(read)
    try:
        return raw, canonical.parse(raw, what="answer", limit=limit)
    except MalformedEvidence as error:
        raise BadUpstream("the model's answer cannot be read", got=error.got or error.message) from error
