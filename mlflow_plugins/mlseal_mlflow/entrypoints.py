"""What MLflow calls by entry point: repositories for ``attested:`` and ``models:`` URIs, and an evaluator.

Nothing of MLflow is imported here before it is used. MLflow loads entry points in the middle of its own imports, and
where one of them fails it warns and goes on: a module that MLflow's imports lead back to would be half made at that
moment, ``attested:`` would be unknown, and ``models:`` would silently be read unverified.
"""

from __future__ import annotations

import os
from typing import Any

from mlseal.errors import Misuse

MODELS = "MLSEAL_MLFLOW_MODELS"
_ATTESTED = "attested"


def attested(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository for ``attested:``."""
    from mlseal_mlflow.artifact import AttestedArtifactRepository

    return AttestedArtifactRepository(artifact_uri, tracking_uri, registry_uri)


def models(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """The repository for ``models:``: MLflow's own, unless this process set ``MLSEAL_MLFLOW_MODELS=attested``.

    Raises an `MlflowException` (400) for a setting that is not known.
    """
    value = os.environ.get(MODELS, "")
    if value == _ATTESTED:
        from mlseal_mlflow.artifact import AttestedModelsRepository

        return AttestedModelsRepository(artifact_uri, tracking_uri, registry_uri)
    if value:
        from mlseal_mlflow.refusals import to_mlflow

        wrong = Misuse(f"{MODELS} has a value that is not known", got=value[:40], expected="'attested', or unset")
        raise to_mlflow(wrong, "access")
    from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

    return ModelsArtifactRepository(artifact_uri, tracking_uri, registry_uri)


def evaluator() -> Any:
    """The evaluator ``mlseal`` of ``mlflow.models.evaluate``."""
    from mlseal_mlflow.evaluating import StageEvaluator

    return StageEvaluator()
