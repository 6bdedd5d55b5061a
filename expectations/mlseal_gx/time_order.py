"""`expect_column_pair_values_to_be_in_time_order`: nobody leaves before arriving.

Texts are read as ISO 8601. What is no date there is an unexpected value, not a missing one: a table whose dates turned
into "31/12/20" would otherwise have nothing left to compare and pass.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnPairMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnPairMapMetricProvider,
    column_pair_condition_partial,
)

_METRIC = "column_pair_values.mlseal_time_order"


class TimeOrder(ColumnPairMapMetricProvider):
    """Whether A is not after B, and B at most `max_days` after A where that is given."""

    condition_metric_name = _METRIC
    condition_domain_keys = (
        "batch_id",
        "table",
        "column_A",
        "column_B",
        "row_condition",
        "condition_parser",
        "ignore_row_if",
    )
    condition_value_keys = ("max_days",)

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(
        cls,  # noqa: N805 - GX makes it a class method
        column_A: Any,  # noqa: N803 - GX calls it by this name
        column_B: Any,  # noqa: N803 - same
        max_days: float | None = None,
        **_: Any,
    ) -> Any:
        passed = _dates(column_B) - _dates(column_A)
        in_order = passed >= pd.Timedelta(0)  # a comparison with no date is false
        return in_order if max_days is None else in_order & (passed <= pd.Timedelta(days=max_days))


class ExpectColumnPairValuesToBeInTimeOrder(ColumnPairMapExpectation):
    """Expect the date in column A not to be after the one in column B.

    Attributes:
        max_days: how many days there may be between them; None for any number.
        ignore_row_if: which rows are not judged; a date that is missing beside one that is not is out of order, unless
            ``either_value_is_missing`` says otherwise.
    """

    max_days: float | None = None
    ignore_row_if: Literal["both_values_are_missing", "either_value_is_missing", "neither"] = "both_values_are_missing"

    map_metric: ClassVar[str] = _METRIC
    success_keys: ClassVar[tuple[str, ...]] = ("column_A", "column_B", "ignore_row_if", "max_days", "mostly")


def _dates(column: Any) -> Any:
    """The column as times in UTC; what is no ISO 8601 date is none."""
    return pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
