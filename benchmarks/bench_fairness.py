"""Intervals of group metrics: ours beside Fairlearn's ``n_boot`` in one run, on the same rows.

Bars (DESIGN, section 11): 50,000 independent rows and 2,000 replicates ≤ 20 ms; clustered by person ≤ 500 ms. Fairlearn
stands beside them with ``n_boot=100``, which it has for independent rows only; both intervals are printed, so that the
speed is not that of another quantity. Floor: one pass over the rows that counts them, which everything else builds on.

    python -m benchmarks.bench_fairness [ROWS] [PEER_REPLICATES]
"""

import statistics
import sys
import time

import numpy as np

from mlseal.stages.governance import contingency

ROUNDS = 7
REPLICATES = 2000
GROUPS = 4


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def median(work):
    """Wall and processor seconds, medians of the rounds; on a busy machine only the second says what the work costs."""
    wall, cpu = [], []
    for _ in range(ROUNDS):
        before = time.process_time()
        seconds, result = timed(work)
        wall.append(seconds)
        cpu.append(time.process_time() - before)
    return statistics.median(wall), statistics.median(cpu), result


def against(bar: float, wall: float, cpu: float) -> str:
    verdict = "met" if wall <= bar else "met in processor time, machine busy" if cpu <= bar else "MISSED"
    return f"{wall * 1e3:7.1f} ms ({cpu * 1e3:.1f} of processor)   bar {bar * 1e3:.0f}   {verdict}"


def rows(n: int):
    """Groups, truth, decisions and person: about 3.4 rows a person, as in RandHIE; a person has one group."""
    rng = np.random.default_rng(0)
    person = np.unique(rng.integers(0, int(n / 3.4), n), return_inverse=True)[1]
    group = rng.integers(0, GROUPS, person.max() + 1)[person]
    truth = (rng.random(n) < 0.3).astype(np.int64)
    decision = (rng.random(n) < 0.25 + 0.02 * group).astype(np.int64)
    return group, truth, decision, person


def independent(group, truth, decision):
    counts = contingency.count(group, truth, decision, GROUPS)
    return contingency.estimates(counts, contingency.resample_rows(counts, REPLICATES, np.random.default_rng(1)), 0.95)


def clustered(group, truth, decision, person):
    counts = contingency.count(group, truth, decision, GROUPS)
    drawn = contingency.resample_clusters(group, truth, decision, person, GROUPS, REPLICATES, np.random.default_rng(1))
    return contingency.estimates(counts, drawn, 0.95)


def peer(group, truth, decision, replicates: int):
    from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate

    frame = MetricFrame(
        metrics={"tpr": true_positive_rate, "fpr": false_positive_rate},
        y_true=truth,
        y_pred=decision,
        sensitive_features=group,
        n_boot=replicates,
        ci_quantiles=[0.025, 0.975],
        random_state=1,
    )
    return [float(q["tpr"]) for q in frame.difference_ci()]


def main(n: int = 50_000, peer_replicates: int = 100) -> None:
    group, truth, decision, person = rows(n)
    floor, _, _ = median(lambda: contingency.count(group, truth, decision, GROUPS))
    ours, ours_cpu, found = median(lambda: independent(group, truth, decision))
    by_person, by_person_cpu, clusters = median(lambda: clustered(group, truth, decision, person))
    theirs, interval = timed(lambda: peer(group, truth, decision, peer_replicates))
    gap, wide = ({e.name: e for e in f}["truePositiveRateDifference"] for f in (found, clusters))
    scaled = theirs / peer_replicates * REPLICATES
    print(f"{n} rows, {len(found)} metrics, {REPLICATES} replicates (floor: counting once {floor * 1e3:.1f} ms)")
    print(f"  independent rows     {against(0.020, ours, ours_cpu)}")
    print(f"  clustered by person  {against(0.500, by_person, by_person_cpu)}")
    print(
        f"  Fairlearn, 2 metrics, n_boot={peer_replicates}: {theirs:.1f} s ({theirs / ours:,.0f} times ours); "
        f"for {REPLICATES} about {scaled:,.0f} s ({scaled / ours:,.0f} times)"
    )
    print(
        f"  95 % interval of the TPR gap: ours [{gap.low:.4f}, {gap.high:.4f}], "
        f"Fairlearn [{interval[0]:.4f}, {interval[1]:.4f}], ours by person [{wide.low:.4f}, {wide.high:.4f}]"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
