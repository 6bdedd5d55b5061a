"""Data policy: what the owner of a data set allows to be done with it. It travels with the digest of the data.

Signed by the owner. The runner reads it before a stage starts (docs/policy.md): whatever is not allowed here does not
run. Several that stand are all obeyed, so a weaker second one lifts nothing. A purpose is a word of the list in the
schema or an id of the owner's with a slash, such as ``hospital.example/study-17``; an empty list allows nothing.

Example::

    {"purposes": ["evaluation", "hospital.example/study-17"],
     "minimumPrivacy": {"maxEpsilon": "8", "maxDelta": "0.00001", "unit": "person"},
     "runBy": [{"issuer": "https://oidc.example", "san": "https://oidc.example/roles/producer"}],
     "budget": {"cohort": "hospital.example/patients-2026", "maxEpsilon": "8", "maxDelta": "0.0001", "unit": "person"},
     "approvals": {"distinct": 1, "by": [{"issuer": "https://login.example", "emailDomain": "hospital.example"}]},
     "noExport": ["dataset"], "expires": "2027-11-23T00:00:00Z",
     "notProven": ["that copies made before, or parts of the data, are used alike"], "nonce": "…"}
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from mlseal.evidence.identity import EmailDomain, Identity, RoleMember
from mlseal.evidence.predicates.base import NAMESPACE, Decimal, Model, Nonce, Text, Timestamp

URI = NAMESPACE + "data-policy/v0.1"
SHORT = "data-policy"

WORDS = ("audit", "care", "evaluation", "monitoring", "quality", "research", "training")
"""The purposes that mean the same to every owner."""
_ID = r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)+"
_PURPOSE = rf"^({'|'.join(WORDS)}|{_ID})$"
_MAX_PURPOSE = 200
Purpose = Annotated[str, StringConstraints(pattern=_PURPOSE, max_length=_MAX_PURPOSE)]
"""Why data are used: one of `WORDS`, or an id of the owner's; the slash keeps the two apart."""


def is_purpose(text: str) -> bool:
    """Whether a policy could list `text` as a purpose."""
    return len(text) <= _MAX_PURPOSE and re.fullmatch(_PURPOSE.strip("^$"), text) is not None


class Who(Model):
    """One identity, anybody at one e-mail domain, or any person of one role; exactly one of the three."""

    issuer: str = Field(min_length=1)
    san: str | None = None
    email_domain: str | None = None
    role: str | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Who:
        if sum(bool(named) for named in (self.san, self.email_domain, self.role)) != 1:
            raise ValueError("name exactly one of san, emailDomain and role")
        return self

    @property
    def matcher(self) -> Identity | EmailDomain | RoleMember:
        """What an identity is compared with."""
        if self.san:
            return Identity(self.issuer, self.san)
        if self.role:
            return RoleMember(self.issuer, self.role)
        return EmailDomain(self.issuer, self.email_domain or "")


class MinimumPrivacy(Model):
    """The weakest differential privacy that will do: at most this epsilon and delta (0 if absent), for this unit."""

    max_epsilon: Decimal
    max_delta: Decimal | None = None
    unit: str = Field(min_length=1, max_length=100)


class Budget(Model):
    """What all runs together may give away of each unit; each run sets its part aside before it starts.

    Attributes:
        cohort: whose privacy it is, an id of the owner's: all data of the owner's that name the same cohort draw on one
            budget. Absent, these data have one of their own.
    """

    cohort: Annotated[str, StringConstraints(pattern=rf"^{_ID}$", max_length=_MAX_PURPOSE)] | None = None
    max_epsilon: Decimal
    max_delta: Decimal
    unit: str = Field(min_length=1, max_length=100)


class Approvals(Model):
    """How many distinct people must have approved the use of these data, and who they may be."""

    distinct: int = Field(ge=1, le=50)
    by: list[Who] = Field(min_length=1)


class Predicate(Model):
    """Data policy v0.1.

    Attributes:
        minimum_privacy: of each run; absent if none is demanded.
        budget: of all runs together; absent if nobody counts.
        run_by: who may use the data; absent for anybody.
        no_export: what no stage may put out that was given these data.
        expires: after this the owner allows nothing.
    """

    purposes: list[Purpose]
    minimum_privacy: MinimumPrivacy | None = None
    budget: Budget | None = None
    run_by: list[Who] | None = None
    approvals: Approvals | None = None
    no_export: list[Literal["dataset", "model"]] = Field(default_factory=list)
    expires: Timestamp
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce
