"""Ownership: who holds which role for a subject. Policies say ``notBy: [trainer]``; this says who that is.

Example::

    {"roles": {"trainer": [{"issuer": "https://login.example", "san": "https://login.example/people/17"}]},
     "expires": "2027-11-23T00:00:00Z", "notProven": ["that the list is complete"], "nonce": "…"}
"""

from __future__ import annotations

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, Text, Timestamp

URI = NAMESPACE + "ownership/v0.1"
SHORT = "ownership"


class Holder(Model):
    """One identity, pseudonymous."""

    issuer: str
    san: str


class Predicate(Model):
    """Ownership v0.1: role name → holders."""

    roles: dict[str, list[Holder]] = Field(min_length=1)
    expires: Timestamp
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce
