"""Evasion: loud on a model that is easily moved, quiet on one that cannot be, and never fooled by hidden gradients."""

import json
import os
import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.tree import DecisionTreeClassifier

from mlseal.errors import Misuse, Unchecked
from mlseal.stages import asking, dense
from mlseal.stages.testing import attacked, perturbing, space
from mlseal.stages.testing.attacked import Outcome

NAMES = ("age", "visits", "x", "sex")
RANGES = {"age": (0.0, 90.0), "visits": (0.0, 20.0), "x": (-1.0, 1.0), "sex": (0.0, 1.0)}
WEIGHTS = np.array([[1.0, 0.5, -1.0, 0.3]])


def linear(times=1.0, weights=WEIGHTS):
    return dense.Dense(NAMES, RANGES, (dense.Layer(times * weights, times * np.array([0.1])),))


def saturated():
    """The same decisions, behind a tanh that is so steep that it has no slope wherever one looks."""
    steep = dense.Layer(3e4 * WEIGHTS, np.array([3e3]))
    return dense.Dense(NAMES, RANGES, (steep, dense.Layer(np.array([[1.0]]), np.array([0.0]))))


def people(rows=150, seed=0):
    rng = np.random.default_rng(seed)
    columns = rng.integers(0, 91, rows), rng.integers(0, 21, rows), rng.uniform(-1, 1, rows), rng.integers(0, 2, rows)
    return pd.DataFrame(dict(zip(NAMES, columns, strict=True)))


@pytest.fixture
def attack(tmp_path, perform):
    def go(model, table=None, **changes):
        table = people() if table is None else table
        if "need" not in table:
            table = table.assign(need=model.predict(table))
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        table.to_parquet(folder / "table.parquet")
        if isinstance(model, dense.Dense):
            model.write(folder / "model")
        else:
            (folder / "model").mkdir()
            (folder / "model/model.pkl").write_bytes(pickle.dumps(model))
            inputs = json.dumps([{"name": name} for name in NAMES])
            described = {"flavors": {"sklearn": {"pickled_model": "model.pkl"}}, "signature": {"inputs": inputs}}
            (folder / "model/MLmodel").write_text(yaml.safe_dump(described))
        arguments = {"outcome": "need", "fixed": "sex", "queries": 80, "rows": 120, "seed": 5, **changes}
        made = perform("testing.evasion", model=folder / "model", dataset=folder / "table.parquet", **arguments)
        return json.loads(made.payload)["predicate"]

    return go


def rate(found, name="evasionRateAt10Percent"):
    return next(one for one in found["metrics"] if one["name"] == name)


def test_a_model_that_is_easily_moved_is_said_to_be(attack):
    found = attack(linear())
    assert rate(found)["ciLow"] > 0.25 > 0.15 > found["controls"][1]["metrics"][0]["value"]
    assert rate(found, "evasionRateAt5Percent")["value"] < rate(found)["value"] and found["n"] == 120
    assert found["sufficient"] and found["maskingSuspected"] is False
    assert {(one["name"], one["threatModel"], one["budget"]) for one in found["attacks"]} == {
        (name, view, budget)
        for name, view in (
            ("projected-gradient-descent-scaled", "white-box"),
            ("hop-skip-jump", "black-box-decisions"),
        )
        for budget in (0.05, 0.1)
    }
    assert [(c["column"], c["changeable"], c.get("integer")) for c in found["constraints"]] == [
        ("age", True, True),
        ("visits", True, True),
        ("x", True, False),
        ("sex", False, None),
    ]


def test_logits_that_are_large_hide_nothing(attack):
    """Their loss is flat in single precision: plain gradients vanish, and the boundary is where it was."""
    small, large = attack(linear()), attack(linear(1e5))
    assert large["attacks"][1]["metrics"] == small["attacks"][1]["metrics"] and large["sufficient"]


def test_a_model_that_looks_at_what_nobody_can_change_is_not_moved(attack):
    found = attack(linear(weights=np.array([[0.0, 0.0, 0.0, 1.0]])))
    assert rate(found)["value"] == 0 and rate(found)["ciHigh"] < 0.04
    assert found["sufficient"] and found["maskingSuspected"] is False


