"""Whose token is this, and may they ask? Bearer tokens of the operator's identity providers.

Tokens are verified by `mlseal.services.tokens`, as the certificate authority verifies its own: signature by the
issuer's published keys, audience, lifetime. A token that passed is remembered until it ends, at most for a minute, so
that a provider which withdraws a key is heard then.

Who somebody is, is an issuer *and* a name: two clusters each have a service account ``clinic/app``. So is what rates
are counted by, and what ``callers`` lists wherever there is more than one provider.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlseal.errors import Misuse, Refusal, UntrustedSigner
from mlseal.services import providers
from mlseal.services.guard.settings import CallerPart, IdentityPart
from mlseal.services.people import People
from mlseal.services.tokens import TokenVerifier

_REMEMBERED, _SECONDS = 10_000, 60.0
_NOT_AN_AUTHORITY = "guard.invalid"  # RFC 2606: a guard makes no identities of its own


class Unidentified(UntrustedSigner):
    """No token, or one that does not verify."""

    http_status = 401


class Unlisted(Refusal):
    """A token that verifies, of somebody whom the settings do not list."""


class Identity(NamedTuple):
    """Who asks: the issuer that vouches, and the name it vouches for."""

    issuer: str
    san: str

    @property
    def key(self) -> str:
        """One text for both, equal for nobody else."""
        return json.dumps(self)


ANONYMOUS = Identity("", "anonymous")


class Callers:
    """Turns an ``Authorization`` header into an identity, or refuses. Thread-safe.

    Args:
        part: the settings.
        directory: where they lie.

    Raises `Misuse` if ``callers`` names no provider's issuer, or does not say whose a name is while there are several.
    """

    def __init__(self, part: IdentityPart, directory: Path) -> None:
        issuers = () if part.providers is None else _providers(directory / part.providers)
        self._listed = _listed(part.callers, [one.issuer for one in issuers])
        self._verifier = TokenVerifier(issuers) if part.providers is not None else None
        self._known: dict[bytes, tuple[Identity, float]] = {}
        self._lock = threading.Lock()

    def remembered(self, header: str | None) -> Identity | None:
        """The identity behind a header that passed lately and still counts, else None; asks nobody, never waits."""
        if self._verifier is None:
            return ANONYMOUS
        with self._lock:
            known = self._known.get(hashlib.sha256(_token(header)).digest())
        return known[0] if known is not None and time.monotonic() < known[1] else None

    def identify(self, header: str | None) -> Identity:
        """The caller's identity.

        Raises `Unidentified` without a valid token, `Unlisted` if the settings do not list its holder,
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
            end = time.monotonic() + min(_end(token.decode()) - time.time(), _SECONDS)
            self._known[hashlib.sha256(token).digest()] = name, end
        return name

    def _verified(self, token: str) -> Identity:
        assert self._verifier is not None
        try:
            holder = self._verifier.verify(token)
        except UntrustedSigner as error:
            raise Unidentified(error.message, got=error.got, expected=error.expected, remedy=error.remedy) from error
        found = Identity(holder.issuer, holder.san)
        if not any(issuer in {None, found.issuer} and san.fullmatch(found.san) for issuer, san in self._listed):
            raise Unlisted(
                "this caller is not listed",
                got=f"{found.san} of {found.issuer}",
                expected="an identity under identity.callers",
            )
        return found


def _listed(
    callers: Sequence[str | CallerPart] | None, issuers: Sequence[str]
) -> list[tuple[str | None, re.Pattern[str]]]:
    """Issuer (None: whichever there is) and pattern of each entry."""
    found: list[tuple[str | None, re.Pattern[str]]] = []
    for entry in callers or ["*"]:
        issuer, pattern = (None, entry) if isinstance(entry, str) else (entry.issuer, entry.san)
        if callers is not None and issuer is None and len(issuers) > 1:
            raise Misuse(
                "identity.callers does not say whose name it lists",
                got=f"{pattern!r} and {len(issuers)} providers",
                expected="entries with an issuer",
                remedy=f"write {{issuer: {json.dumps(issuers[0])}, san: {json.dumps(pattern)}}}, one for each provider",
            )
        if issuer is not None and issuer not in issuers:
            raise Misuse(
                "identity.callers names an issuer that is no provider", got=issuer, expected=", ".join(issuers)
            )
        found.append((issuer, re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)))
    return found


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
