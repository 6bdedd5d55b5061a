"""`expect_column_values_to_be_plausible_measurements`: values that a living person can have, in the unit that is named.

A table in the wrong unit has the right shape: 98.6 under ``celsius`` is a number like any other. The bounds are wide,
so that the sickest patient passes and a wrong unit, a slipped decimal point or a code such as 999 does not. They follow
the extremes in handbooks of intensive care and are no reference ranges: within them nothing is said about health.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from great_expectations.compatibility.pydantic import root_validator
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation
from great_expectations.expectations.metrics import ColumnMapMetricProvider
from great_expectations.expectations.metrics.map_metric_provider import column_condition_partial

PLAUSIBLE: dict[str, dict[str, tuple[float, float]]] = {
    "age": {"years": (0, 123), "months": (0, 1476)},
    "bodyHeight": {"cm": (20, 275), "inch": (8, 108)},
    "bodyTemperature": {"celsius": (13, 46), "fahrenheit": (55, 115)},
    "bodyWeight": {"kg": (0.2, 650), "lb": (0.45, 1430)},
    "cycleThreshold": {"cycles": (1, 50)},
    "diastolicPressure": {"mmHg": (10, 220), "kPa": (1.3, 29)},
    "glucose": {"mmol/L": (0.3, 150), "mg/dL": (6, 2700)},
    "heartRate": {"1/min": (10, 350)},
    "hoursOfStay": {"hours": (0, 8784)},
    "oxygenSaturation": {"percent": (20, 100), "fraction": (0.2, 1)},
    "respiratoryRate": {"1/min": (2, 120)},
    "systolicPressure": {"mmHg": (30, 350), "kPa": (4, 47)},
}
"""Quantity → unit → least and greatest value that is believed, both included."""
_METRIC = "column_values.mlseal_plausible_measurement"


class PlausibleMeasurement(ColumnMapMetricProvider):
    """Whether each value is a number within the bounds of its quantity and unit; a text that is no number is not."""

    condition_metric_name = _METRIC
    condition_value_keys = ("quantity", "unit")

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: Any, quantity: str, unit: str, **_: Any) -> Any:  # noqa: N805 - GX makes it a class method
        low, high = PLAUSIBLE[quantity][unit]
        return pd.to_numeric(column, errors="coerce").between(low, high)


class ExpectColumnValuesToBePlausibleMeasurements(ColumnMapExpectation):
    """Expect the column to hold values of `quantity` in `unit` that a living person can have.

    Attributes:
        quantity: a key of `PLAUSIBLE`.
        unit: a unit that this quantity has there.
    """

    quantity: str
    unit: str

    map_metric: ClassVar[str] = _METRIC
    success_keys: ClassVar[tuple[str, ...]] = ("quantity", "unit", "mostly")

    @root_validator(skip_on_failure=True)
    def _known(cls, values: dict[str, Any]) -> dict[str, Any]:  # noqa: N805 - pydantic makes it a class method
        if values["unit"] not in PLAUSIBLE.get(values["quantity"], {}):
            known = "; ".join(f"{name} in {', '.join(units)}" for name, units in PLAUSIBLE.items())
            raise ValueError(f"no bounds for {values['quantity']} in {values['unit']}; known: {known}")
        return values
