"""The shape of a policy file. Unknown keys are refused everywhere: a misspelt key must not weaken a policy silently."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from mlseal.evidence.clock import parse_rfc3339
from mlseal.evidence.identity import KEY_ISSUER, EmailDomain, Identity, RoleMember
from mlseal.evidence.keyholder import KeyHolder
from mlseal.policy.names import canonical

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
_RFC3339 = r"^[0-9]{4}-?[0-9W][0-9-]*[^0-9][0-9:.,]+([Zz]|[+-][0-9:.]+)$"
_SERVER = r"^(https://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])|http://(127\.0\.0\.1|localhost|\[::1\]))(:[0-9]{1,5})?$"
_DECISION = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
_SECONDS = re.compile(r"([1-9]|[12][0-9]|30)s")
_DOMAIN = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*$"


def duration(value: object) -> timedelta:
    """``30d`` as a timedelta; units are m, h, d and w. Raises `ValueError`."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"not a duration: {str(value)[:40]!r}; write 15m, 24h, 30d or 12w")
    return int(found[1]) * _UNITS[found[2]]


def _seconds(value: object) -> timedelta:
    found = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"not a time to wait: {str(value)[:40]!r}; write 1s to 30s")
    return timedelta(seconds=int(found[1]))


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"not a time: {str(value)[:40]!r}; write 2027-01-31T00:00:00Z")  # noqa: TRY004 - pydantic's way
    try:
        return parse_rfc3339(value)
    except ValueError:
        raise ValueError(f"not a time with a zone: {value[:40]!r}; write 2027-01-31T00:00:00Z") from None


def told(pattern: str, **more: Any) -> WithJsonSchema:
    """How the JSON Schema describes a text that is read as something else; the reader may be stricter, never laxer."""
    return WithJsonSchema({"type": "string", "pattern": pattern, **more})


def _pattern(value: str) -> str:
    return canonical(value, what="pattern")


Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
Duration = Annotated[timedelta, BeforeValidator(duration), told(f"^{_DURATION.pattern}$")]
Seconds = Annotated[timedelta, BeforeValidator(_seconds), told(f"^{_SECONDS.pattern}$")]
Moment = Annotated[datetime, BeforeValidator(_moment), told(_RFC3339)]
Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(_pattern),
    told(r"^[!-~]([ -~]*[!-~])?$", maxLength=200),
]


