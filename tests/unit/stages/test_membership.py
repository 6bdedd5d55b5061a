"""Membership inference: loud on a model that learnt its rows by heart, quiet on a private one, and never sure of few."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier

from mlseal.errors import Misuse, Unchecked
from mlseal.stages.testing import guessing

FEATURES = ["age", "visits", "income"]
TPR = "truePositiveRateAt1PercentFalsePositives"


def people(rows, seed, drift=0.0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(drift, 1, (rows, 3)), columns=FEATURES)
    table["need"] = (table["age"] + rng.normal(0, 1.5, rows) > drift).astype(int)
    table["person"] = np.arange(rows)
    return table


@pytest.fixture
def halves(tmp_path):
    found = {"members": people(1500, 1), "holdout": people(1500, 2)}
    for name, table in found.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    return {name: tmp_path / f"{name}.parquet" for name in found}


@pytest.fixture
def overfit(tmp_path, halves):
    """Trees that grew until they knew every row."""
    table = pd.read_parquet(halves["members"])
    model = tmp_path / "overfit"
    model.mkdir()
    grown = RandomForestClassifier(20, bootstrap=False, random_state=0).fit(table[FEATURES], table["need"])
    (model / "model.pkl").write_bytes(pickle.dumps(grown))
    signature = {"inputs": json.dumps([{"name": name} for name in FEATURES])}
    flavors = {"sklearn": {"pickled_model": "model.pkl"}}
    (model / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "signature": signature}))
    return model


@pytest.fixture
def private(tmp_path, halves, perform):
    """Trained on the same rows by training.dp."""
    import torch

    torch.set_num_threads(1)
    out = tmp_path / "private"
    perform(
        "training.dp",
        dataset=halves["members"],
        out=out,
        outcome="need",
        features=",".join(FEATURES),
        ranges=json.dumps(dict.fromkeys(FEATURES, "-3:3")),
        unit_column="person",
        rows_per_unit=1,
        epsilon="3",
        delta="0.00001",
        epochs=3,
        learning_rate="2",
        batch=150,
    )
    return out


@pytest.fixture
def asked(perform, halves):
    def go(model, **changes):
        arguments = {"outcome": "need", "seed": 5, **halves, **changes}
        return json.loads(perform("testing.membership", model=model, **arguments).payload)["predicate"]

    return go


def metric(found, name):
    return next(one for one in found["metrics"] if one["name"] == name)


def test_a_model_that_knows_its_rows_by_heart_gives_them_away(asked, overfit):
    found = asked(overfit)
    assert metric(found, TPR)["ciLow"] > 0.03 and metric(found, "auc")["ciLow"] > 0.6
    assert found["sufficient"] and found["sharedRows"] == 0
    assert {one["name"]: one["threatModel"] for one in found["attacks"]} == dict.fromkeys(
        ("loss-threshold", "loss-against-reference", "art-black-box"), "black-box-scores"
    )
    assert all(len(one["metrics"]) == 4 and one["metrics"][0]["n"] == 500 for one in found["attacks"])


def test_a_private_model_of_the_same_rows_does_not(asked, private):
    found = asked(private)
    assert metric(found, TPR)["ciLow"] < 0.02 and metric(found, TPR)["ciHigh"] < 0.08
    assert metric(found, "auc")["ciHigh"] < 0.6 and metric(found, "advantage")["ciLow"] <= 0
    assert found["sufficient"]


def test_too_few_rows_are_said_to_be_too_few(asked, overfit, tmp_path):
    people(900, 3).to_parquet(tmp_path / "few.parquet")
    assert not asked(overfit, holdout=tmp_path / "few.parquet")["sufficient"]


def test_tables_that_differ_without_the_model_tell_nothing_of_it(asked, private, tmp_path):
    people(1500, 4, drift=1.5).to_parquet(tmp_path / "elsewhere.parquet")
    found = asked(private, holdout=tmp_path / "elsewhere.parquet")
    control = {one["name"]: one["ciLow"] for one in found["controls"][0]["metrics"]}
    assert control["auc"] > 0.8 and not found["sufficient"]


def test_members_in_the_holdout_stop_it(asked, overfit, halves, tmp_path):
    mixed = pd.concat([pd.read_parquet(halves["holdout"]), pd.read_parquet(halves["members"])[:200]])
    mixed.to_parquet(tmp_path / "mixed.parquet", index=False)
    with pytest.raises(Unchecked, match="12% of the holdout stands among the members"):
        asked(overfit, holdout=tmp_path / "mixed.parquet")


def test_probabilities_that_are_none_stop_it(asked, overfit, program):
    text = "import sys\nopen(sys.argv[sys.argv.index('--out') + 1], 'w').write('1.5\\n' * 3000)\n"
    with pytest.raises(Unchecked, match="outside 0 to 1"):
        asked(overfit, scorer=program(text))


@pytest.mark.parametrize("changes", [{"level": 1.0}, {"minimum_rows": 0}])
def test_parameters_out_of_range(asked, overfit, changes):
    with pytest.raises(Misuse, match="out of range"):
        asked(overfit, **changes)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def rows(member, probability):
    count = len(member)
    part = guessing.parts(member, np.random.default_rng(0))
    return guessing.Rows(np.zeros((count, 1)), np.ones(count, dtype=int), probability, member, part)


def test_a_household_stays_together():
    member, house = np.repeat([1, 0], 300), np.arange(600) // 3
    part = guessing.parts(member, np.random.default_rng(0), house)
    assert (part.reshape(-1, 3) == part.reshape(-1, 3)[:, :1]).all()
    assert np.bincount(part).tolist() == [204, 198, 198]


def figures(member, scores, level=0.95):
    found = guessing.measured(rows(member, scores), scores, level, np.random.default_rng(1))
    return {one["name"]: one for one in found}


def test_a_whole_difference_is_all():
    member = np.repeat([1, 0], 6000)
    whole = figures(member, member + 0.1 * np.random.default_rng(9).random(12000))
    assert (whole["truePositiveRate"]["value"], whole["auc"]["value"]) == (1, 1)
    assert whole["advantage"]["value"] > 0.99


def test_without_a_difference_the_intervals_hold_as_often_as_they_say():
    member = np.repeat([1, 0], 1500)
    none = [figures(member, np.random.default_rng(seed).random(3000)) for seed in range(100)]
    area = sum(one["auc"]["ciLow"] <= 0.5 <= one["auc"]["ciHigh"] for one in none)
    wins = sum(one["advantage"]["ciLow"] > 0 for one in none)
    assert 90 <= area <= 99 and wins <= 5
    rates = [one["truePositiveRate"]["value"] for one in none]
    assert 0.005 < np.mean(rates) < 0.015 and np.mean([r == 0 for r in rates]) < 0.2


def test_ties_are_broken_by_chance_and_hide_nobody():
    """A model that is sure of everything has no row above the threshold, and would look harmless."""
    member = np.repeat([1, 0], 3000)
    same = figures(member, np.ones(6000))
    assert 0 < same["truePositiveRate"]["value"] < 0.04 and 0.45 < same["auc"]["value"] < 0.55


def test_the_area_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    member = np.repeat([1, 0], [600, 900])
    scores = rng.normal(size=1500) + member
    made = rows(member, scores)
    chosen = made.part == guessing.MEASURE
    assert figures(member, scores)["auc"]["value"] == pytest.approx(
        roc_auc_score(member[chosen], scores[chosen]), abs=1e-4
    )
