"""The other MLflow minor that mlseal supports, beside the one that is installed: ``python -m tests.adapters.mlflow.minors``.

Its code alone, in a directory of the environment: what it depends on, the installed one brought.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

OTHER = "3.16.1"


def other() -> Path:
    """The directory to put first on ``PYTHONPATH``; filled from the package index on first use."""
    place = Path(sys.prefix) / f".mlflow-{OTHER}"
    place.mkdir(exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / ".ready").exists():
            packages = [f"{name}=={OTHER}" for name in ("mlflow", "mlflow-skinny", "mlflow-tracing")]
            install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
            subprocess.run([*install, "--no-compile", "--target", str(place), *packages], check=True)
            (place / ".ready").touch()
    return place


if __name__ == "__main__":
    other()
