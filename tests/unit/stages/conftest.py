"""Small data, a small real model, and a way to run a stage without a signer."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlseal.errors import NotInitialised
from mlseal.stages import runner

N = 1200


def no_archive():
    raise NotInitialised("no trust in this test")


@pytest.fixture
def perform() -> Callable:
    """Runs a stage up to its statement and publishes its outputs; returns the statement."""

    def run(name: str, *, archive=no_archive, log=lambda _: None, **arguments: object):
        texts = {key: value if isinstance(value, str) else str(value) for key, value in arguments.items()}
        with runner.performed(name, texts, archive=archive, run_id="run-1", log=log) as done:
            done.publish()
            return done.statement

    return run


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set whose column ``fair`` decides alike in both groups and ``unfair`` does not."""

    def write(n: int = N, seed: int = 0, **columns) -> Path:
        rng = np.random.default_rng(seed)
        group = rng.integers(0, 2, n)
        need = (rng.random(n) < 0.4).astype(int)
        noise = rng.normal(size=n)
        frame = pd.DataFrame(
            {
                "group": group,
                "need": need,
                "household": np.arange(n) // 2,
                "signal": need + 0.3 * noise,
                "skewed": need - 1.5 * group + 0.3 * noise,
                "fair": (need + 0.6 * noise > 0.5).astype(int),
                "unfair": (need - 1.0 * group + 0.6 * noise > 0.5).astype(int),
            }
            | columns
        )
        directory = tmp_path / f"data-{len(list(tmp_path.glob('data-*')))}"
        directory.mkdir()
        frame.to_parquet(directory / "test.parquet", index=False)
        frame.to_csv(directory / "test.csv", index=False)
        return directory

    return write


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a fitted scikit-learn model in MLflow's layout, without MLflow."""

    def write(features: list[str], name: str = "model", *, signature: bool = True) -> Path:
        import pickle

        import yaml
        from sklearn.linear_model import LogisticRegression

        rng = np.random.default_rng(1)
        table = pd.DataFrame(rng.normal(size=(400, len(features))), columns=features)
        fitted = LogisticRegression().fit(table, (table.sum(axis=1) > 0).astype(int))
        directory = tmp_path / name
        directory.mkdir()
        (directory / "model.pkl").write_bytes(pickle.dumps(fitted))
        columns = [{"type": "double", "name": f, "required": True} for f in features]
        described = {"flavors": {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}}}
        if signature:
            described["signature"] = {"inputs": json.dumps(columns)}
        (directory / "MLmodel").write_text(yaml.safe_dump(described))
        return directory

    return write


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a Python file."""

    def write(text: str, name: str = "program.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
