"""What a data scientist and a consumer do with MLflow, each in a process of its own, over HTTP.

python registry_client.py register MODEL_DIR NAME        upload and register a version; prints it
python registry_client.py score URI TABLE                load through the verifying scheme and score a table
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path


def register(directory: Path, name: str) -> str:
    """Upload `directory` unchanged and register it under `name`; the new version's number."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import RestException

    client = MlflowClient()
    with mlflow.start_run() as run:
        client.log_artifacts(run.info.run_id, str(directory), "model")
    try:
        client.create_registered_model(name)
    except RestException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(name, f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    return str(version.version)


def score(uri: str, table: Path) -> str:
    """Load `uri`, which verifies before anything is unpickled, and score the features of `table`."""
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(uri)
    frame = pd.read_parquet(table)[[column.name for column in model.metadata.get_input_schema()]]
    return f"scored {len(model.predict(frame))} people"


def main() -> None:
    """Command line; a refusal of the registry or the loader ends with its sentence and status 10."""
    warnings.filterwarnings("ignore")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    from mlflow.exceptions import MlflowException

    action, *given = sys.argv[1:]
    try:
        print(register(Path(given[0]), given[1]) if action == "register" else score(given[0], Path(given[1])))
    except MlflowException as error:
        print(str(error.message), file=sys.stderr)
        sys.exit(10)


if __name__ == "__main__":
    main()
