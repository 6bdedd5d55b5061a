"""What does a guard keep from a model, and what does it cost? The same requests, without it and with it."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlseal.errors import DigestMismatch, MalformedEvidence, Misuse, ServiceUnavailable, Unchecked
from mlseal.evidence import canonical
from mlseal.evidence.predicates.guard_evaluation import ORDINARY
from mlseal.stages import proportions
from mlseal.stages.base import Context, FilePath, Finding, ModelPath, require, stage

if TYPE_CHECKING:
    import httpx

_MOST = 20_000
_MEMBERS = {"kind", "body"}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_FLAGS = "x-mlseal-flags"
_UNKNOWN_STATUS, _UNKNOWN_ERRORS = {401, 503}, ("Closed", "Fault")
"""Of a caller who is not known any more, of a guard that is closed or failed: no step stopped the request itself."""
_NOT_PROVEN = (
    "protection against attacks that are not among these requests, or that adapt to the guard",
    "latency or throughput on another machine, or under load: requests went one at a time",
    "that the upstream without guard is the same process as the one behind it",
    "that every request reaches the model through the guard: the network must see to that",
)


@dataclass
class _Tally:
    answered: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


@stage(
    "inference.guard",
    predicate="guard-evaluation",
    extra="guard",
    reusable=None,
    cost="seconds: each request goes to two servers, one at a time",
    not_proven=_NOT_PROVEN,
)
def guard(
    model: ModelPath,  # noqa: ARG001 - the subject; the guard must say that it serves this digest
    requests: FilePath,  # noqa: ARG001 - read through the context, as a proven copy
    guard_url: str,
    upstream_url: str,
    bearer: FilePath | None = None,
    level: float = 0.95,
    *,
    context: Context,
) -> Finding:
    """Send labelled requests to a model without its guard and with it, and count what came through.

    Args:
        model: the model, whose digest the guard must state in its posture.
        requests: JSON lines: {"kind": "ordinary" or the name of an attack, "body": the scoring request}.
        guard_url: of the guard, such as https://guard.clinic.example.
        upstream_url: of a server of the same model without guard.
        bearer: a file with the bearer token for the guard.
        level: confidence of the bounds.

    Guarantees:
        Only counts by kind and latencies leave this stage; no request and no answer.

    Edge cases:
        A guard that serves another model raises `DigestMismatch`; without ordinary requests, or with nothing but
        them, `Misuse`; a server that does not answer `ServiceUnavailable`. An upstream that answers none of the
        ordinary requests measures nothing and raises `Unchecked`.
    """
    require("httpx", "guard")
    import httpx

    asked = _read(context.private_copy("requests"))
    with httpx.Client(trust_env=False, timeout=60) as client:
        posture = _posture(client, _base(guard_url), context.measured["model"].sha256)
        token = _token(context, guard_url) if bearer is not None else None
        off, on = _Tally(), _Tally()
        for number, (kind, body) in enumerate(asked):
            context.progress(number, len(asked), "requests")
            _send(client, _base(upstream_url), kind, body, None, off)
            _send(client, _base(guard_url), kind, body, token, on)
    if not off.answered[ORDINARY] or not on.answered[ORDINARY]:
        raise Unchecked(
            "no ordinary request was answered, so nothing was measured",
            got=f"{off.answered[ORDINARY]} without and {on.answered[ORDINARY]} with the guard",
            remedy="check the requests, the token and both servers",
        )
    measured = context.measured["requests"]
    fields = {
        "requests": {"name": context.naming.subject(measured.name), "digest": {"sha256": measured.sha256}},
        "guard": posture,
        "kinds": _kinds(asked, off, on, level),
        "level": level,
        "latency": _latency(off.seconds, on.seconds),
    }
    return Finding(subjects=("model",), fields=fields, libraries={"httpx": httpx.__version__})


def _read(file: Path) -> list[tuple[str, bytes]]:
    """Kind and body of each request. Raises `Misuse` naming the line that is wrong."""
    found: list[tuple[str, bytes]] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            entry = canonical.parse(line, what=f"line {number} of the requests")
        except MalformedEvidence as error:
            raise Misuse(error.message, got=error.got) from error
        if not isinstance(entry, dict) or set(entry) != _MEMBERS or not isinstance(entry["kind"], str):
            raise Misuse(f"line {number} of the requests is none", expected='{"kind": …, "body": …}')
        found.append((entry["kind"], json.dumps(entry["body"]).encode()))
    kinds = {kind for kind, _ in found}
    if ORDINARY not in kinds or len(kinds) < 2 or len(found) > _MOST:
        raise Misuse(
            "the requests measure nothing",
            got=f"{len(found)} of the kinds {', '.join(sorted(kinds)) or 'none'}",
            expected=f"{ORDINARY!r} and at least one attack, at most {_MOST}",
        )
    return found


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise Misuse("not the URL of a server", got=url[:100], expected="http(s)://HOST[:PORT]")
    return url.rstrip("/")


def _token(context: Context, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise Misuse("the token would travel in the clear", got=url[:100], expected="https beyond loopback")
    return context.private_copy("bearer").read_text().strip()


def _posture(client: httpx.Client, base: str, sha256: str) -> dict[str, Any]:
    import httpx

    try:
        answer = client.get(f"{base}/posture")
        told = canonical.parse(answer.content, what="posture")
    except (httpx.HTTPError, MalformedEvidence) as error:
        raise ServiceUnavailable("the guard's posture cannot be read", got=str(error)[:160]) from error
    try:
        serves = told["model"]["sha256"]
        found = {"name": told["guard"], "settings": told["settings"], "bound": told["model"]["bound"]}
    except (KeyError, TypeError) as error:
        raise Unchecked("this is no guard of ours", got=f"status {answer.status_code}", expected="a posture") from error
    if serves != sha256:
        raise DigestMismatch("the guard serves another model", got=serves, expected=sha256)
    return found


def _send(client: httpx.Client, base: str, kind: str, body: bytes, token: str | None, tally: _Tally) -> None:
    import httpx

    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    begun = time.perf_counter()
    try:
        answer = client.post(f"{base}/invocations", content=body, headers=headers)
    except httpx.HTTPError as error:
        raise ServiceUnavailable(f"{base} does not answer", got=type(error).__name__) from error
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise Unchecked("the guard limits the rate of this measurement", remedy="raise limits.requests for its caller")
    if answer.status_code in _UNKNOWN_STATUS or any(f'"error":"{name}"' in answer.text for name in _UNKNOWN_ERRORS):
        raise Unchecked(
            "this was no answer to the request, so nothing was measured",
            got=f"status {answer.status_code}",
            remedy="use a token that lasts, and a guard and a server that stand to the end",
        )
    if answer.status_code != httpx.codes.OK:
        return
    tally.answered[kind] += 1
    if kind == ORDINARY:
        tally.seconds.append(time.perf_counter() - begun)
    flags = answer.headers.get(_FLAGS, "")
    tally.masked[kind] += "masked=" in flags
    tally.flagged[kind] += any(not flag.startswith("masked=") for flag in flags.split(", ") if flag)


def _kinds(asked: Sequence[tuple[str, bytes]], off: _Tally, on: _Tally, level: float) -> list[Mapping[str, Any]]:
    counted = Counter(kind for kind, _ in asked)
    made: list[Mapping[str, Any]] = []
    for kind in sorted(counted, key=lambda name: (name != ORDINARY, name)):
        low, high = proportions.interval(on.answered[kind], counted[kind], level)
        made.append(
            {
                "name": kind,
                "n": counted[kind],
                "answeredOff": off.answered[kind],
                "answeredOn": on.answered[kind],
                "flagged": on.flagged[kind],
                "masked": on.masked[kind],
                "shareOn": round(on.answered[kind] / counted[kind], 4),
                "low": round(low, 4),
                "high": round(high, 4),
            }
        )
    return made


def _latency(off: list[float], on: list[float]) -> dict[str, float]:
    def p99(values: list[float]) -> float:
        return sorted(values)[math.ceil(0.99 * len(values)) - 1]

    measures = {"medianOffMs": statistics.median(off), "medianOnMs": statistics.median(on)}
    measures |= {"p99OffMs": p99(off), "p99OnMs": p99(on)}
    return {name: round(1000 * seconds, 3) for name, seconds in measures.items()}
