"""Who is chosen among those who need it: group metrics with intervals, power and a minimum of cases."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, Unchecked
from mlseal.stages import scored, tables
from mlseal.stages.base import Context, DatasetPath, EntryPath, FilePath, Finding, ModelPath, require, stage
from mlseal.stages.governance import decisions, disclosure
from mlseal.stages.governance import groups as grouping
from mlseal.stages.governance.decisions import Rule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mlseal.stages.governance.contingency import Counts, Estimate
    from mlseal.stages.governance.groups import Coded

_AGREEMENT = 1e-9
_LIBRARIES = ("fairlearn", "numpy", "pandas", "scikit-learn")
_NOT_PROVEN = (
    "fairness towards groups, outcomes or uses other than those named",
    "that the outcome column measures what its name says",
    "that the model behaves in use as it does on this table",
    "stability of the choice: decisions are held fixed while rows are drawn anew",
)
_UNVERIFIED = "that the model's provenance was verified before its code ran here"
_DECLARED = "that the model made these decisions: they were read from a column"


@dataclass(frozen=True)
class _Sample:
    truth: NDArray[np.int64]
    decision: NDArray[np.int64]
    groups: Coded
    clusters: Coded | None


@stage(
    "governance.fairness",
    predicate="fairness",
    extra="fairness",
    cost="seconds: one scoring of the table, then replicates over a table of counts",
    not_proven=_NOT_PROVEN,
)
def fairness(
    model: ModelPath,  # noqa: ARG001 - read through the context, as a proven copy
    dataset: DatasetPath,  # noqa: ARG001 - same
    outcome: str,
    attribute: str,
    table: EntryPath = "",
    cluster: str = "",
    select: str = "predict",
    scorer: FilePath | None = None,
    producer_issuer: str = "",
    producer_san: str = "",
    minimum_positives: int = 100,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    timeout: int = 600,
    *,
    context: Context,
) -> Finding:
    """Compare a model's decisions between groups at equal outcome, with bootstrap intervals.

    Point estimates are Fairlearn's. Intervals are percentile bootstrap over the table of counts, by row or, when a
    cluster column is named, by whole clusters; both computations must agree on the point estimates.

    Args:
        model: the model; a private copy is measured, and that copy is loaded.
        dataset: the table, or a directory that holds it.
        outcome: column of 0 and 1 taken as truth, such as a measured need.
        attribute: column whose groups are compared.
        table: the table inside a data set directory, CSV or parquet.
        cluster: column naming rows that depend on each other, such as person or household.
        select: predict, top:FRACTION, threshold:NUMBER or column:NAME.
        scorer: a program that scores, in place of the built-in one for scikit-learn models in MLflow directories.
        producer_issuer: OIDC issuer of the identity that must have signed the model's provenance before it is loaded.
        producer_san: subject alternative name of that identity; without both, the finding says it was not verified.
        minimum_positives: positives and negatives that every group must have to count as sufficient.
        level: coverage of the intervals.
        replicates: bootstrap replicates.
        seed: of the bootstrap; not part of the configuration digest.
        timeout: seconds for scoring.

    Guarantees:
        Only counts and rates leave this stage; counts under 10, and rates that would reveal one, are suppressed. The
        scorer sees the features that the model declares and nothing else; if the model declares none, it sees all
        columns but outcome, attribute and cluster. There is no threshold and no verdict.

    Edge cases:
        Too few positives or negatives in a group give a finding that says `sufficient: false`; a metric with fewer
        than 10 in a denominator is left out, so that a condition on it cannot hold; missing values raise `Misuse`,
        never drop rows. Loading a model runs its code in a child process with this account's rights.
    """
    require("fairlearn", "fairness")
    rule = Rule.parse(select)
    _require_sane(minimum_positives, level, replicates)
    verified = scored.producer(context, producer_issuer, producer_san)
    entry = tables.entry(context.measured["dataset"], table)
    frame = tables.read(context.private_file("dataset", entry))
    truth = decisions.binary(tables.column(frame, outcome, "outcome"), f"column {outcome!r}")
    groups = grouping.groups(tables.column(frame, attribute, "attribute"), attribute)
    clusters = grouping.code(tables.column(frame, cluster, "cluster")) if cluster else None
    features = None
    if rule.column is not None:
        decision, ties = decisions.binary(tables.column(frame, rule.column, "decision"), f"column {rule.column!r}"), 0
    else:
        copy = scored.loadable(context, scorer)
        features = scored.features_of(copy) or [c for c in frame.columns if c not in {outcome, attribute, cluster}]
        program = context.private_copy("scorer") if scorer is not None else None
        given = tables.require_columns(frame, features)
        with _imported_meanwhile("fairlearn.metrics"):
            scores = scored.score(context, copy, given, program, rule.kind, timeout)
        decision, ties = decisions.apply(rule, scores)
    sample = _Sample(truth, decision, groups, clusters)
    counts, estimates = _estimate(sample, replicates, level, seed)
    published = disclosure.publishable(counts, estimates)
    fields = {
        "dataset": context.resource("dataset"),
        **({"table": context.naming.of("path", entry)} if entry else {}),
        "outcome": outcome,
        "attribute": attribute,
        **({"attributeIsFeature": attribute in features} if features is not None else {}),
        "selection": {**rule.to_json(), **({"cutTies": ties} if ties >= disclosure.SMALL_CELL else {})},
        **({"scorer": _scorer(context)} if scorer is not None and rule.column is None else {}),
        **({"modelProvenance": verified} if verified else {}),
        **disclosure.describe(counts, groups.names, minimum_positives),
        **({"clusters": len(clusters.names)} if clusters else {}),
        "metrics": [_metric(e, level) for e in published],
        "interval": {
            "method": "cluster-bootstrap" if clusters else "multinomial-bootstrap",
            "replicates": replicates,
            **({"cluster": cluster} if cluster else {}),
        },
    }
    return Finding(
        subjects=("model",),
        fields=fields,
        seed=seed,
        strength="declared" if rule.column else "measured",
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        not_proven=((_DECLARED,) if rule.column else () if verified else (_UNVERIFIED,)),
    )


@contextlib.contextmanager
def _imported_meanwhile(module: str) -> Iterator[None]:
    """Fairlearn pulls in scikit-learn, which takes seconds to import; the child scores in that time."""
    thread = threading.Thread(target=importlib.import_module, args=(module,))
    thread.start()
    try:
        yield
    finally:
        thread.join()  # a process that ends under an import prints what the import thinks of it


def _require_sane(minimum_positives: int, level: float, replicates: int) -> None:
    if minimum_positives < 0 or not 0.5 <= level < 1 or not 100 <= replicates <= 1_000_000:
        raise Misuse(
            "fairness parameters are out of range",
            got=f"minimum {minimum_positives}, level {level}, replicates {replicates}",
            expected="minimum ≥ 0, 0.5 ≤ level < 1, 100 to 1000000 replicates",
        )


def _estimate(sample: _Sample, replicates: int, level: float, seed: int) -> tuple[Counts, list[Estimate]]:
    import numpy as np

    from mlseal.stages.governance import contingency

    n_groups = len(sample.groups.names)
    counts = contingency.count(sample.groups.codes, sample.truth, sample.decision, n_groups)
    rng = np.random.default_rng(seed)
    if sample.clusters is None:
        drawn = contingency.resample_rows(counts, replicates, rng)
    else:
        drawn = contingency.resample_clusters(
            sample.groups.codes, sample.truth, sample.decision, sample.clusters.codes, n_groups, replicates, rng
        )
    found = contingency.estimates(counts, drawn, level)
    _require_agreement(sample, found)
    return counts, found


def _require_agreement(sample: _Sample, found: list[Estimate]) -> None:
    """Raise `Unchecked` unless Fairlearn computes the same point estimates from the rows."""
    from fairlearn import metrics

    rows = {"y_true": sample.truth, "y_pred": sample.decision, "sensitive_features": sample.groups.codes}
    theirs = {
        "equalizedOddsDifference": metrics.equalized_odds_difference(**rows),
        "selectionRateDifference": metrics.demographic_parity_difference(**rows),
        "selectionRateRatio": metrics.demographic_parity_ratio(**rows),
        "truePositiveRateDifference": metrics.true_positive_rate_difference(**rows),
        "falsePositiveRateDifference": metrics.false_positive_rate_difference(**rows),
    }
    for estimate in found:
        expected = theirs.get(estimate.name, estimate.value)
        if abs(expected - estimate.value) > _AGREEMENT:
            raise Unchecked(
                f"two computations of {estimate.name} disagree", got=estimate.value, expected=f"{expected} (Fairlearn)"
            )


def _metric(estimate: Estimate, level: float) -> dict[str, Any]:
    return {
        "name": estimate.name,
        "value": round(estimate.value, 4),
        "ciLow": round(estimate.low, 4),
        "ciHigh": round(estimate.high, 4),
        "level": level,
        "halfWidth": round((estimate.high - estimate.low) / 2, 4),
        **({"undefinedReplicates": estimate.undefined} if estimate.undefined else {}),
    }


def _scorer(context: Context) -> dict[str, Any]:
    measured = context.measured["scorer"]
    return {"name": context.naming.subject(measured.name), "digest": {"sha256": measured.sha256}}
