"""Hardening: what adversarial training really brings, what it costs, and how distillation only hides the way."""

import json

import numpy as np
import pandas as pd
import pytest

from mlseal.errors import Misuse
from mlseal.evidence.digest import measure
from mlseal.stages import dense

WIDTH = 12
NAMES = [f"c{number}" for number in range(WIDTH + 1)]
RANGES = dict.fromkeys(NAMES, (-4.0, 4.0))


def people(rows, seed):
    """One column tells nine people of ten apart and is far from its threshold; twelve tell a little, and are near.

    The setting of Tsipras et al., Robustness May Be at Odds with Accuracy: who uses the twelve is right more often, and
    easily moved.
    """
    rng = np.random.default_rng(seed)
    need = rng.integers(0, 2, rows)
    side = 2 * need - 1
    strong = np.where(rng.random(rows) < 0.9, side, -side) * 2 + rng.normal(0, 0.1, rows)
    table = pd.DataFrame(
        np.column_stack([strong, side[:, None] * 0.7 + rng.normal(0, 1, (rows, WIDTH))]), columns=NAMES
    )
    return table.assign(need=need)


def fitted(hidden=False):
    """The best linear model of these data, or the same behind a wide tanh."""
    weight = np.array([[1.1 * 4 / 2] + [1.4 * 4] * WIDTH])
    if not hidden:
        return dense.Dense(tuple(NAMES), RANGES, (dense.Layer(weight, np.zeros(1)),))
    small = dense.Layer(weight / 40, np.zeros(1))
    return dense.Dense(tuple(NAMES), RANGES, (small, dense.Layer(np.array([[40.0]]), np.zeros(1))))


@pytest.fixture
def harden(tmp_path, perform):
    def go(method, model=None, **changes):
        (model or fitted()).write(tmp_path / "model")
        for name, rows, seed in (("training", 400, 1), ("holdout", 250, 2)):
            people(rows, seed).to_parquet(tmp_path / f"{name}.parquet")
        inputs = {name: tmp_path / f"{name}.parquet" for name in ("training", "holdout")}
        arguments = {"outcome": "need", "queries": 100, "rows": 120, "seed": 5, "method": method, **changes}
        made = perform(
            "testing.hardening", model=tmp_path / "model", hardened=tmp_path / "hardened", **inputs, **arguments
        )
        return json.loads(made.payload), dense.read(tmp_path / "hardened")

    return go


def rates(attacks):
    return {one["name"]: one["metrics"][0] for one in attacks}


def metric(found, name):
    return next(one for one in found["metrics"] if one["name"] == name)


def test_adversarial_training_withstands_what_moved_the_model_before(harden, tmp_path):
    said, after = harden("adversarial-training", epochs=10, learning_rate="0.1")
    found = said["predicate"]
    before = rates(found["hardening"]["attacks"])
    for name, one in rates(found["attacks"]).items():
        assert one["ciHigh"] < before[name]["ciLow"] or before[name]["value"] < 0.3, f"{name}: intervals do not touch"
    assert metric(found, "evasionRateDropAt10Percent")["ciLow"] > 0.2
    assert metric(found, "accuracyLoss")["value"] > 0, "it costs something, and says so"
    assert metric(found, "accuracy")["ciLow"] > metric(found, "majorityClassRate")["value"]
    assert metric(found["hardening"], "accuracy")["value"] > metric(found, "accuracy")["value"] > 0.8
    assert found["sufficient"] and found["maskingSuspected"] is False
    assert found["hardening"]["before"]["digest"]["sha256"] == measure(tmp_path / "model").sha256
    assert said["subject"][0]["digest"]["sha256"] == measure(tmp_path / "hardened").subjects[0].sha256
    weak, strong = np.abs(after.layers[0].weight[0, 1:]).mean(), after.layers[0].weight[0, 0]
    assert strong > weak, "it leans on the column that cannot be moved across"


@pytest.mark.parametrize("hidden", [False, True], ids=["linear", "hidden layer"])
def test_distillation_hides_the_gradient_and_moves_no_boundary(harden, hidden):
    said, _ = harden("defensive-distillation", fitted(hidden), epochs=20)
    found = said["predicate"]
    before, after = rates(found["hardening"]["attacks"]), rates(found["attacks"])
    plain, aware, blind = before
    assert after[plain]["ciHigh"] < before[plain]["ciLow"], "plain gradients say that it is safe now"
    assert after[aware]["value"] > before[aware]["ciLow"], "whoever scales the logits gets as far as ever"
    assert after[blind]["ciHigh"] > before[blind]["ciLow"] > 0.1, "so does who needs no gradient"
    assert metric(found, "plainGradientRateDropAt10Percent")["ciLow"] > 0.2
    assert metric(found, "evasionRateDropAt10Percent")["ciLow"] <= 0, "what counts has not fallen"
    assert found["maskingSuspected"] and not found["sufficient"] and found["hardening"]["temperature"] == 100
    assert any("gradients are masked" in text for text in found["notProven"])


def test_training_that_changes_nothing_brings_nothing(harden):
    said, _ = harden("adversarial-training", epochs=1, learning_rate="0.000001", queries=20)
    found = said["predicate"]
    drop = metric(found, "evasionRateDropAt10Percent")
    assert drop["ciLow"] < 0 < drop["ciHigh"] and abs(drop["value"]) < 0.05
    assert metric(found, "accuracyLoss")["value"] == 0 and found["maskingSuspected"] is False


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "training parameters are out of range"),
        ({"budget": 0}, "training parameters are out of range"),
        ({"temperature": 0.5}, "training parameters are out of range"),
        ({"rows": 0}, "the attack's parameters are out of range"),
        ({"fixed": "height"}, "does not take"),
    ],
)
def test_parameters_out_of_range(harden, changes, sentence):
    with pytest.raises(Misuse, match=sentence):
        harden("adversarial-training", **changes)
