"""The compiled YAML of the ingestion stages, run: a table is validated, scanned, redacted and tried for poison."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import measure
from tests.adapters.kfp.conftest import CANARY, require_no_row_printed

STAGES = {"ingestion.validation", "ingestion.pii", "ingestion.redact", "ingestion.poisoning"}


@pytest.mark.slow
def test_a_table_goes_through_every_ingestion_component(bench: Any) -> None:
    """Four components in processes of their own; each leaves evidence about the bytes that the next one reads."""
    rng = np.random.default_rng(0)
    sick = rng.integers(0, 2, 1200)
    rows = {"mrn": np.arange(10_000, 11_200), "marker": sick * 3 + rng.normal(size=1200), "sick": sick}
    rows["ward"] = [CANARY] * 1200
    table, suite = bench.base / "visits.csv", bench.base / "suite.json"
    pd.DataFrame(rows).to_csv(table, index=False)
    expected = [{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "mrn"}}]
    suite.write_text(json.dumps({"name": "visits", "expectations": expected}))
    result = bench.run("intake", data=str(table), suite=str(suite), label="sick").require()
    assert {t.stage for t in result.tasks} == STAGES
    require_no_row_printed(result, table)

    def evidence(task: str) -> Any:
        return Bundle.read(result.output(task, "evidence")).statement

    assert evidence("ingestion-validation").predicate["result"] == "PASSED"
    source, redacted = measure(table).sha256, measure(result.output("ingestion-redact", "redacted")).sha256
    scanned, made, tried = (evidence(f"ingestion-{name}") for name in ("pii", "redact", "poisoning"))
    assert scanned.predicate["found"] == ["MEDICAL_RECORD_NUMBER"] and made.predicate["found"] == []
    assert made.predicate["redaction"]["source"]["digest"] == {"sha256": source}
    assert [s.sha256 for s in scanned.subjects] == [source]
    assert made.subjects[-1].sha256 == tried.subjects[-1].sha256 == redacted
    assert tried.predicate["sufficient"] is True
