"""A scorer for models of any MLflow flavour, to pass to ``mlseal run governance.fairness --scorer``.

The built-in scorer knows scikit-learn models and imports no MLflow. This one loads through ``mlflow.pyfunc`` whatever
flavour there is; of several output columns it takes the last, the probability of class 1.
"""

import argparse
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd


def main() -> None:
    """Command line, as every scorer has it."""
    parser = argparse.ArgumentParser(description="Score a table with an MLflow model.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=("decision", "score"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = np.asarray(mlflow.pyfunc.load_model(options.model).predict(pd.read_parquet(options.data)))
    scores = found.reshape(len(found), -1)[:, -1]
    values = (scores >= 0.5).astype(int) if options.kind == "decision" else scores
    options.out.write_text("\n".join(repr(float(value)) for value in values) + "\n")


if __name__ == "__main__":
    main()
