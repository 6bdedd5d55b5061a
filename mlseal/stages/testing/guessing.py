"""Who was in the training data, guessed from a model's answers: attacks, and how often they are right.

Each attack is fitted to a third of the rows, its threshold is set on another, and it is measured on the last, so that
no row on which it is measured had a part in making it. A true-positive rate at a low false-positive rate says what an
average hides (Carlini et al., Membership Inference Attacks From First Principles, 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.stages import proportions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATE = 0.01
"""The share of non-members that may be called members by mistake."""
_FLOOR = 1e-12
"""The least probability whose logarithm is taken."""
FIT, THRESHOLD, MEASURE = 0, 1, 2


@dataclass(frozen=True)
class Rows:
    """Members and non-members together, in one order.

    Attributes:
        features: numbers, (rows, columns); what is no number is coded.
        outcome: 0 and 1.
        probability: the model's, of class 1.
        member: 1 for a row that the model learnt from.
        part: `FIT`, `THRESHOLD` or `MEASURE`.
    """

    features: NDArray[np.float64]
    outcome: NDArray[np.int64]
    probability: NDArray[np.float64]
    member: NDArray[np.int64]
    part: NDArray[np.int64]


Guess = Callable[[Rows, int], "NDArray[np.float64]"]
"""A score a row, higher for a member, from the rows and a seed; only the part `FIT` may be learnt from."""


def parts(
    member: NDArray[np.int64], rng: np.random.Generator, clusters: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """A part for each row, thirds of members and of non-members; rows of one cluster stay together.

    Otherwise an attack would know a person by another row of the same household, with the model or without.
    """
    import numpy as np

    found = np.empty(len(member), dtype=np.int64)
    for kind in (0, 1):
        places = np.flatnonzero(member == kind)
        own = places if clusters is None else clusters[places]
        _, code = np.unique(own, return_inverse=True)
        found[places] = (rng.permutation(code.max() + 1) % 3)[code]
    return found


def by_loss(rows: Rows, _: int) -> NDArray[np.float64]:
    """The smaller the model's loss on a row, the likelier it learnt from it (Yeom et al., 2018)."""
    return _log_likelihood(rows.probability, rows.outcome)


def by_difficulty(rows: Rows, seed: int) -> NDArray[np.float64]:
    """The loss, compared with that of a model that has not seen the row (Watson et al., 2022).

    The reference is a random forest, fitted to non-members of the part `FIT`.
    """
    chosen = (rows.part == FIT) & (rows.member == 0)
    reference = _forest(seed).fit(rows.features[chosen], rows.outcome[chosen])
    if len(reference.classes_) < 2:
        return by_loss(rows, seed)
    expected = reference.predict_proba(rows.features)[:, 1].clip(0.02, 0.98)
    return _log_likelihood(rows.probability, rows.outcome) - _log_likelihood(expected, rows.outcome)


def by_classifier(rows: Rows, seed: int) -> NDArray[np.float64]:
    """ART's black-box attack: gradient boosting on probabilities and outcome learns to tell members."""
    import numpy as np
    from art.attacks.inference.membership_inference import MembershipInferenceBlackBox
    from art.estimators.classification import BlackBoxClassifier

    answers = np.column_stack([1 - rows.probability, rows.probability])
    # The model is never asked by ART: its answers are at hand, from the child process.
    target = BlackBoxClassifier(lambda _: answers, input_shape=(rows.features.shape[1],), nb_classes=2)
    attack = MembershipInferenceBlackBox(target, attack_model_type="gb")
    attack.attack_model.set_params(random_state=seed)
    inside, outside = (np.flatnonzero((rows.part == FIT) & (rows.member == kind)) for kind in (1, 0))
    attack.fit(y=rows.outcome[inside], test_y=rows.outcome[outside], pred=answers[inside], test_pred=answers[outside])
    found = attack.infer(None, y=rows.outcome, pred=answers, probabilities=True)
    return np.asarray(found, dtype=np.float64).reshape(len(answers), -1)[:, -1]


def without_model(rows: Rows, seed: int) -> NDArray[np.float64]:
    """The control: features and outcome alone tell the tables apart, or they do not (Das et al., 2024)."""
    import numpy as np

    known, chosen = np.column_stack([rows.features, rows.outcome]), rows.part == FIT
    found = _forest(seed).fit(known[chosen], rows.member[chosen]).predict_proba(known)[:, 1]
    return np.asarray(found, dtype=np.float64)


def measured(rows: Rows, scores: NDArray[np.float64], level: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rates at the threshold that `RATE` of the part `THRESHOLD` exceeds, the area under the curve, and the advantage.

    Rates have exact binomial bounds; the area has DeLong's (Biometrics 44, 1988). The advantage is the largest
    difference of the rates, at a threshold chosen on the part `THRESHOLD`, with bounds of both rates together.
    Equal scores are put in an order by chance, or a model that is sure of everything would look harmless.
    """
    import numpy as np

    ranks = np.empty(len(scores))
    ranks[np.lexsort((rng.random(len(scores)), scores))] = np.arange(len(scores))
    inside, outside = (ranks[(rows.part == MEASURE) & (rows.member == kind)] for kind in (1, 0))
    known, others = (ranks[(rows.part == THRESHOLD) & (rows.member == kind)] for kind in (1, 0))
    strict = np.sort(others)[::-1][int(RATE * len(others))]
    cuts = np.sort(np.concatenate([known, others]))
    gains = (np.searchsorted(np.sort(others), cuts, "right") / len(others)) - (
        np.searchsorted(np.sort(known), cuts, "right") / len(known)
    )
    best = cuts[int(np.argmax(gains))]
    rates = [
        _metric("truePositiveRate", *_share(inside > strict, level), level, len(inside)),
        _metric("falsePositiveRate", *_share(outside > strict, level), level, len(outside)),
    ]
    both = 1 - (1 - level) / 2
    caught, wrong = _share(inside > best, both), _share(outside > best, both)
    advantage = (caught[0] - wrong[0], caught[1] - wrong[2], caught[2] - wrong[1])
    n = len(inside) + len(outside)
    return [
        *rates,
        _metric("auc", *_area(inside, outside, level), level, n),
        _metric("advantage", *advantage, level, n),
    ]


def _share(hits: NDArray[np.bool_], level: float) -> tuple[float, float, float]:
    low, high = proportions.interval(int(hits.sum()), len(hits), level)
    return float(hits.mean()), low, high


def _area(inside: NDArray[np.float64], outside: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    from statistics import NormalDist

    import numpy as np

    above = np.searchsorted(np.sort(outside), inside) / len(outside)
    below = 1 - np.searchsorted(np.sort(inside), outside) / len(inside)
    area = float(above.mean())
    spread = float(np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)))
    reach = NormalDist().inv_cdf(1 - (1 - level) / 2) * spread
    return area, max(0.0, area - reach), min(1.0, area + reach)


def _metric(name: str, value: float, low: float, high: float, level: float, n: int) -> dict[str, Any]:
    found = {"name": name, "value": round(value, 4), "ciLow": round(low, 4), "ciHigh": round(high, 4)}
    return {**found, "level": round(level, 4), "n": n}


def _log_likelihood(probability: NDArray[np.float64], outcome: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(np.log(np.maximum(np.where(outcome == 1, probability, 1 - probability), _FLOOR)))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, min_samples_leaf=5, random_state=seed, n_jobs=1)
