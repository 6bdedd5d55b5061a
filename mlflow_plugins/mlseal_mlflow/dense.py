"""MLflow loads a model of plain numbers (`mlseal.stages.dense`) through this module: it reads JSON, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlseal.stages.dense import Dense


class Loaded:
    """What ``mlflow.pyfunc`` calls."""

    def __init__(self, model: Dense) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """Logits of class 1, one a row, for a pandas frame with the columns of the signature."""
        return self._model.decision_function(model_input)


def _load_pyfunc(path: str) -> Loaded:
    from mlseal.stages import dense

    return Loaded(dense.read(Path(path)))
