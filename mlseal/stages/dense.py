"""A small network as plain numbers: a model directory that loads without running anybody's code.

    MODEL/MLmodel        signature, flavours ``mlseal_dense`` and ``python_function``
    MODEL/weights.json   format, features, ranges, layers

A logistic regression is one layer. Loading is reading JSON, so there is no pickle to trust; `governance.fairness`
scores such a directory without torch, and MLflow serves it through `mlseal_mlflow.dense`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unreadable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "mlseal-dense/1"
WEIGHTS = "weights.json"
FLAVOR = "mlseal_dense"
_EPOCH = "1970-01-01 00:00:00.000000"


@dataclass(frozen=True)
class Layer:
    """``x @ weight.T + bias``, then tanh unless it is the last; `weight` is (outputs, inputs), `bias` (outputs)."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class Dense:
    """A network with one output, the logit of class 1.

    Attributes:
        features: columns in order.
        ranges: column → (low, high): values are cut to it and mapped to -1 … 1; others are taken as they are.
        layers: at least one; the last has one output.
    """

    features: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    layers: tuple[Layer, ...]

    def scaled(self, table: Any) -> NDArray[np.float64]:
        """The features of a pandas `table` as the first layer takes them, (rows, features)."""
        return scaled(table, self.features, self.ranges)

    def decision_function(self, table: Any) -> NDArray[np.float64]:
        """Logits, one a row of `table`."""
        return self._logits(self.scaled(table))

    def decided(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """As `predict`, of finite numbers in the order of the features, (rows, features)."""
        import numpy as np

        return (self._logits(_mapped(values, self.features, self.ranges)) >= 0).astype(np.int64)

    def _logits(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        found = scaled
        for layer in self.layers[:-1]:
            found = np.tanh(found @ layer.weight.T + layer.bias)
        last = self.layers[-1]
        return np.asarray((found @ last.weight.T + last.bias)[:, 0], dtype=np.float64)

    def predict(self, table: Any) -> NDArray[np.int64]:
        """Class 1 where the logit is not negative."""
        import numpy as np

        return (self.decision_function(table) >= 0).astype(np.int64)

    def write(self, directory: Path) -> None:
        """Write the model directory; equal models give equal bytes."""
        import yaml

        directory.mkdir()
        layers = [{"weight": layer.weight.tolist(), "bias": layer.bias.tolist()} for layer in self.layers]
        ranges = {name: list(self.ranges[name]) for name in self.features if name in self.ranges}
        document = {"format": FORMAT, "features": list(self.features), "ranges": ranges, "layers": layers}
        (directory / WEIGHTS).write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
        columns = [{"type": "double", "name": name, "required": True} for name in self.features]
        described = {
            "flavors": {
                FLAVOR: {"weights": WEIGHTS, "format": FORMAT},
                "python_function": {"loader_module": "mlseal_mlflow.dense", "data": WEIGHTS},
            },
            "signature": {"inputs": json.dumps(columns), "outputs": json.dumps([{"type": "double", "name": "logit"}])},
            "utc_time_created": _EPOCH,
        }
        (directory / "MLmodel").write_text(yaml.safe_dump(described), encoding="utf-8")


def scaled(table: Any, features: Sequence[str], ranges: Mapping[str, tuple[float, float]]) -> NDArray[np.float64]:
    """Columns of `table` cut to their ranges and mapped to -1 … 1, (rows, features).

    Raises `Misuse` for a column that is absent, not of numbers, or holds a value that is missing or not finite.
    """
    import numpy as np

    absent = [name for name in features if name not in table.columns]
    if absent:
        raise Misuse("the table lacks features", got="no " + ", ".join(absent[:8]))
    found = np.empty((len(table), len(features)))
    for place, name in enumerate(features):
        try:
            values = table[name].to_numpy(dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise Misuse(f"column {name!r} does not hold numbers", expected="numbers in every row") from error
        if not np.isfinite(values).all():
            raise Misuse(
                f"column {name!r} has missing values",
                got=f"{int((~np.isfinite(values)).sum())} of {len(values)} rows are missing or not finite",
                remedy="decide about them in the data, where the decision is signed",
            )
        found[:, place] = values
    return _mapped(found, features, ranges)


def _mapped(
    values: NDArray[np.float64], features: Sequence[str], ranges: Mapping[str, tuple[float, float]]
) -> NDArray[np.float64]:
    import numpy as np

    found = np.array(values, dtype=np.float64)
    bounded = [place for place, name in enumerate(features) if name in ranges]
    if bounded:
        low, high = np.array([ranges[features[place]] for place in bounded], dtype=np.float64).T
        found[:, bounded] = (found[:, bounded].clip(low, high) - low) * (2 / (high - low)) - 1
    return found


def read(path: Path) -> Dense:
    """The model in a ``weights.json``, or in a directory that holds one. Raises `Unreadable` for anything else."""
    file = path / WEIGHTS if path.is_dir() else path
    try:
        return _parsed(json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(
            f"{path.name} is no model of plain numbers", got=str(error)[:200], expected=f"{WEIGHTS} of {FORMAT}"
        ) from error


def _parsed(document: dict[str, Any]) -> Dense:
    import numpy as np

    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']!r}")
    layers = tuple(Layer(np.array(one["weight"], float), np.array(one["bias"], float)) for one in document["layers"])
    ranges = {name: (float(low), float(high)) for name, (low, high) in document["ranges"].items()}
    features = tuple(str(name) for name in document["features"])
    _require_shape(features, ranges, layers)
    return Dense(features, ranges, layers)


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _require_shape(features: Sequence[str], ranges: Mapping[str, tuple[float, float]], layers: Sequence[Layer]) -> None:
    width = len(features)
    for layer in layers:
        if layer.weight.ndim != 2 or layer.weight.shape[1] != width or layer.bias.shape != layer.weight.shape[:1]:
            raise ValueError("its layers do not fit each other")
        width = layer.weight.shape[0]
    if not layers or width != 1 or not features:
        raise ValueError("it has no features, or not one output")
    if any(not (math.isfinite(low) and math.isfinite(high) and low < high) for low, high in ranges.values()):
        raise ValueError("a range is empty")
