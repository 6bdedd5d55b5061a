"""The guard as an ASGI application: the steps of `mlseal.services.guard`, under those numbers.

Three paths and no other: ``POST /invocations``, ``GET /ping`` (503 while the model may not serve) and ``GET /posture``.
Errors are one JSON object, as ``--json`` prints it (`telling`). Flags travel in the answer's header ``X-Mlseal-Flags``.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from mlseal.errors import Error, MalformedEvidence, Refusal, ServiceUnavailable
from mlseal.evidence import canonical
from mlseal.services.guard import asking, injection, intake, payload, telling
from mlseal.services.guard.asking import BadUpstream
from mlseal.services.guard.callers import Callers, Identity, Unidentified
from mlseal.services.guard.intake import BadFraming
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

T = TypeVar("T")
FLAGS = "x-mlseal-flags"
_ANSWER_FACTOR = 16  # an answer may be so many times as long as the longest request
_AT_ONCE, _SEARCHED_AT_ONCE = 16 * 1024, 512
"""Bytes of a request and of an answer that are looked at on the event loop, some 10 and 70 ms at the worst; longer ones
would keep the other callers waiting."""
_THREADS = 2  # that look at longer ones


class Fault(ServiceUnavailable):
    """The guard itself failed, which is never a way through."""

    http_status = 500


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

    def examined(self, body: bytes, caller: Identity) -> dict[str, int]:
        """Steps 4 to 6 on the rows in `body`: how many fired each signal. Raises what stops the request."""
        limits = self.settings.limits
        rows = payload.read(body, limits.max_bytes, limits.max_rows)
        self.rates.take_rows(caller.key, len(rows))  # (4)
        self.signature.require(rows)  # (5)
        return {  # (6)
            "out-of-distribution": self.outliers.count(rows) if self.outliers else 0,
            "prompt-injection": self._instructions(rows),
        }

    def judged(self, fired: dict[str, int]) -> dict[str, int]:
        """The signals that fired and only flag, with how many rows. Raises `Suspicious` otherwise."""
        actions = {
            "out-of-distribution": self.settings.outliers.action if self.settings.outliers else "flag",
            "prompt-injection": self.settings.injection.action,
        }
        for name, count in fired.items():
            self.counted[f"signal:{name}"] += count > 0
            if count and actions[name] == "refuse":
                raise Suspicious(f"the request shows signs of {name.replace('-', ' ')}", got=f"{count} rows")
        return {name: count for name, count in fired.items() if count}

    def passed_on(self, raw: bytes) -> tuple[bytes, int]:
        """Step 8: the answer as it leaves, and how many pieces of it were masked."""
        try:
            answer = canonical.parse(raw, what="answer", limit=len(raw))
        except MalformedEvidence as error:
            raise BadUpstream("the model's answer cannot be read", got=error.got or error.message) from error
        made, masked = self.output.filtered(answer, self.settings.output.max_characters)
        return (json.dumps(made).encode() if masked else raw), masked

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
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    @asynccontextmanager
    async def _life(app: Starlette) -> AsyncIterator[None]:
        app.state.threads = asyncio.Semaphore(_THREADS)
        async with asking.client(guard.upstream.url, guard.settings.limits.seconds) as client:
            app.state.client = client
            yield

    async def _invocations_(request: Request) -> Response:
        return await _answered(guard, request, lambda: _invoke(guard, request))

    async def _ping_(request: Request) -> Response:
        return await _answered(guard, request, lambda: _ping(guard, request.app.state.client))

    async def _posture_(request: Request) -> Response:
        return await _answered(guard, request, lambda: _posture(guard))

    async def _missing_(_: Request, error: Exception) -> Response:
        status = int(getattr(error, "status_code", 404))
        return JSONResponse({"error": "UnknownName", "message": "there is nothing here"}, status_code=status)

    routes = [
        Route("/invocations", _invocations_, methods=["POST"]),
        Route("/ping", _ping_, methods=["GET"]),
        Route("/posture", _posture_, methods=["GET"]),
    ]
    app = Starlette(routes=routes, lifespan=_life, exception_handlers={404: _missing_, 405: _missing_})
    app.router.redirect_slashes = False  # a redirect would name whatever host the caller named
    return app


async def _answered(guard: Guard, request: Request, act: Callable[[], Awaitable[Response]]) -> Response:
    """What `act` answers, or its error as JSON with the right status; any other exception is a stop, too."""
    from starlette.responses import JSONResponse

    try:
        intake.framed(request)
        response = await act()
    except Error as error:
        known = error
    except Exception as error:  # noqa: BLE001 - a fault of ours is never a way through
        telling.to_operator(error)
        known = Fault("the guard failed", got=type(error).__name__)
    else:
        if request.method == "POST":
            guard.counted["passed"] += 1
        return response
    guard.counted[f"stopped:{type(known).__name__}"] += 1
    headers = {"retry-after": str(known.seconds)} if isinstance(known, TooMany) else {}
    if isinstance(known, Unidentified):
        headers["www-authenticate"] = "Bearer"
    if isinstance(known, BadFraming):
        headers["connection"] = "close"
    told = telling.to_caller(known, identified=getattr(request.state, "identified", False))
    return JSONResponse(told, status_code=known.http_status, headers=headers)


async def _invoke(guard: Guard, request: Request) -> Response:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response

    state, limits = request.app.state, guard.settings.limits
    guard.standing.require()  # (1)
    body = await intake.body(request, limits)  # (2)
    header = request.headers.get("authorization")
    caller = guard.callers.remembered(header)  # (3)
    if caller is None:  # keys may have to be fetched, so not on the loop
        caller = await run_in_threadpool(guard.callers.identify, header)
    request.state.identified = True
    guard.rates.take_request(caller.key)  # (4)
    flags = guard.judged(
        await _at_ease(state.threads, len(body) <= _AT_ONCE, lambda: guard.examined(body, caller))
    )  # (4) to (6)
    guard.standing.require()  # (1) again: a body may take long to come
    raw = await asking.answer_of(state.client, body, limits.max_bytes * _ANSWER_FACTOR, limits.seconds)  # (7)
    content, masked = await _at_ease(state.threads, len(raw) <= _SEARCHED_AT_ONCE, lambda: guard.passed_on(raw))  # (8)
    guard.standing.require()  # (1) again: what was withdrawn meanwhile does not answer
    guard.counted["masked"] += masked
    if masked:
        flags["masked"] = masked
    headers = {FLAGS: ", ".join(f"{name}={count}" for name, count in flags.items())} if flags else None
    return Response(content, media_type="application/json", headers=headers)


async def _at_ease(threads: asyncio.Semaphore, small: bool, work: Callable[[], T]) -> T:
    """What `work` returns: at once if it is `small`, else on one of few threads, so that nobody else waits."""
    from starlette.concurrency import run_in_threadpool

    if small:
        return work()
    async with threads:
        return await run_in_threadpool(work)


async def _ping(guard: Guard, client: httpx.AsyncClient) -> Response:
    from starlette.responses import PlainTextResponse

    guard.standing.require()
    await asking.well(client, guard.settings.limits.seconds)
    return PlainTextResponse("\n")


async def _posture(guard: Guard) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(guard.posture())
