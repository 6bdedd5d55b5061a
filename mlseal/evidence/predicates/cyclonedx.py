"""CycloneDX bill of materials of a model (ML-BOM): what it consists of, with its model card.

The standard type for an inventory (ECMA-424, CycloneDX 1.6). Whoever makes one checks it against the schema of the
standard; here only what a reader of ours relies on is looked at. The subject is the model.

Example::

    {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
     "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
     "metadata": {"component": {"type": "machine-learning-model", "bom-ref": "model", "name": "risk",
       "hashes": [{"alg": "SHA-256", "content": "…"}],
       "modelCard": {"considerations": {"technicalLimitations": ["fairness towards groups that are not named"]}}}},
     "components": [{"type": "data", "bom-ref": "sha256:…", "name": "train",
       "hashes": [{"alg": "SHA-256", "content": "…"}]}]}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mlseal.evidence.predicates.base import Model

URI = "https://cyclonedx.org/bom"
SHORT = "cyclonedx"


class Hash(Model):
    """A digest, by algorithm as CycloneDX spells it."""

    alg: str
    content: str


class Component(Model):
    """A part: model, data or file. The names of its members are CycloneDX's."""

    type: str
    name: str
    bom_ref: str | None = Field(default=None, alias="bom-ref")
    hashes: list[Hash] = Field(default_factory=list)
    model_card: dict[str, Any] | None = None
    external_references: list[dict[str, Any]] = Field(default_factory=list)


class Metadata(Model):
    """What the bill is about."""

    component: Component


class Predicate(Model):
    """CycloneDX 1.6, as far as it is read here."""

    bom_format: Literal["CycloneDX"]
    spec_version: Literal["1.6"]
    serial_number: str
    version: int = Field(ge=1)
    metadata: Metadata
    components: list[Component] = Field(default_factory=list)