class Part(BaseModel):
    """A part of a policy: frozen, camelCase, no unknown keys, no coercion."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)


class Signer(Part):
    """Who may sign: an issuer with one exact SAN, anybody at exactly one e-mail domain, any person of one role; a key.

    A key may have a time, ``from`` and ``until``, judged by verified time; absent, it has no such end.
    """

    issuer: Text | None = None
    san: Text | None = None
    email_domain: Annotated[str, StringConstraints(pattern=_DOMAIN)] | None = None
    role: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,40}$")] | None = None
    key: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = None

    @model_validator(mode="after")
    def _one_of_four(self) -> Signer:
        if self.key is not None:
            return self._a_key()
        if self.since is not None or self.until is not None:
            raise ValueError("from and until belong to a key")
        if self.issuer is None:
            raise ValueError("name an issuer with one of san, emailDomain and role, or a key")
        if sum(named is not None for named in (self.san, self.email_domain, self.role)) != 1:
            raise ValueError("name exactly one of san, emailDomain and role")
        if any("*" in text for text in (self.issuer, self.san or "")):
            raise ValueError("identities are exact: no patterns")
        if self.issuer == KEY_ISSUER:
            raise ValueError("no certificate names this issuer: write key: sha256:…")
        return self

    def _a_key(self) -> Signer:
        if any(named is not None for named in (self.issuer, self.san, self.email_domain, self.role)):
            raise ValueError("a key has no issuer, san, emailDomain or role")
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError("the key's time ends before it begins")
        return self

    @property
    def matcher(self) -> Identity | EmailDomain | RoleMember | KeyHolder:
        """What the verifier compares the certificate or key with."""
        if self.key is not None:
            return KeyHolder(self.key, self.since, self.until)
        issuer = self.issuer or ""
        if self.san is not None:
            return Identity(issuer, self.san)
        if self.role is not None:
            return RoleMember(issuer, self.role)
        return EmailDomain(issuer, self.email_domain or "")


def _no_keys(signers: list[Signer]) -> list[Signer]:
    if any(signer.key is not None for signer in signers):
        raise ValueError("a key is no person and decides nothing: list an issuer")
    return signers


Signers = Annotated[list[Signer], Field(min_length=1)]
Deciders = Annotated[list[Signer], Field(min_length=1), AfterValidator(_no_keys)]
"""Who decides something, or answers for others: nobody whom a bare key stands for."""


class Applies(Part):
    """Which actions are meant: tool and action, and patterns for any other fact such as alias, model or workspace."""

    model_config = ConfigDict(alias_generator=None, extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, Pattern]
    tool: Pattern
    action: Pattern


def patterns(entry: Applies) -> dict[str, str]:
    """All patterns of `entry` by fact, tool and action among them."""
    extra = entry.__pydantic_extra__ or {}
    return {"tool": entry.tool, "action": entry.action, **{key.casefold(): pattern for key, pattern in extra.items()}}


class Ungoverned(Applies):
    """Actions that are deliberately let through without evidence, by whose decision and until when."""

    owner: Text
    until: Moment


class Freeze(Applies):
    """A window in which actions are refused, whatever the evidence says: by whose decision, why, until when."""

    since: Moment = Field(alias="from")
    until: Moment
    owner: Text
    reason: Text

    @model_validator(mode="after")
    def _has_a_length(self) -> Freeze:
        if self.until <= self.since:
            raise ValueError("the window ends before it begins")
        return self


class Assurance(Part):
    """The least assurance of evidence that counts; an absent key means the strictest."""

    identity: Literal["local", "key", "verified-token"] = "verified-token"
    log: Literal["unwitnessed", "pinned", "witnessed"] = "witnessed"
    time: Literal["local", "independent"] = "independent"


class Observe(Part):
    """Judge and record, but let through, until a moment."""

    until: Moment
    owner: Text


class By(Part):
    """Who may sign ownership statements, or waivers."""

    by: Deciders


class DataPolicies(Part):
    """Who owns data, and so may say what is done with them; ``required`` stops runs on data without a policy."""

    by: Deciders
    required: bool = False


class UnsignedSource(Part):
    """A source that nobody signs and that is accepted all the same, by whose decision and until when.

    Without ``sha256`` whatever goes by this name is accepted.
    """

    name: Pattern
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    owner: Text
    until: Moment

    @model_validator(mode="after")
    def _one_source(self) -> UnsignedSource:
        if "*" in self.name:
            raise ValueError("a source is named exactly: no patterns")
        return self


class Check(Part):
    """One condition: CEL that must be true."""

    id: Id
    message: Text
    check: str
    waivable: bool = True


class RequirementPart(Part):
    """One kind of evidence that must exist and hold; see docs/policy.md for each key."""

    predicate: Text
    id: Id | None = None
    by: Signers
    of: Id | None = None
    input: Text | None = None
    where: str | None = None
    strength: Literal["measured", "declared", "inferred"] | None = None
    max_age: Duration | None = None
    when: Annotated[list[Check], Field(min_length=1)] | None = None
    distinct: Annotated[int, Field(ge=1, le=50)] | None = None
    not_by: Annotated[list[Id], Field(min_length=1)] | None = None
    reviewed: Annotated[list[Id], Field(min_length=1)] | None = None
    assurance: Assurance | None = None
    effective_on: Moment | None = None
    remedy: Text | None = None
    control: Annotated[list[Text], Field(min_length=1)] | None = None


class Opa(Part):
    """A decision of an OPA server that must be true besides; see docs/policy.md for each key.

    Plain http reaches this machine only; what a server needs to believe us lies outside of the policy. No path and no
    socket: whoever writes a policy chooses a server, and not what else of it or of this machine is spoken to.
    """

    id: Id = "opa"
    server: Annotated[str, StringConstraints(pattern=_SERVER, max_length=300)]
    decision: Annotated[str, StringConstraints(pattern=_DECISION, max_length=200)]
    bundle: Text | None = None
    revision: Text | None = None
    timeout: Seconds = timedelta(seconds=5)
    control: Annotated[list[Text], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _names_what_it_pins(self) -> Opa:
        if self.bundle is not None and self.revision is None:
            raise ValueError("bundle belongs to revision")
        if urlsplit(self.server).port == 0:  # port raises ValueError beyond 65535
            raise ValueError("server: nobody can listen there")
        return self


class Sample(Part):
    """Evidence as a policy's test imagines it. Fields left out of ``body`` get the least value their schema lets pass.

    In texts ``{sha256:NAME}`` stands for the digest of what ``about: NAME`` is about (``target`` for the subject) and
    ``{evidence:ID}`` for the evidence id of another sample.
    """

    predicate: Text
    by: Signer
    id: Id | None = None
    about: Text = "target"
    age: Duration = timedelta(hours=1)
    body: dict[str, Any] = Field(default_factory=dict)


class Control(Part):
    """One test of the policy: samples, perhaps those of another test with changes, and what must come out.

    ``like`` names the test to start from; ``without``, ``set``, ``signer``, ``ages`` and ``revoked`` change its samples
    by their id (``set`` takes paths such as ``fairness.metrics.0.ciHigh``). ``rule`` must be among the reasons. ``at``
    sets the gate's clock; without it every rule is in force and no window is closed. ``opa`` says what the decisions
    under ``opa`` of the policy answer, by their id; one that is not named gives no answer.
    """

    name: Text
    expect: Literal["allowed", "refused", "undecided"]
    rule: Id | None = None
    like: Text | None = None
    without: list[Id] = Field(default_factory=list)
    set: dict[str, Any] = Field(default_factory=dict)
    signer: dict[Id, Signer] = Field(default_factory=dict)
    ages: dict[Id, Duration] = Field(default_factory=dict)
    revoked: dict[Id, Literal["superseded", "expired", "withdrawn"]] = Field(default_factory=dict)
    evidence: list[Sample] = Field(default_factory=list)
    opa: dict[Id, Any] = Field(default_factory=dict)
    at: Moment | None = None
    snapshot_age: Duration = timedelta(minutes=1)


class Controls(Part):
    """A file of tests beside a policy."""

    tests: Annotated[list[Control], Field(min_length=1)]


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$", max_length=100)]


class Extends(Part):
    """The policy that this one is a layer of, by name and by the digest of its file."""

    policy: Name
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PolicyPart(Part):
    """A whole policy file."""

    policy: Name
    extends: Extends | None = None
    applies: Annotated[list[Applies], Field(min_length=1)] | None = None
    assurance: Assurance = Assurance()
    revocation_max_age: Duration = timedelta(hours=24)
    revokers: Deciders | None = None
    gate: Deciders | None = None
    ownership: By | None = None
    data_policy: DataPolicies | None = None
    waivers: By | None = None
    unsigned: Annotated[list[UnsignedSource], Field(min_length=1)] | None = None
    observe: Observe | None = None
    require: Annotated[list[RequirementPart], Field(min_length=1)] | None = None
    ungoverned: Annotated[list[Ungoverned], Field(min_length=1)] | None = None
    freeze: Annotated[list[Freeze], Field(min_length=1)] | None = None
    opa: Annotated[list[Opa], Field(min_length=1, max_length=4)] | None = None
    tests: Annotated[list[Control], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> PolicyPart:
        if self.extends is None:
            self.require_whole()
        named = [(entry.name, entry.sha256) for entry in self.unsigned or ()]
        if len(set(named)) != len(named):
            raise ValueError("unsigned lists one source twice")
        return self

    def require_whole(self) -> None:
        """Raise `ValueError` unless this is a policy by itself; a layer must be one together with what it extends."""
        if (self.applies is None) != (self.require is None):
            raise ValueError("applies and require belong together")
        if all(part is None for part in (self.require, self.ungoverned, self.data_policy, self.freeze)):
            raise ValueError(
                "an empty policy: it requires nothing, freezes nothing, has nothing under ungoverned and no dataPolicy"
            )
        if self.unsigned is not None and self.require is None:
            raise ValueError("unsigned sources count in requirements, and there are none")
        if self.opa is not None and self.require is None:
            raise ValueError("opa adds to requirements, and there are none: list which evidence by whom is needed")