def test_a_model_that_looks_at_nothing_is_not_moved_and_no_better_than_the_majority(attack):
    table = people().assign(need=np.arange(150) % 3 == 0)
    never = dense.Dense(NAMES, RANGES, (dense.Layer(0 * WEIGHTS, np.array([-1.0])),))
    found = attack(never, table.astype({"need": int}), rows=150, minimum_rows=50)
    assert rate(found)["value"] == 0 and found["sufficient"]
    assert rate(found, "accuracy")["value"] == rate(found, "majorityClassRate")["value"] == round(2 / 3, 4)


def test_a_threshold_that_is_far_away_is_not_reached(attack):
    table = people().assign(age=np.repeat([5, 85], 75))
    found = attack(linear(weights=np.array([[1.0, 0.0, 0.0, 0.0]])), table, budgets="0.05,0.2")
    assert rate(found, "evasionRateAt20Percent")["value"] == 0 and found["sufficient"]


def test_saturated_gradients_are_found_out(attack):
    found = attack(saturated())
    white, black = (one["metrics"][0] for one in found["attacks"][1::2])
    assert white["ciHigh"] < black["ciLow"], "parameters at hand, and worse than without"
    assert found["maskingSuspected"] and not found["sufficient"]
    assert any("gradients lead nowhere" in said for said in found["notProven"])
    assert rate(found)["ciLow"] > 0.2, "what the black-box attack found is counted all the same"


def test_few_rows_are_said_to_be_few(attack):
    assert not attack(linear(), people(60), queries=20)["sufficient"]


def test_whole_numbers_do_not_move_by_less_than_one(attack):
    """A twentieth of 0 to 19 is less than a step, so nothing may move."""
    model = dense.Dense(NAMES, RANGES | {"visits": (0.0, 19.0)}, linear(weights=np.array([[0, 1.0, 0, 0]])).layers)
    found = attack(model, fixed="age,x,sex", budgets="0.05,0.1")
    assert rate(found, "evasionRateAt5Percent")["value"] == 0 < rate(found)["value"]


def test_one_row_of_each_household_is_attacked(attack):
    table = people().assign(household=np.arange(150) // 3)
    found = attack(linear(), table, cluster="household", minimum_rows=40)
    assert found["n"] == 50 and found["cluster"] == "household" and found["sufficient"]
    assert not any("one household's" in said for said in found["notProven"])


def test_a_model_without_gradients_is_attacked_by_its_decisions_alone(attack):
    table = people()
    table["need"] = (table["x"] > 0.1).astype(int)
    grown = DecisionTreeClassifier(max_depth=2, random_state=0).fit(table[list(NAMES)], table["need"])
    stated = json.dumps({name: "{}:{}".format(*RANGES[name]) for name in NAMES})
    found = attack(grown, table, rows=25, queries=20, minimum_rows=10, ranges=stated)
    assert {one["threatModel"] for one in found["attacks"]} == {"black-box-decisions"}
    assert rate(found)["ciLow"] > 0 and "maskingSuspected" not in found
    assert any("whether gradients are masked" in said for said in found["notProven"])
    assert any("provenance was verified" in said for said in found["notProven"])
    with pytest.raises(Misuse, match="has no range"):
        attack(grown, table)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budgets": "0.1,0.05"}, "budgets are none"),
        ({"budgets": "much"}, "budgets are none"),
        ({"queries": 5}, "out of range"),
        ({"level": 1.0}, "out of range"),
        ({"fixed": "height"}, "does not take"),
        ({"fixed": ",".join(NAMES)}, "no column may change"),
        ({"ranges": '{"age": "90:0"}'}, "the range of 'age' is none"),
    ],
)
def test_parameters_that_make_no_attack(attack, changes, sentence):
    with pytest.raises(Misuse, match=sentence):
        attack(linear(), **changes)


# --- constraints ------------------------------------------------------------------------------------------------------


def test_whatever_an_attack_wishes_for_is_projected():
    rng = np.random.default_rng(1)
    values = people(200).to_numpy(dtype=float)
    values[:20, 1] = rng.integers(21, 40, 20)  # beyond its range from the start
    allowed = space.of(NAMES, values, ["sex"], {k: v for k, v in RANGES.items() if k != "sex"})
    for budget in (0.01, 0.1, 1.0):
        reach = allowed.around(values, budget)
        for rounding in ("near", "far"):
            wanted = reach.start + rng.normal(0, budget, values.shape)
            found = reach.valued(reach.projected(wanted, rounding))
            assert (np.abs(found - values) <= (budget + 1e-9) * np.array([90, 20, 2, 0])).all()
            assert (found[:, :2] == np.round(found[:, :2])).all() and (found[:, 3] == values[:, 3]).all()
            assert (found[20:, 1] <= 20).all() and (found[:, 1] <= np.maximum(values[:, 1], 20)).all()
            assert (found[:, :2] >= 0).all() and (np.abs(found[:, 2]) <= 1).all()
            assert (found != values).any()
        assert (reach.valued(reach.start) == values).all()


