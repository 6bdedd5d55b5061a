"""Whose token is this? The one question on which the certificate authority issues.

`TokenVerifier.verify`, in this order; the first failure refuses and nothing later runs:

1. Three base64url parts, at most 16 kB, header and claims strict JSON (no duplicate members).
2. The header's algorithm is on the allow-list; no ``crit``. ``jwk``, ``jku`` and ``x5u`` are never looked at.
3. ``iss`` names a configured provider. It is not believed yet, it only chooses whose keys are tried.
4. The provider has a key with the token's ``kid`` whose type is the one that the algorithm needs.
5. The signature verifies under that key.
6. ``aud`` contains the audience configured for this provider.
7. ``exp`` is ahead; ``iat`` and ``nbf`` are at most 5 minutes ahead; the span is within the provider's limit.
8. The provider's mapping turns the claims into one identity.

Spec: RFC 7519, RFC 8725 (best current practice), OpenID Connect Core 3.1.3.7.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mlseal.errors import MalformedEvidence, UntrustedSigner
from mlseal.evidence import canonical
from mlseal.evidence.clock import SKEW, Clock, utcnow

MAX_TOKEN = 16 * 1024
_MIN_RSA_BITS = 2048
_MAX_SUBJECT = 512
_END_OF_TIME = 1e12  # also refuses infinity, NaN and integers that no float holds

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_FITS: Mapping[str, Callable[[object], bool]] = {
    "ES256": lambda key: isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1),
    "ES384": lambda key: isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1),
    "RS256": lambda key: isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS,
    "PS256": lambda key: isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS,
    "EdDSA": lambda key: isinstance(key, ed25519.Ed25519PublicKey),
}
"""Allowed algorithms and the only kind of key each may be verified with (no HMAC, no ``none``, no confusion)."""


@dataclass(frozen=True)
class Caller:
    """A verified token's holder.

    Attributes:
        issuer: who says so.
        subject: under which name; may be a person's.
        san: the name that goes into the certificate.
        stated: what the certificate says the subject is; `san` where the subject is a person's.
    """

    issuer: str
    subject: str
    san: str
    stated: str


class Provider(Protocol):
    """An identity provider whose tokens the authority accepts."""

    @property
    def issuer(self) -> str:
        """Exact ``iss``."""

    @property
    def audience(self) -> str:
        """What ``aud`` must contain."""

    @property
    def lifetime(self) -> timedelta:
        """The longest span from ``iat`` to ``exp``."""

    @property
    def personal(self) -> bool:
        """Whether ``sub`` may say who a person is, so that no certificate may state it."""

    def keys(self, key_id: str | None) -> Sequence[PublicKey]:
        """Public keys that may have signed a token with this ``kid``; raises `ServiceUnavailable` if unknown."""

    def san(self, claims: Mapping[str, Any]) -> str:
        """The identity of verified claims; raises `UntrustedSigner` if they name none."""


class TokenVerifier:
    """Verifies tokens of `providers`; see the module for the steps. Thread-safe."""

    def __init__(self, providers: Sequence[Provider], *, clock: Clock = utcnow) -> None:
        self._providers = {provider.issuer: provider for provider in providers}
        self._clock = clock

    def verify(self, token: str) -> Caller:
        """Who holds `token`. Raises `UntrustedSigner`, or `ServiceUnavailable` if a provider's keys cannot be had."""
        header, unverified = _parts(token)  # (1)
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in _FITS or "crit" in header:  # (2)
            raise UntrustedSigner(
                "the token's algorithm is not accepted", got=str(algorithm)[:40], expected=", ".join(_FITS)
            )
        issuer = unverified.get("iss")
        provider = self._providers.get(issuer) if isinstance(issuer, str) else None
        if provider is None:  # (3)
            raise UntrustedSigner(
                "the token's issuer is not one that this authority accepts",
                got=str(issuer)[:120],
                expected=", ".join(sorted(self._providers)),
            )
        claims = _verified_claims(token, algorithm, header.get("kid"), provider)  # (4) (5)
        _check_audience(claims, provider)  # (6)
        self._check_times(claims, provider)  # (7)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
            raise UntrustedSigner("the token names no subject", expected="a printable 'sub' claim")
        san = provider.san(claims)  # (8)
        return Caller(provider.issuer, subject, san, san if provider.personal else subject)

    def _check_times(self, claims: Mapping[str, Any], provider: Provider) -> None:
        now, skew = self._clock().timestamp(), SKEW.total_seconds()
        expires, issued = _moment(claims, "exp"), _moment(claims, "iat")
        not_before = _moment(claims, "nbf") if "nbf" in claims else issued
        if now >= expires:
            raise UntrustedSigner("the token has expired", got=f"{now - expires:.0f} s ago", remedy="get a fresh token")
        if max(issued, not_before) > now + skew:
            raise UntrustedSigner(
                "the token is from the future",
                got=f"{max(issued, not_before) - now:.0f} s ahead",
                expected=f"at most {skew:.0f} s",
                remedy="set both machines' clocks",
            )
        if expires - issued > provider.lifetime.total_seconds():
            raise UntrustedSigner(
                "the token lives too long",
                got=f"{expires - issued:.0f} s",
                expected=f"at most {provider.lifetime.total_seconds():.0f} s",
            )


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3:
        raise UntrustedSigner(
            "not an identity token", got=f"{len(token)} characters", expected="a JWT of at most 16 kB"
        )
    return _json(parts[0]), _json(parts[1])


def _json(part: str) -> dict[str, Any]:
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        value = canonical.parse(data, what="identity token")
    except (MalformedEvidence, binascii.Error, ValueError) as error:
        raise UntrustedSigner("not an identity token", got=str(error)[:120], expected="a JWT") from error
    if not isinstance(value, dict):
        raise UntrustedSigner("not an identity token", got=type(value).__name__, expected="a JWT")
    return value


def _verified_claims(token: str, algorithm: str, key_id: object, provider: Provider) -> dict[str, Any]:
    import jwt

    if key_id is not None and not isinstance(key_id, str):
        raise UntrustedSigner("the token's key id is not text")
    fitting = [key for key in provider.keys(key_id) if _FITS[algorithm](key)]
    for key in fitting:
        try:
            payload = jwt.PyJWS().decode(token, key, algorithms=[algorithm])
        except jwt.PyJWTError:
            continue
        value = canonical.parse(payload, what="identity token")
        if isinstance(value, dict) and value.get("iss") == provider.issuer:
            return value
    raise UntrustedSigner(
        "the token was not signed by its issuer",
        got=f"key id {str(key_id)[:80]}, {algorithm}",
        expected=f"a signature by {provider.issuer}",
        remedy="get a token from that issuer",
    )


def _check_audience(claims: Mapping[str, Any], provider: Provider) -> None:
    named = claims.get("aud")
    audiences = [named] if isinstance(named, str) else named
    if not isinstance(audiences, list) or provider.audience not in audiences:
        raise UntrustedSigner("the token is for another audience", got=str(named)[:120], expected=provider.audience)


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _END_OF_TIME:
        raise UntrustedSigner(f"the token's '{name}' is not a time", got=str(value)[:40], expected="seconds since 1970")
    return float(value)
