"""Poisoned rows are seen where the detector has power, and where it has none nobody is told that there are none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from mlseal.errors import Misuse
from mlseal.stages import proportions
from mlseal.stages.ingestion import poisoning


@pytest.fixture(scope="module")
def tumours():
    """569 real fine-needle aspirates."""
    data = load_breast_cancer(as_frame=True)
    return data.frame


@pytest.fixture
def scan(perform, tmp_path):
    def go(frame, **arguments):
        frame.to_csv(tmp_path / "table.csv", index=False)
        told = []
        asked = {"label": "target", "attacks": "label-flip", "repetitions": 2} | arguments
        made = perform("ingestion.poisoning", dataset=tmp_path / "table.csv", log=told.append, **asked)
        return made.predicate, "\n".join(told)

    return go


def flipped(frame, share):
    rows = np.random.default_rng(5).choice(len(frame), int(share * len(frame)), replace=False)
    other = frame.copy()
    other.loc[rows, "target"] = 1 - other.loc[rows, "target"]
    return other


def test_flipped_labels_are_suspects_and_real_ones_are_not(scan, tumours):
    clean, told = scan(tumours)
    (detector,) = clean["detectors"]
    assert clean["sufficient"] is True and detector["ciLow"] >= 0.5 > detector["falseAlarmShare"] * 20
    assert "suspects" not in detector or detector["suspects"] == 0
    assert "enough" in told and "suspects: under 10" in told
    (dirty,) = scan(flipped(tumours, 0.08))[0]["detectors"]
    assert dirty["suspects"] > 0.5 * int(0.08 * len(tumours))


def test_labels_that_nothing_predicts_are_not_called_clean(scan, tumours):
    noise = tumours.assign(target=np.random.default_rng(0).integers(0, 2, len(tumours)))
    found, told = scan(noise)
    assert found["sufficient"] is False and found["detectors"][0]["sufficient"] is False
    assert "not enough data for a verdict" in told and "clean" not in told


def test_a_backdoor_is_not_seen_by_this_detector_and_the_finding_says_so(scan, tumours):
    found, _ = scan(tumours, attacks="label-flip,backdoor")
    by_attack = {one["attack"]: one for one in found["detectors"]}
    assert by_attack["label-flip"]["sufficient"] and not by_attack["backdoor"]["sufficient"]
    assert found["sufficient"] is False


def test_power_is_a_share_of_what_was_planted_with_an_exact_bound(scan, tumours):
    (one,) = scan(tumours, rate=0.1)[0]["detectors"]
    assert one["planted"] == 2 * round(0.1 * len(tumours))
    low, high = proportions.interval(one["detected"], one["planted"], 0.95)
    assert (one["ciLow"], one["ciHigh"]) == (round(low, 4), round(high, 4))


@pytest.mark.parametrize("attack", ["label-flip", "backdoor"])
def test_what_is_planted_is_what_it_says(attack, tumours):
    data = poisoning._read(tumours, "target")
    features, labels, rows = poisoning._PLANTS[attack](data, 0.05, np.random.default_rng(1))
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    assert len(set(rows)) == len(rows) == round(0.05 * len(labels))
    assert (labels[rows] != data.labels[rows]).all() and (labels[rest] == data.labels[rest]).all()
    assert (features[rest] == data.features[rest]).all()
    changed = (features[rows] != data.features[rows]).any(axis=0).sum()
    assert changed == (0 if attack == "label-flip" else 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attacks": ""},
        {"attacks": "label-flip,label-flip"},
        {"attacks": "gradient"},
        {"rate": 0.5},
        {"repetitions": 0},
        {"minimum_power": 0},
        {"level": 1.0},
    ],
)
def test_parameters_out_of_range_are_refused(scan, tumours, wrong):
    with pytest.raises(Misuse):
        scan(tumours, **wrong)


def test_categories_are_features_and_names_are_not():
    frame = pd.DataFrame(
        {
            "name": [f"person {i}" for i in range(200)],
            "ward": ["a", "b"] * 100,
            "dose": range(200),
            "target": [0, 1] * 100,
        }
    )
    assert poisoning._read(frame, "target").features.shape == (200, 3)
