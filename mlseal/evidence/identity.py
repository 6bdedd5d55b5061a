"""Who signed, and who may have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

PSEUDONYM = re.compile(r"p-[a-z2-7]{26}")
"""What stands for a person in a certificate, and so in the log; made by `mlseal.services.people`."""

KEY_ISSUER = "urn:mlseal:key"
"""Stands for the issuer where a bare key signed; the subject is then its fingerprint. No certificate may name it."""

_LABELS = r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+"
_PERSON = re.compile(rf"https://{_LABELS}/people/(?:({_LABELS})/)?{PSEUDONYM.pattern}")


def person_uri(authority: str, pseudonym: str, domain: str = "") -> str:
    """The SAN of a person whom an identity provider outside vouches for; with `domain`, of an address there.

    ``https://AUTHORITY/people/p-…`` or ``https://AUTHORITY/people/DOMAIN/p-…``.
    """
    return f"https://{authority}/people/{domain.lower() + '/' if domain else ''}{pseudonym}"


def is_person_uri(san: str) -> bool:
    """Whether `san` has the form that `person_uri` makes; nothing else may make it."""
    return _PERSON.fullmatch(san) is not None


@dataclass(frozen=True, order=True)
class Identity:
    """An issuer and the subject that it vouched for (the certificate's SAN). Both are compared exactly.

    No patterns: an unanchored regular expression over SANs is how look-alike identities pass elsewhere.
    """

    issuer: str
    san: str

    def matches(self, other: Identity) -> bool:
        """Whether `other` is this identity."""
        return self == other

    def __str__(self) -> str:
        return f"{self.san} (issuer {self.issuer})"


@dataclass(frozen=True)
class EmailDomain:
    """Anyone whom `issuer` knows by an e-mail address at exactly `domain` (sub-domains do not count).

    The certificate holds the address itself, or a pseudonym below the domain (`person_uri`).
    """

    issuer: str
    domain: str

    def matches(self, other: Identity) -> bool:
        """Whether `other` is such an address (one ``@``, nothing that looks like a URI) or such a pseudonym."""
        if other.issuer == self.issuer and (person := _PERSON.fullmatch(other.san)):
            return person[1] == self.domain.lower()
        local, at, domain = other.san.rpartition("@")
        plain = bool(local) and at == "@" and "@" not in local and ":" not in other.san and "/" not in other.san
        return other.issuer == self.issuer and plain and domain.lower() == self.domain.lower()

    def __str__(self) -> str:
        return f"*@{self.domain} (issuer {self.issuer})"


class IdentityMatcher(Protocol):
    """What a policy expects of a signer."""

    def matches(self, other: Identity) -> bool:
        """Whether `other` is expected."""


@dataclass(frozen=True)
class RoleMember:
    """Any person to whom an embedded or team authority gave `role`: ``https://NAME/roles/ROLE/PERSON``.

    The authority NAME is that of its own issuer ``https://NAME/issuer``; a person is one path segment.
    """

    issuer: str
    role: str

    def matches(self, other: Identity) -> bool:
        """Whether `other` is a person with exactly this role, vouched for by this issuer."""
        prefix = f"{self.issuer.removesuffix('/issuer')}/roles/{self.role}/"
        person = other.san.removeprefix(prefix)
        return other.issuer == self.issuer and other.san.startswith(prefix) and bool(person) and "/" not in person

    def __str__(self) -> str:
        return f"a {self.role} of {self.issuer}"
