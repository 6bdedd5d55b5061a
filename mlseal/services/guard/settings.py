"""What an operator sets, in strict YAML: unknown keys, duplicates and tags are refused, as in policies.

    guard: risk-model/1
    identity: {providers: issuers.json, callers: ["https://kubernetes.io/namespaces/clinic/*"]}
    limits: {requests: 120/minute, rows: 5000/minute, maxBytes: 262144, maxRows: 500, seconds: 30}
    outliers: {reference: reference.csv, sha256: 6b86b2…, falsePositiveRate: 0.01, action: flag}
    injection: {action: refuse}
    output: {pii: mask}
    recheck: 30

Everything but ``guard`` and ``identity`` has a default, and the default is the stricter reading. ``identity`` must be
said: ``{anonymous: true}`` serves everybody, by choice.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from mlseal.errors import Misuse, PolicyInvalid, Unreadable
from mlseal.evidence.predicates.base import Sha256
from mlseal.policy import plainyaml

Action = Literal["flag", "refuse"]
Rate = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)


class CallerPart(_Part):
    """Identities of one provider: its issuer, and a pattern of names with ``*`` for any text."""

    issuer: str
    san: str


class IdentityPart(_Part):
    """Who may ask.

    Attributes:
        providers: file of identity providers, as ``mlseal serve --external-issuer`` takes it.
        callers: who of them, each with its issuer; a pattern of names alone where there is one provider. Without it,
            whoever a provider vouches for.
        anonymous: serve without tokens.
    """

    providers: str | None = None
    callers: list[str | CallerPart] | None = Field(default=None, min_length=1)
    anonymous: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> IdentityPart:
        if self.anonymous == (self.providers is not None):
            raise ValueError("either providers or anonymous: true")
        return self


class LimitsPart(_Part):
    """How much: per caller and time, per request, and how long a body may take to come and the model to answer."""

    requests: Rate = "120/minute"
    rows: Rate = "10000/minute"
    max_bytes: int = Field(default=1 << 20, ge=2, le=1 << 28)
    max_rows: int = Field(default=1000, ge=1, le=1_000_000)
    seconds: float = Field(default=30.0, gt=0, le=3600)


class OutliersPart(_Part):
    """Rows far from a reference table: its file, the digest that it must have, the share of its rows to be flagged."""

    reference: str
    sha256: Sha256
    false_positive_rate: float = Field(default=0.01, gt=0, lt=0.5)
    action: Action = "flag"


class InjectionPart(_Part):
    """Texts that look like instructions to a language model; ``columns`` empty for every text column."""

    columns: list[str] = Field(default_factory=list)
    action: Action = "refuse"


class OutputPart(_Part):
    """Personal data in answers: masked, the whole answer withheld, or (by choice) let through.

    ``max_characters`` are searched in the texts of one answer; one with more is no answer unless ``pii`` is ``off``.
    """

    pii: Literal["mask", "refuse", "off"] = "mask"
    max_characters: int = Field(default=100_000, ge=1, le=1 << 28)


class Settings(_Part):
    """All of it; ``digest`` is that of the file's bytes and stands in every measurement of this guard."""

    guard: str = Field(min_length=1, max_length=120)
    identity: IdentityPart
    limits: LimitsPart = LimitsPart()
    outliers: OutliersPart | None = None
    injection: InjectionPart = InjectionPart()
    output: OutputPart = OutputPart()
    recheck: float = Field(default=30.0, ge=0.1, le=3600)
    digest: str = Field(default="", exclude=True)
    directory: Path = Field(default=Path(), exclude=True)

    def path(self, name: str) -> Path:
        """A file that the settings name, relative to where they lie."""
        return self.directory / name


def load(file: Path) -> Settings:
    """The settings in `file`. Raises `Unreadable`, or `Misuse` with the line that is wrong."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot read {file}", got=error.strerror, remedy="check the path") from error
    try:
        document = plainyaml.parse(raw, str(file))
    except PolicyInvalid as error:
        raise Misuse(error.message, got=error.got, expected=error.expected, remedy=error.remedy) from error
    if reserved := {"digest", "directory"} & set(document.value):
        raise Misuse(f"{file}: {min(reserved)} is not a key of the settings", expected="see mlseal guard --help")
    try:
        found = Settings.model_validate(document.value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = tuple(first["loc"])
        where = ".".join(map(str, place)) or "the top"
        message = first["msg"].removeprefix("Value error, ")
        raise Misuse(f"{file} line {document.line(place)}: {where}: {message}") from error
    return found.model_copy(update={"digest": hashlib.sha256(raw).hexdigest(), "directory": file.resolve().parent})
