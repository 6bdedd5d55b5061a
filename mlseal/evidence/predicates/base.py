"""What every predicate of ours has in common.

A predicate is a pydantic model: unknown fields are ignored when verifying (in-toto's monotonic principle: a new field
may not break an old verifier), every number is finite, field names are lowerCamelCase. The JSON Schema that ships in
the wheel is generated from the model and diffed by a test, so there is one source of the shape.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

NAMESPACE = "https://mlseal.dev/"
"""Every custom predicate type starts here and ends in ``/v0.1`` until release 1.0."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Timestamp = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
"""RFC 3339, UTC, whole seconds. Informational: freshness is judged by the verified time of the signature."""
Decimal = Annotated[str, StringConstraints(pattern=r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?$")]
"""A decimal number as text, for quantities where a rounding of binary floats could change a verdict."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(max_length=2000)]
Nonce = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""128 random bits in hex. The log keeps one entry per statement, so words that two people may say, or that an attacker
could say first, must differ between sayings."""
Strength = Literal["measured", "declared", "inferred"]


class Model(BaseModel):
    """A part of a predicate: frozen, camelCase, strict about types, silent about unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, strict=True, allow_inf_nan=False
    )

    def to_json(self) -> dict[str, object]:
        """The fields as they are signed: camelCase, absent instead of null."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class ResourceDescriptor(Model):
    """in-toto ResourceDescriptor v1: something named by digest. At least one of uri, name, digest is useful."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, str] | None = None
    media_type: str | None = None
    annotations: dict[str, str | int | float | bool] | None = None


class Harness(Model):
    """Which program measured: enough for a stranger to repeat it.

    Attributes:
        name: the stage, such as ``governance.fairness``.
        version: version of the distribution that provides the stage.
        provider: that distribution, such as ``mlseal``.
        libraries: the libraries that did the measuring, with versions.
        config_digest: SHA-256 of the RFC 8785 bytes of all parameters.
        inputs_digest: SHA-256 of the RFC 8785 bytes of every input's digest by name, and the seed. With the other
            fields it is the key under which evidence may serve again for unchanged inputs.
        resumed: the run went on from a checkpoint that a run of the same account had left.
        partials: evidence ids of the parts that were merged, in order; absent where the stage ran as one.
    """

    name: str
    version: str
    provider: str
    libraries: dict[str, str] = Field(default_factory=dict)
    config_digest: Sha256
    inputs_digest: Sha256 | None = None
    resumed: Literal[True] | None = None
    partials: list[Sha256] | None = None


class Spent(Model):
    """What a run gave away of each unit, at most; at most what it reserved."""

    epsilon: Decimal
    delta: Decimal


class Preflight(Model):
    """What was judged before the work started.

    Attributes:
        verdict: evidence id of the signed verdict.
        purpose: why the data were used, as whoever ran it stated.
        data_policies: evidence ids of the owners' data policies that were obeyed; empty if the inputs have none.
        reservation: evidence id of what was set aside of the owners' privacy budgets; absent where none has one.
        spent: what became of it.
    """

    verdict: Sha256
    purpose: str | None = None
    data_policies: list[Sha256] = Field(default_factory=list)
    reservation: Sha256 | None = None
    spent: Spent | None = None


class Measurement(Model):
    """Fields of every predicate that reports a measurement.

    Attributes:
        preflight: the verdict on the planned run; absent where no policy asks for one and no input has one.
        strength: how the claim came about: ``measured`` by the harness, ``declared`` by somebody, or ``inferred``.
        seed: of every random choice, or absent if there was none.
        run_id: of the pipeline run or the invocation.
        not_proven: what a reader must not conclude; never empty.
    """

    harness: Harness
    strength: Strength
    run_id: str
    started_on: Timestamp
    finished_on: Timestamp
    seed: int | None = None
    preflight: Preflight | None = None
    not_proven: list[Text] = Field(min_length=1)
