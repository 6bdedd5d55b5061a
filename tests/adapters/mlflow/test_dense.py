"""A model of plain numbers, loaded by MLflow itself."""

import numpy as np
import pandas as pd

from mlseal.stages import dense


def test_mlflow_loads_it_and_predicts_as_it_does(tmp_path):
    import mlflow.pyfunc

    layers = (
        dense.Layer(np.array([[1.0, 0.0], [0.5, -2.0]]), np.array([0.0, 0.1])),
        dense.Layer(np.array([[1.0, -1.0]]), np.array([0.25])),
    )
    model = dense.Dense(("a", "b"), {"a": (0.0, 10.0)}, layers)
    model.write(tmp_path / "model")
    frame = pd.DataFrame({"b": [0.0, 1.0, 3.0], "a": [5.0, 0.0, 12.0]})
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert loaded.metadata.get_input_schema().input_names() == ["a", "b"]
    assert np.array_equal(loaded.predict(frame), model.decision_function(frame))
    assert not [p for p in (tmp_path / "model").rglob("*") if p.suffix in {".pkl", ".pickle", ".pt"}]
