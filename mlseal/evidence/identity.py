"""Who signed, and who may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


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
    """Anyone whom `issuer` knows by an e-mail address at exactly `domain` (sub-domains do not count)."""

    issuer: str
    domain: str

    def matches(self, other: Identity) -> bool:
        """Whether `other` is such an address: one ``@``, nothing that looks like a URI."""
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
