"""Train one model of the demo and save it as MLflow does.

    python train_model.py --data data/randhie --out model --param target=need --param features=admin+income

``target`` and ``features`` name entries of the data set's ``dataset.json``. The model is a logistic regression; what
makes the two models of the demo different is not the method but which label they learn.

The directory is written by ``mlflow.sklearn.save_model``. Two fields of ``MLmodel`` would differ between equal runs,
the time and a random id; the first is fixed (the signed provenance holds the real time), the second is derived from
the model, so that the same data, code and settings give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import uuid
import warnings
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01 00:00:00.000000"


def fit(data: Path, target: str, features: str) -> tuple[Any, Any]:
    """The fitted model and the frame of its features. Both names are looked up in ``dataset.json``."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    about = json.loads((data / "dataset.json").read_text())
    try:
        label, columns = about["targets"][target], about["features"][features]
    except KeyError as error:
        known = f"targets {sorted(about['targets'])}, features {sorted(about['features'])}"
        raise SystemExit(f"unknown name {error}; this data set has {known}") from error
    table = pd.read_parquet(data / "train.parquet")
    return LogisticRegression(max_iter=2000).fit(table[columns], table[label]), table[columns]


def save(model: Any, frame: Any, out: Path) -> None:
    """Write the MLflow directory with equal bytes for equal models."""
    warnings.filterwarnings("ignore")
    import mlflow.sklearn
    import sklearn
    import yaml
    from mlflow.models import infer_signature

    # MLflow warns that a pickle runs code when it is loaded. So it does; that is what the verifying loader is for.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    scores = model.predict_proba(frame)
    mlflow.sklearn.save_model(
        model,
        str(out),
        signature=infer_signature(frame, scores),
        serialization_format="cloudpickle",
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
        pyfunc_predict_fn="predict_proba",
    )
    described = yaml.safe_load((out / "MLmodel").read_text())
    digest = hashlib.sha256((out / described["flavors"]["sklearn"]["pickled_model"]).read_bytes()).digest()
    described |= {"utc_time_created": EPOCH, "model_uuid": uuid.UUID(bytes=digest[:16], version=4).hex}
    (out / "MLmodel").write_text(yaml.safe_dump(described))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train one model of the demo.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in options.param)
    if unknown := given.keys() - {"target", "features"}:
        raise SystemExit(f"unknown parameters {sorted(unknown)}; expected target and features")
    model, frame = fit(options.data, given.get("target", "need"), given.get("features", "admin"))
    save(model, frame, options.out)
    print(f"learned {given.get('target', 'need')} from {frame.shape[1]} features of {frame.shape[0]} people")


if __name__ == "__main__":
    main()
