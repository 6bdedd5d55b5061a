"""The built-in scorer: a program that loads a scikit-learn model from an MLflow directory and scores a table.

    python -I scoring.py --model DIR --data FEATURES.parquet --kind decision|score|probability --out FILE

Any program with this command line can take its place (``--scorer``). It runs in a child process because loading a
pickle runs the model's code. It does not import MLflow: the flavour's two facts, file and format, are read from
``MLmodel`` as MLflow writes them. A model of plain numbers (`mlseal.stages.dense`) is read, not unpickled. Output: one
number a row, in row order, as text: the class, the model's own score, or the probability of class 1.
"""

from __future__ import annotations

import argparse
import importlib
import pickle
import sys
from pathlib import Path
from typing import Any


def load(directory: Path) -> Any:
    """The model, as ``mlflow.sklearn`` loads it. Exits with a sentence when there is no scikit-learn flavour."""
    import yaml

    flavors = yaml.safe_load((directory / "MLmodel").read_text(encoding="utf-8")).get("flavors", {})
    if "mlseal_dense" in flavors:
        from mlseal.stages import dense

        return dense.read(directory)
    flavor = flavors.get("sklearn")
    if flavor is None:
        sys.exit(f"the model has no scikit-learn flavour (it has {sorted(flavors)}); pass --scorer PROGRAM")
    file = (directory / flavor["pickled_model"]).resolve()
    if not file.is_relative_to(directory.resolve()):
        sys.exit("the model file lies outside the model directory")
    if code := flavors.get("python_function", {}).get("code") or flavor.get("code"):
        sys.path.insert(0, str(directory / code))
    if flavor.get("serialization_format") == "skops":
        return importlib.import_module("skops.io").load(file, trusted=flavor.get("skops_trusted_types") or [])
    with file.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - the one place where the model's code runs


def score(model: Any, table: Any, kind: str) -> list[float]:
    """One number a row: the decision, or the first score that the model offers."""
    if kind == "decision":
        found = model.predict(table)
    elif kind == "probability":
        return probabilities(model, table)
    elif hasattr(model, "decision_function"):
        found = model.decision_function(table)
    elif hasattr(model, "predict_proba"):
        found = model.predict_proba(table)[:, 1]
    else:
        found = model.predict(table)
    return [float(value) for value in found]


def probabilities(model: Any, table: Any) -> list[float]:
    """The probability of class 1, a row each; a logit of plain numbers is turned into one. Exits when there is none."""
    if hasattr(model, "predict_proba"):
        return [float(value) for value in model.predict_proba(table)[:, 1]]
    if type(model).__module__ != "mlseal.stages.dense":
        sys.exit("the model gives no probabilities; pass --scorer PROGRAM that does")
    import numpy as np

    logits = model.decision_function(table)
    return [float(value) for value in np.exp(-np.logaddexp(0, -logits))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score a table with a scikit-learn model.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=("decision", "score", "probability"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    import pandas as pd

    scores = score(load(options.model), pd.read_parquet(options.data), options.kind)
    options.out.write_text("\n".join(map(repr, scores)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
