"""SLSA provenance v1: how an artifact was produced (slsa.dev/spec/v1.0/provenance).

mlseal makes it for training steps. ``resolvedDependencies`` lists data and code by digest, which is what chains a
model to its data. ``preflight`` is an extension field, which other verifiers pass over: the verdict on the planned run.

Example::

    {"buildDefinition": {"buildType": "https://mlseal.dev/build/training.run/v0.1",
       "externalParameters": {"epochs": "3"},
       "resolvedDependencies": [{"name": "data", "digest": {"sha256": "…"}}]},
     "runDetails": {"builder": {"id": "https://mlseal.dev/builder/host-process/v0.1"},
       "metadata": {"invocationId": "run-17"}}}
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mlseal.evidence.predicates.base import Model, Preflight, ResourceDescriptor, Timestamp

URI = "https://slsa.dev/provenance/v1"
SHORT = "slsa-provenance"


class BuildDefinition(Model):
    """What was to be built, from what."""

    build_type: str
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any] | None = None
    resolved_dependencies: list[ResourceDescriptor] = Field(default_factory=list)


class Builder(Model):
    """Who vouches for the build; the id says what isolation there was."""

    id: str
    version: dict[str, str] | None = None


class BuildMetadata(Model):
    """Which run, when."""

    invocation_id: str | None = None
    started_on: Timestamp | None = None
    finished_on: Timestamp | None = None


class RunDetails(Model):
    """How the build ran."""

    builder: Builder
    metadata: BuildMetadata | None = None
    byproducts: list[ResourceDescriptor] = Field(default_factory=list)


class Predicate(Model):
    """SLSA provenance v1."""

    build_definition: BuildDefinition
    run_details: RunDetails
    preflight: Preflight | None = None
