"""Whose token is this, and may they ask? Bearer tokens of the operator's identity providers.

Tokens are verified by `mlseal.services.tokens`, as the certificate authority verifies its own: signature by the
issuer's published keys, audience, lifetime. A token that passed is remembered until it ends, at most for a minute, so
that a provider which withdraws a key is heard then.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from pathlib import Path

from mlseal.errors import Misuse, Refusal, UntrustedSigner
from mlseal.services import providers
from mlseal.services.guard.settings import IdentityPart
from mlseal.services.people import People
from mlseal.services.tokens import TokenVerifier

ANONYMOUS = "anonymous"
_REMEMBERED, _SECONDS = 10_000, 60.0
_NOT_AN_AUTHORITY = "guard.invalid"  # RFC 2606: a guard makes no identities of its own


class Unidentified(UntrustedSigner):
    """No token, or one that does not verify."""

    http_status = 401


class Callers:
    """Turns an ``Authorization`` header into a name, or refuses. Thread-safe.

    Args:
        part: the settings.
        directory: where they lie.
    """

    def __init__(self, part: IdentityPart, directory: Path) -> None:
        self._patterns = [".*".join(map(re.escape, pattern.split("*"))) for pattern in part.callers]
        self._verifier = None if part.providers is None else TokenVerifier(_providers(directory / part.providers))
        self._known: dict[bytes, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def remembered(self, header: str | None) -> str | None:
        """The identity behind a header that passed lately and still counts, else None; asks nobody, never waits."""
        if self._verifier is None:
            return ANONYMOUS
        with self._lock:
            known = self._known.get(hashlib.sha256(_token(header)).digest())
        return known[0] if known is not None and time.time() < known[1] else None

    def identify(self, header: str | None) -> str:
        """The caller's identity.

        Raises `Unidentified` without a valid token, `Refusal` if the settings do not list its holder,
        `ServiceUnavailable` if the provider's keys cannot be had.
        """
        if (name := self.remembered(header)) is not None:
            return name
        token = _token(header)
        if not token:
            raise Unidentified("no bearer token", expected="Authorization: Bearer TOKEN")
        name = self._verified(token.decode())
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            end = min(_end(token.decode()), time.time() + _SECONDS)
            self._known[hashlib.sha256(token).digest()] = name, end
        return name

    def _verified(self, token: str) -> str:
        assert self._verifier is not None
        try:
            name = self._verifier.verify(token).san
        except UntrustedSigner as error:
            raise Unidentified(error.message, got=error.got, expected=error.expected, remedy=error.remedy) from error
        if not any(re.fullmatch(pattern, name, re.DOTALL) for pattern in self._patterns):
            raise Refusal("this caller is not listed", got=name, expected="an identity under identity.callers")
        return name


def _providers(file: Path) -> tuple[providers.Issuer, ...]:
    found = providers.load(file, reserved=_NOT_AN_AUTHORITY, people=People(file.parent))
    if personal := [issuer.issuer for issuer in found if issuer.personal]:
        raise Misuse(
            "a guard keeps no register of people",
            got=f"{personal[0]} maps to persons",
            expected="san: kubernetes, email or https://…/{claim}; callers are counted, never published",
        )
    return found


def _token(header: str | None) -> bytes:
    """The bearer token in a header; empty for any other."""
    scheme, _, token = (header or "").partition(" ")
    return token.encode("utf-8", "replace") if scheme.casefold() == "bearer" else b""


def _end(token: str) -> float:
    """``exp`` of a token that was verified."""
    part = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exp"])
