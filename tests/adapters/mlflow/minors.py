"""The other MLflow minor that mlseal supports, beside the one that is installed: ``python -m tests.adapters.mlflow.minors``.

Its code alone, in a directory of the environment: what it depends on, the installed one brought.
"""

from __future__ import annotations

from pathlib import Path

from tests.beside import packages

OTHER = "3.16.1"


def other() -> Path:
    """The directory to put first on ``PYTHONPATH``; filled from the package index on first use."""
    return packages(f"mlflow-{OTHER}", [f"{name}=={OTHER}" for name in ("mlflow", "mlflow-skinny", "mlflow-tracing")])


if __name__ == "__main__":
    other()
