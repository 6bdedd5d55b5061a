"""Before anything learns from a table: does it hold what its users wrote down about it?"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlseal.errors import Error, Unchecked
from mlseal.stages import tables
from mlseal.stages.base import Context, DatasetPath, EntryPath, FilePath, Finding, require, stage
from mlseal_gx import outcomes
from mlseal_gx.outcomes import Outcome

_OURS = ("mlseal_gx.measurements", "mlseal_gx.time_order")
_SMALL_CELL = 10
_NOT_PROVEN = (
    "that the data are true: the suite sees what its authors thought of",
    "that the suite asks enough: a policy names the digest of the suite that it trusts",
)


@stage(
    "ingestion.validation",
    predicate="test-result",
    extra="gx",
    cost="seconds: a pass over a column for each expectation; the library takes most of them to start",
    not_proven=_NOT_PROVEN,
)
def validation(
    dataset: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    suite: FilePath,  # noqa: ARG001 - same
    table: EntryPath = "",
    *,
    context: Context,
) -> Finding:
    """Validate a table by a Great Expectations suite, each expectation a test that passed, warned or failed.

    Args:
        dataset: the table, or a directory that holds it.
        suite: a suite in JSON, as Great Expectations writes it; types of mlseal_gx may stand in it.
        table: the table inside a data set directory, CSV or parquet.

    Guarantees:
        The evidence holds the suite's digest and, for each Expectation, position, type, columns and outcome; no value
        and no count of a value. PASSED means that every Expectation was evaluated on at least one value and held,
        WARNED that those which did not hold are called warnings by the suite. Nothing is sent anywhere, and nothing is
        written but the evidence.

    Edge cases:
        An Expectation that raised, whose column is missing, or that had no value to judge has FAILED, whatever its
        severity. A suite without Expectations, with an unknown one, or with one that can never fail raises `Misuse`, a
        table without rows `Unreadable`.
    """
    require("great_expectations", "gx")
    for module in _OURS:
        importlib.import_module(module)
    frame = tables.read(context.private_file("dataset", tables.entry(context.measured["dataset"], table)))
    name, listed = outcomes.suite_of(context.private_copy("suite").read_bytes())
    judged = outcomes.judge(listed, _validate(frame, outcomes.build(listed)))
    by_verdict = {v: [one.name for one in judged if one.verdict == v] for v in ("passed", "warned", "failed")}
    for one in judged:
        if one.verdict != "passed":
            context.log(f"{one.verdict}: {one.name}: {one.why}")
    context.log(", ".join(f"{len(names)} {verdict}" for verdict, names in by_verdict.items()))
    return Finding(
        subjects=("dataset",),
        fields={
            "result": "FAILED" if by_verdict["failed"] else "WARNED" if by_verdict["warned"] else "PASSED",
            "configuration": _configuration(context, name, frame, judged),
            **{f"{verdict}Tests": names for verdict, names in by_verdict.items()},
        },
    )


def _validate(frame: Any, expectations: Sequence[Any]) -> Sequence[Any]:
    """The results as Great Expectations gives them. Raises `Unchecked` when it gives none."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    # A context in memory reads no configuration of the machine and writes none.
    with _quiet():
        settings = base.DataContextConfig(
            store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars=base.ProgressBarsConfig(globally=False),
        )
        ours = gx.get_context(mode="ephemeral", project_config=settings)
        asset = ours.data_sources.add_pandas("mlseal").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
        suite = gx.ExpectationSuite(name="mlseal", expectations=list(expectations))
        if len(suite.expectations) != len(expectations):
            raise Unchecked("Great Expectations left out a part of the suite", got=len(suite.expectations))
        try:
            # Counts only: what is unexpected may be a person's.
            form = {"result_format": "BASIC", "partial_unexpected_count": 0}
            found: Sequence[Any] = batch.validate(suite, result_format=form).results
        except Error:
            raise
        except Exception as error:  # the message may quote the table, so it stays in `__cause__`
            raise Unchecked("Great Expectations stopped", got=type(error).__name__, remedy="check the suite") from error
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Great Expectations prints and logs: both may hold values of the table."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def _configuration(context: Context, name: str, frame: Any, judged: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The suite by digest, the table by size, the library by version."""
    size: Mapping[str, int] = {"rows": len(frame)} if len(frame) >= _SMALL_CELL else {}
    return [
        {
            "name": "suite",
            "uri": f"sha256:{context.measured['suite'].sha256}",  # a text, so that a policy can look for it
            "digest": {"sha256": context.measured["suite"].sha256},
            "annotations": {"name": name[:200], "expectations": len(judged), "columns": len(frame.columns), **size},
        },
        {
            "name": "great_expectations",
            "annotations": {"version": importlib.metadata.version("great_expectations")},
        },
    ]
