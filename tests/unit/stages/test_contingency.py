"""The bootstrap over counts is the bootstrap over rows: compared with a slow truth and with Fairlearn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlseal.stages.governance import contingency as c


def slow_rows(groups, truth, decision, n_groups, replicates, rng):
    """Resample rows, as the textbook says."""
    tables = []
    for _ in range(replicates):
        rows = rng.integers(0, len(groups), len(groups))
        tables.append(c.count(groups[rows], truth[rows], decision[rows], n_groups))
    return np.stack(tables)


def slow_clusters(groups, truth, decision, clusters, n_groups, replicates, rng):
    """Resample clusters, taking all rows of each."""
    members = [np.flatnonzero(clusters == k) for k in range(clusters.max() + 1)]
    tables = []
    for _ in range(replicates):
        rows = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        tables.append(c.count(groups[rows], truth[rows], decision[rows], n_groups))
    return np.stack(tables)


def sample(n=600, per=3, seed=0, n_groups=3):
    rng = np.random.default_rng(seed)
    clusters = np.unique(rng.integers(0, n // per, n), return_inverse=True)[1]
    groups = rng.integers(0, n_groups, clusters.max() + 1)[clusters]
    shared = rng.random(clusters.max() + 1)[clusters]  # rows of a cluster resemble each other
    truth = (shared < 0.4).astype(int)
    decision = (0.7 * shared + 0.3 * rng.random(n) < 0.35 + 0.05 * groups).astype(int)
    return groups, truth, decision, clusters


def close(ours, theirs):
    """Means, spreads and tails of two sets of replicated tables agree within the noise of 4,000 replicates."""
    ours, theirs = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    varying = theirs.std(0) > 0
    assert np.array_equal(ours.std(0) > 0, varying)
    ours, theirs = ours[:, varying], theirs[:, varying]
    scale = theirs.std(0)
    assert np.all(np.abs(ours.mean(0) - theirs.mean(0)) / scale < 0.12)
    assert np.all(np.abs(ours.std(0) / scale - 1) < 0.12)
    correlations = np.corrcoef(ours.T) - np.corrcoef(theirs.T)
    assert np.nanmax(np.abs(correlations)) < 0.1


def test_rows():
    groups, truth, decision, _ = sample()
    counts = c.count(groups, truth, decision, 3)
    close(
        c.resample_rows(counts, 4000, np.random.default_rng(1)),
        slow_rows(groups, truth, decision, 3, 4000, np.random.default_rng(2)),
    )


@pytest.mark.parametrize("draw_cost", [0, 12, 10**9])  # all as numbers, mixed, all one by one
def test_clusters(monkeypatch, draw_cost):
    monkeypatch.setattr(c, "_DRAW_COST", draw_cost)
    monkeypatch.setattr(c, "_CHUNK", 5000)
    groups, truth, decision, clusters = sample()
    ours = c.resample_clusters(groups, truth, decision, clusters, 3, 4000, np.random.default_rng(1))
    close(ours, slow_clusters(groups, truth, decision, clusters, 3, 4000, np.random.default_rng(2)))


def test_clusters_of_one_row_are_rows():
    groups, truth, decision, _ = sample()
    alone = np.arange(len(groups))
    close(
        c.resample_clusters(groups, truth, decision, alone, 3, 4000, np.random.default_rng(1)),
        c.resample_rows(c.count(groups, truth, decision, 3), 4000, np.random.default_rng(2)),
    )


def test_dependent_rows_widen_the_interval():
    groups, truth, decision, clusters = sample(n=3000, per=10)
    counts = c.count(groups, truth, decision, 3)
    widths = []
    for drawn in (
        c.resample_rows(counts, 2000, np.random.default_rng(1)),
        c.resample_clusters(groups, truth, decision, clusters, 3, 2000, np.random.default_rng(1)),
    ):
        rate = {e.name: e for e in c.estimates(counts, drawn, 0.95)}["truePositiveRate"]
        widths.append(rate.high - rate.low)
    assert widths[1] > 1.3 * widths[0]


def test_each_replicate_has_as_many_clusters_as_the_data():
    clusters = np.repeat(np.arange(50), 4)
    same = np.zeros(200, dtype=int)
    drawn = c.resample_clusters(same, same, same, clusters, 1, 500, np.random.default_rng(0))
    assert np.all(drawn.sum((1, 2, 3)) == 200)


def test_large_tables_do_not_overflow_the_key():
    rng = np.random.default_rng(0)
    n_groups, rows = 50, 200_000
    groups, truth, decision = rng.integers(0, n_groups, rows), rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    clusters = rng.integers(0, 3, rows)
    tables, multiplicity = c._distinct_tables((groups * 2 + truth) * 2 + decision, clusters, n_groups * 4)
    assert multiplicity.sum() == 3 and tables.sum() == rows


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60))
def test_metrics_are_fairlearns(rows):
    from fairlearn import metrics

    groups, truth, decision = (np.array(column) for column in zip(*rows, strict=True))
    groups = np.unique(groups, return_inverse=True)[1]
    counts = c.count(groups, truth, decision, groups.max() + 1)
    given_ = {"y_true": truth, "y_pred": decision, "sensitive_features": groups}
    ours = {name: float(metric(counts)) for name, metric in c.METRICS.items()}
    assert ours["selectionRateDifference"] == pytest.approx(metrics.demographic_parity_difference(**given_))
    if np.isfinite(ours["equalizedOddsDifference"]):
        assert ours["equalizedOddsDifference"] == pytest.approx(metrics.equalized_odds_difference(**given_))
        assert ours["truePositiveRateDifference"] == pytest.approx(metrics.true_positive_rate_difference(**given_))
    for name, value in ours.items():
        assert not np.isfinite(value) or 0 <= value <= 1, name


def test_undefined_replicates_widen_and_never_narrow():
    counts = np.array([[[5.0, 5.0], [1.0, 1.0]], [[50.0, 50.0], [40.0, 60.0]]])  # two positives in group 0
    found = {e.name: e for e in c.estimates(counts, c.resample_rows(counts, 2000, np.random.default_rng(0)), 0.95)}
    gap = found["truePositiveRateDifference"]
    assert gap.undefined > 100 and gap.high == 1.0 and gap.low <= gap.value
    assert found["selectionRateDifference"].undefined == 0


def test_a_metric_without_denominator_is_left_out():
    counts = np.array([[[5.0, 5.0], [0.0, 0.0]], [[50.0, 50.0], [40.0, 60.0]]])
    names = {e.name for e in c.estimates(counts, c.resample_rows(counts, 200, np.random.default_rng(0)), 0.95)}
    assert "truePositiveRateDifference" not in names and "equalizedOddsDifference" not in names
    assert {"selectionRateDifference", "truePositiveRate"} <= names


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Coverage over 300 samples from a known population; a bootstrap of the wrong unit or tail would miss by far."""
    rng = np.random.default_rng(3)
    true_gap, hits = 0.15, 0
    for _ in range(300):
        groups, truth = rng.integers(0, 2, 1500), np.ones(1500, dtype=int)
        decision = (rng.random(1500) < 0.5 - true_gap * groups).astype(int)
        counts = c.count(groups, truth, decision, 2)
        drawn = c.resample_rows(counts, 400, rng)
        gap = {e.name: e for e in c.estimates(counts, drawn, 0.95)}["truePositiveRateDifference"]
        hits += gap.low <= true_gap <= gap.high
    assert 0.90 <= hits / 300 <= 0.99
