"""The kinds of claim: one module per predicate type, each with URI, fields and a whole example.

Standard types are used where one fits (SLSA provenance and VSA, in-toto test-result, OMS signature); the others live
under one namespace. A released URI never changes its meaning: a change is a new URI.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from mlseal.errors import MalformedEvidence, UnknownName
from mlseal.evidence.predicates import (
    data_provenance,
    fairness,
    human_approval,
    oms_signature,
    ownership,
    revocation,
    revocation_snapshot,
    slsa_provenance,
    slsa_vsa,
    source_verification,
    test_result,
    waiver,
)

MODULES: tuple[ModuleType, ...] = (
    data_provenance,
    fairness,
    human_approval,
    oms_signature,
    ownership,
    revocation,
    revocation_snapshot,
    slsa_provenance,
    slsa_vsa,
    source_verification,
    test_result,
    waiver,
)
"""Every predicate module, in alphabetical order."""
MODELS: dict[str, type[BaseModel]] = {module.URI: module.Predicate for module in MODULES}
"""Predicate type URI → model."""
SHORT: dict[str, str] = {module.SHORT: module.URI for module in MODULES}
"""Short name, as policies and commands use it → URI."""


def uri_of(name: str) -> str:
    """The URI for a short name or a URI that is known. Raises `UnknownName` otherwise."""
    uri = SHORT.get(name, name)
    if uri not in MODELS:
        raise UnknownName(f"unknown predicate type {name!r}", expected="one of " + ", ".join(sorted(SHORT)))
    return uri


def check(uri: str, predicate: Mapping[str, Any]) -> BaseModel:
    """`predicate` as the model of `uri`. Raises `MalformedEvidence` if a field is missing, wrong or not finite."""
    try:
        return MODELS[uri_of(uri)].model_validate(dict(predicate))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedEvidence(
            f"predicate {uri} breaks its schema at {where or 'the top'}", got=first["msg"]
        ) from error


def schema(uri: str) -> dict[str, Any]:
    """The JSON Schema of `uri`, generated from the model."""
    return MODELS[uri_of(uri)].model_json_schema(by_alias=True)
