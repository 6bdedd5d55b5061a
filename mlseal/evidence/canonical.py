"""JSON as evidence needs it: strict to read, canonical to write.

Reading refuses what Python's ``json`` lets pass and what has let forged documents through elsewhere: duplicate keys
(the last one wins silently), NaN and Infinity, and anything over a size limit. Writing is RFC 8785 (JCS), so that
equal values have equal bytes.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from mlseal.errors import MalformedEvidence


def parse(data: bytes | str, *, what: str, limit: int = 16 * 1024 * 1024) -> Any:
    """The JSON value in `data`, or `MalformedEvidence` naming `what`.

    Refuses duplicate keys, NaN, Infinity, invalid UTF-8, nesting that exhausts the parser and more than `limit` bytes.
    """
    if len(data) > limit:
        raise MalformedEvidence(f"{what} is too large", got=f"{len(data)} bytes", expected=f"at most {limit}")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence(f"{what} is not strict JSON", got=str(error)[:200]) from error


def dumps(value: Any) -> bytes:
    """The RFC 8785 bytes of `value`; raises `MalformedEvidence` for NaN, Infinity and integers beyond 2**53 - 1."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, TypeError) as error:
        raise MalformedEvidence("value cannot be written as canonical JSON", got=str(error)[:200]) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {key[:60]!r}")
            seen.add(key)
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
