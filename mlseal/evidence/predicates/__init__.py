"""The kinds of claim: one module per predicate type, each with URI, fields and a whole example.

Standard types are used where one fits (SLSA provenance and VSA, in-toto test-result, OMS signature); the others live
under one namespace. A released URI never changes its meaning: a change is a new URI.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from mlseal.errors import MalformedEvidence, UnknownName
from mlseal.evidence.predicates import (
    budget_reservation,
    cyclonedx,
    data_anomaly_scan,
    data_policy,
    data_provenance,
    dp_training,
    drift,
    fairness,
    federated_training,
    guard_evaluation,
    he_computation,
    human_approval,
    oms_signature,
    ownership,
    partial_result,
    pii_scan,
    policy_release,
    revocation,
    revocation_snapshot,
    security_evaluation,
    slsa_provenance,
    slsa_vsa,
    source_verification,
    test_result,
    vulns,
    waiver,
)

MODULES: tuple[ModuleType, ...] = (
    budget_reservation,
    cyclonedx,
    data_anomaly_scan,
    data_policy,
    data_provenance,
    dp_training,
    drift,
    fairness,
    federated_training,
    guard_evaluation,
    he_computation,
    human_approval,
    oms_signature,
    ownership,
    partial_result,
    pii_scan,
    policy_release,
    revocation,
    revocation_snapshot,
    security_evaluation,
    slsa_provenance,
    slsa_vsa,
    source_verification,
    test_result,
    vulns,
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


def check_own(uri: str, predicate: Mapping[str, Any]) -> BaseModel:
    """`predicate` as `check` gives it, for whoever makes it: a field that the schema does not have is refused too.

    Verifiers pass over fields that they do not know, so a misspelt one would be signed and mean nothing to anybody.
    """
    made = check(uri, predicate)
    for where in _unknown(dict(predicate), made.model_dump(by_alias=True, exclude_unset=True, mode="json")):
        raise MalformedEvidence(
            f"predicate {uri} has a field that its schema does not have",
            got=where,
            expected="the fields of its page in docs/predicates",
            remedy="correct its spelling or leave it out",
        )
    return made


def _unknown(given: Any, kept: Any, where: str = "") -> Iterator[str]:
    """Paths of the members of `given` that reading it as a model did not keep."""
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        for name, value in given.items():
            path = f"{where}.{name}" if where else str(name)
            if name not in kept:
                yield path
            else:
                yield from _unknown(value, kept[name], path)
    elif isinstance(given, list | tuple) and isinstance(kept, list):
        for number, (value, copy) in enumerate(zip(given, kept, strict=True)):
            yield from _unknown(value, copy, f"{where}[{number}]")


@cache  # ten milliseconds each, and a policy's controls ask for every sample
def schema(uri: str) -> Mapping[str, Any]:
    """The JSON Schema of `uri`, generated from the model; the same object each time, so not to be changed."""
    return MODELS[uri_of(uri)].model_json_schema(by_alias=True)