def test_questions_are_counted_and_generators_put_back():
    model, table = linear(), people(10)
    values, asked = table.to_numpy(dtype=float), []
    allowed = space.of(NAMES, values, ["sex"], RANGES)

    def ask(rows):
        asked.append(rows)
        return model.decided(rows)

    before = np.random.get_state()[1].copy()  # noqa: NPY002 - what ART draws from
    find = partial(perturbing.by_decisions, allowed, values, model.predict(table), ask, 50)
    first = find(3)
    assert sum(map(len, asked)) <= 50 * len(table)
    assert (np.concatenate(asked)[:, :2] % 1 == 0).all(), "it asks for no row that could not be"
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(9)  # noqa: NPY002
    assert (find(3) == first).all() and (find(4) != first).any()


# --- signs of masking -------------------------------------------------------------------------------------------------


def outcome(name, moved, budget=0.1, rows=100):
    return Outcome(name, "white-box", budget, np.arange(rows) < moved)


@pytest.mark.parametrize(
    ("white", "black", "noise", "sign"),
    [
        ((20, 40), (20, 39), (1, 2), None),
        ((0, 0), (0, 0), (0, 0), None),
        ((100, 100), (99, 100), (95, 99), None),
        ((20, 40), (20, 43), (1, 2), None),
        ((20, 40), (30, 40), (1, 2), "black got further than white at budget 0.1"),
        ((40, 20), (15, 15), (1, 2), "white got less far with budget 0.2 than with 0.1"),
        ((20, 40), (20, 39), (1, 38), "noise did as well as white at budget 0.2"),
    ],
)
def test_each_sign_of_masking_fires_alone(white, black, noise, sign):
    tried = {
        name: [outcome(name, moved, budget) for moved, budget in zip(both, (0.1, 0.2), strict=True)]
        for name, both in (("white", white), ("black", black), ("noise", noise))
    }
    assert attacked.masked(tried["white"], tried["black"], tried["noise"]) == ([sign] if sign else [])


def test_a_difference_on_the_same_rows_knows_how_sure_it_is():
    before, after = np.arange(200) < 120, np.arange(200) < 40
    found = attacked.difference("drop", before, after, 0.95)
    assert found["value"] == 0.4 and 0.3 < found["ciLow"] < 0.4 < found["ciHigh"] < 0.5
    none = attacked.difference("drop", before, before, 0.95)
    assert none["ciLow"] < 0 == none["value"] < none["ciHigh"]


# --- a model in a process of its own ----------------------------------------------------------------------------------


class Odd:
    """A model whose answers are somebody's to choose."""

    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return eval, (f"type('M', (), {{'predict': lambda self, t: {self.what}}})()",)


@pytest.fixture
def asked(tmp_path):
    started = []

    class Lent:
        workspace = tmp_path

        def on_cancel(self, callback):
            started.append(callback)

    def go(what, timeout=60):
        model = tmp_path / "odd"
        model.mkdir()
        (model / "model.pkl").write_bytes(pickle.dumps(Odd(what)))
        (model / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": {"pickled_model": "model.pkl"}}}))
        return asking.Asked(Lent(), model, ["a", "b"], timeout)

    yield go
    for end in started:
        end()


def test_what_a_model_prints_is_no_answer(asked):
    model = asked("print('1' * 99, flush=True) or [int(v > 1) for v in t['b']]")
    assert model(np.array([[0.0, 1.0], [0.0, 2.0]])).tolist() == [0, 1]
    assert model(np.array([[0.0, 3.0]])).tolist() == [1]
    model.close()
    with pytest.raises(ProcessLookupError):
        os.kill(model._child.pid, 0)
    with pytest.raises(Unchecked, match="stopped answering"):
        model(np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("what", "timeout", "sentence"),
    [
        ("[7 for _ in t['a']]", 60, "not 0 and 1"),
        ("1 / 0", 60, "stopped answering"),
        ("[]", 1, "took too long"),
    ],
)
def test_a_model_that_does_not_answer_stops_it(asked, what, timeout, sentence):
    with pytest.raises(Unchecked, match=sentence):
        asked(what, timeout)(np.zeros((3, 2)))
