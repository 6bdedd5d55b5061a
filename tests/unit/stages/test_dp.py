"""Private training: the model and its epsilon, and each premise broken once."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from mlseal.errors import Misuse, RuleBroken, Unchecked, Unreadable
from mlseal.evidence import predicates, statement
from mlseal.evidence.digest import measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import data_policy
from mlseal.policy.preflight import Preflight
from mlseal.stages import dense, harness, registry, runner
from mlseal.stages.arguments import parse
from mlseal.stages.training import dpsgd, units
from mlseal.stages.training.dpsgd import Recipe

ASKED = {
    "outcome": "need",
    "features": "signal, age",
    "unit_column": "person",
    "epsilon": "4",
    "ranges": '{"age": "0:90"}',
    "rows_per_unit": "3",
    "epochs": "3",
    "batch": "60",
    "delta": "0.001",
    "learning_rate": "2",
}


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


def table(people=240, seed=0):
    """One to three rows a person; need goes with signal."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), rng.integers(1, 4, people))
    need = rng.integers(0, 2, len(person))
    signal = need - 0.5 + 0.2 * rng.normal(size=len(person))
    return pd.DataFrame({"person": person, "need": need, "signal": signal, "age": rng.integers(0, 90, len(person))})


@pytest.fixture
def private(perform, tmp_path):
    """Trains on a frame (or a file of any kind) and returns the statement and the model's directory."""

    def go(frame=None, data=None, **changes):
        if data is None:
            data = tmp_path / "people.csv"
            (table() if frame is None else frame).to_csv(data, index=False)
        out = tmp_path / f"model-{len(list(tmp_path.glob('model-*')))}"
        return perform("training.dp", dataset=data, out=out, **(ASKED | changes)), out

    return go


def stopped(private, tmp_path, error, words, **changes):
    """One sentence, and neither a model nor a leftover of one."""
    with pytest.raises(error, match=words) as caught:
        private(**changes)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir() if "model" in p.name] == []


# --- what it makes ---------------------------------------------------------------------------------------------------


def test_the_model_learns_and_the_statement_can_be_recomputed(private):
    made, out = private()
    said = made.predicate
    assert made.subjects == measure(out).subjects
    assert Decimal(said["epsilon"]) <= 4 and (said["units"], said["steps"], said["rowsPerUnit"]) == (240, 12, 3)
    assert said["expectedBatch"] == "60.000000" and said["sampleRate"] == "0.250000000000000000"
    assert said["sampling"] == "poisson" and said["unit"] == "person" and said["rowsLeftOut"] == 0
    estimates = {e["accountant"]: Decimal(e["epsilon"]) for e in said["estimates"]}
    assert estimates["opacus rdp"] == Decimal(said["epsilon"]) > estimates["opacus prv"]
    assert predicates.check(made.predicate_type, dict(said))
    model = dense.read(out)
    fresh = table(seed=7)
    assert ((model.decision_function(fresh) >= 0) == fresh.need).mean() > 0.9
    assert model.ranges == {"age": (0.0, 90.0)}


def test_noise_is_seeded_by_nobody_and_a_hidden_layer_works(private):
    one, other, deep = (dense.read(private(hidden=width)[1]) for width in ("0", "0", "4"))
    assert not np.allclose(one.layers[0].weight, other.layers[0].weight)
    assert [layer.weight.shape for layer in deep.layers] == [(4, 2), (1, 4)]
    assert np.isfinite(deep.decision_function(table())).all()


def test_fairness_scores_it_without_unpickling(private, perform, tmp_path):
    _, out = private()
    held = table(seed=3).assign(group=lambda f: f.person % 2)
    (tmp_path / "held").mkdir()
    held.to_csv(tmp_path / "held" / "t.csv", index=False)
    told = {"outcome": "need", "attribute": "group", "table": "t.csv", "cluster": "person"}
    said = perform("governance.fairness", model=out, dataset=tmp_path / "held", **told).predicate
    rates = {m["name"]: m["value"] for m in said["metrics"]}
    assert rates["truePositiveRate"] > 0.9 > 0.1 > rates["falsePositiveRate"]
    assert sorted(p.name for p in out.iterdir()) == ["MLmodel", "weights.json"]


def test_what_the_owner_of_the_data_is_told_is_what_is_asked_for(tmp_path):
    stage = registry.load("training.dp").stage
    table().to_csv(tmp_path / "t.csv")
    asked = {**ASKED, "unit": "household", "dataset": str(tmp_path / "t.csv"), "out": str(tmp_path / "m")}
    plan = harness.plan_of(stage, parse(stage, asked), {}, by=Identity("i", "s"), purpose=None, run_id="r")
    assert (plan.releases.epsilon, plan.releases.delta, plan.releases.unit) == ("4", "0.001", "household")


def test_rows_beyond_the_places_are_left_out_only_when_asked_and_counted(private, tmp_path):
    stopped(private, tmp_path, Misuse, "more rows than an example has places", rows_per_unit="2")
    said = private(rows_per_unit="1", truncate="true")[0].predicate
    assert said["rowsLeftOut"] == len(table()) - 240


def test_what_else_is_released_is_listed(private):
    said = private(also_released="figures on the held-out half; the plots of the report")[0].predicate
    assert said["nonPrivateReleases"][-2:] == ["figures on the held-out half", "the plots of the report"]


def test_an_owner_s_budget_is_charged_what_the_evidence_states_and_stops_the_next_training(
    authority, tmp_path, monkeypatch
):
    data = tmp_path / "people.csv"
    table().to_csv(data, index=False)
    budget = {"maxEpsilon": "5", "maxDelta": "0.01", "unit": "person"}
    claim = {"purposes": ["training"], "expires": "2999-01-01T00:00:00Z", "notProven": ["copies"], "nonce": "0" * 32}
    stated = statement.make(measure(data).subjects, data_policy.URI, {**claim, "budget": budget})
    authority.signer("owner").sign(stated)

    def run(epsilon, name):
        asked = {**ASKED, "epsilon": epsilon, "dataset": str(data), "out": str(tmp_path / name)}
        told = {"purpose": "training", "preflight": Preflight(()), "quiet": True, "run_id": name}
        return runner.run("training.dp", asked, signer=authority.signer(), store=authority.store, **told).statement

    said = run("4", "one").predicate
    reservation = authority.store.get(said["preflight"]["reservation"]).statement.predicate
    assert (reservation["epsilon"], reservation["delta"], reservation["unit"]) == ("4", "0.001", "person")
    assert said["preflight"]["spent"] == {"epsilon": said["epsilon"], "delta": said["delta"]}
    assert 3.9 < float(said["epsilon"]) < 4, "less than was set aside: the noise has three digits"
    told = authority.call("budget", str(data), "--store", str(authority.store.root), "--json").stdout
    (account,) = json.loads(told)["accounts"]
    assert account["spent"] == said["preflight"]["spent"]
    assert [one["state"] for one in account["reservations"]] == ["spent"]

    kept = set(authority.store.ids())
    with monkeypatch.context() as patch:
        patch.setattr(dpsgd, "train", lambda *_: pytest.fail("it trained"))
        with pytest.raises(RuleBroken, match=r"not enough of its privacy budget left for epsilon 1\.1"):
            run("1.1", "two")
    assert set(authority.store.ids()) == kept and not (tmp_path / "two").exists()
    left = str(5 - Decimal(said["epsilon"]))
    assert Decimal(run(left, "three").predicate["epsilon"]) <= Decimal(left), "what came back can be spent"


# --- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"epsilon": "0.001", "delta": "0.0000001"}, Unchecked, "no noise keeps this epsilon"),
        ({"epsilon": "0"}, Misuse, "no positive decimal"),
        ({"epsilon": "nan"}, Misuse, "no positive decimal"),
        ({"epsilon": "1e40"}, Misuse, "no positive decimal"),
        ({"delta": "0.01"}, Misuse, "one unit could be published whole"),
        ({"features": "signal,age,height"}, Misuse, "no height"),
        ({"features": "signal,signal"}, Misuse, "named once each"),
        ({"features": "signal,age,need"}, Misuse, "among the features"),
        ({"outcome": "sick"}, Misuse, "no column 'sick'"),
        ({"features": "signal", "ranges": "{}", "outcome": "age"}, Misuse, "must be 0 and 1"),
        ({"unit_column": "household"}, Misuse, "no column 'household'"),
        ({"ranges": '{"age": "90:0"}'}, Misuse, "a range cannot be used"),
        ({"ranges": '{"height": "0:1"}'}, Misuse, "a range cannot be used"),
        ({"epochs": "0"}, Misuse, "out of range"),
        ({"frame": table(people=60)}, Unchecked, "too few units"),
        ({"frame": table().iloc[:0]}, Unreadable, "no rows"),
        ({"frame": table().assign(signal=np.nan)}, Misuse, "missing"),
        ({"frame": table().assign(signal=np.inf)}, Misuse, "not finite"),
        ({"frame": table().assign(signal="high")}, Misuse, "does not hold numbers"),
        ({"frame": table().assign(person=np.nan)}, Misuse, "missing values"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_bad_input_is_one_sentence_and_no_model(private, tmp_path, change, error, words):
    stopped(private, tmp_path, error, words, **change)


@pytest.mark.parametrize("other", ["p{} ", "P{}"])
def test_one_person_under_two_spellings_is_refused(private, tmp_path, other):
    """Two ids of one person would be two examples, and epsilon would hold for half of the person."""
    frame = table()
    frame["person"] = [f"p{p}" for p in frame.person]
    frame.loc[frame.index[-1], "person"] = other.format(0)
    stopped(private, tmp_path, Misuse, "writes one id in several ways", frame=frame)


@pytest.mark.parametrize("name", ["people.json", "people.csv", "people.parquet"])
def test_a_file_that_is_no_table_is_refused(private, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\x01 no table")
    stopped(private, tmp_path, (Misuse, Unreadable), "no table|cannot be read|no rows|no column", data=tmp_path / name)


# --- the premises, each broken once ----------------------------------------------------------------------------------

RECIPE = Recipe(noise=1.5, batches=4, epochs=2, clip=1.0, rate=1.0, hidden=0, seed=0)


@pytest.fixture
def few():
    return units.examples(table(), ["signal", "age"], {"age": (0, 90)}, "need", "person", 3, truncate=False)


def broken(few, words, recipe=RECIPE):
    with pytest.raises(Unchecked, match=words):
        dpsgd.train(few, recipe, 1e-3)


def test_all_premises_hold_as_it_is(few):
    assert dpsgd.train(few, RECIPE, 1e-3).estimates["opacus prv"] > 0


def test_shuffled_batches_are_no_poisson_samples(few, monkeypatch):
    from opacus.data_loader import DPDataLoader

    monkeypatch.setattr(DPDataLoader, "from_data_loader", classmethod(lambda cls, loader, **_: loader))
    broken(few, "batches are Poisson samples")


def test_a_sampler_with_another_rate(few, monkeypatch):
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler as Sampler

    draw = Sampler.__iter__

    def often(self):
        self.sample_rate, true = self.sample_rate * 2, self.sample_rate
        yield from (batch for batch, _ in zip(draw(self), range(4)))
        self.sample_rate = true

    monkeypatch.setattr(Sampler, "__iter__", often)
    broken(few, "not what Poisson sampling gives")


def test_a_step_without_noise_or_unseen_by_the_accountant(few, monkeypatch):
    from opacus.optimizers import DPOptimizer

    with monkeypatch.context() as patch:
        patch.setattr(DPOptimizer, "noise_multiplier", property(lambda _: 0.0, lambda *_: None), raising=False)
        broken(few, "a premise of its accounting")
    step = DPOptimizer.step
    skipped = iter([True])

    def forgetful(self, closure=None):
        hook = self.step_hook
        self.step_hook = None if next(skipped, False) else hook
        try:
            return step(self, closure)
        finally:
            self.step_hook = hook

    monkeypatch.setattr(DPOptimizer, "step", forgetful)
    broken(few, "the accountant saw every step")


def test_a_layer_that_mixes_units():
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    loader = type("Loader", (), {"batch_sampler": None, "dataset": [1]})()
    optimizer = type("Optimizer", (), {"noise_multiplier": 1.5, "max_grad_norm": 1.0})()
    with pytest.raises(Unchecked, match="a premise"):
        dpsgd.require_premises(model, optimizer, loader, [], RECIPE, 1)


def test_rows_taken_for_units(few):
    """The classic: every row its own record, so that a person with three rows has three times the influence."""
    import torch
    from opacus import GradSampleModule

    class Rows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 1)

        def forward(self, x):
            return self.linear(x.reshape(-1, 2)).reshape(*x.shape[:2], 1)

    parts = [torch.from_numpy(p) for p in (few.features, few.labels, few.present)]
    data = torch.utils.data.TensorDataset(*parts)
    with pytest.raises(Unchecked, match="one gradient a unit"):
        dpsgd.require_one_gradient_a_unit(GradSampleModule(Rows(), loss_reduction="sum"), data)


def test_an_empty_batch_gets_its_noise(few):
    """With 120 batches of two expected people many are empty; each is a step that the accountant counts."""
    recipe = Recipe(noise=1.5, batches=120, epochs=1, clip=1.0, rate=0.1, hidden=0, seed=0)
    nobody = units.Examples(few.features, few.labels, few.present, 0)
    assert dpsgd.train(nobody, recipe, 1e-3).estimates["opacus prv"] > 0


def test_accountants_that_disagree(few, monkeypatch):
    from opacus.accountants.analysis import rdp

    monkeypatch.setattr(rdp, "get_privacy_spent", lambda **_: (0.1, 2))
    broken(few, "the accountants disagree")


# --- the model's format ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"format": "pickle"},
        {"features": []},
        {"layers": []},
        {"layers": [{"weight": [[1.0, 2.0]], "bias": [0.0, 1.0]}]},
        {"layers": [{"weight": [[1.0]], "bias": [0.0]}]},
        {"layers": [{"weight": [["x", 1]], "bias": [0.0]}]},
        {"ranges": {"a": [1, 0]}},
        {"ranges": None},
    ],
    ids=str,
)
def test_weights_that_are_no_model_are_refused(tmp_path, change):
    whole = {
        "format": dense.FORMAT,
        "features": ["a", "b"],
        "ranges": {},
        "layers": [{"weight": [[1, 2]], "bias": [0]}],
    }
    (tmp_path / dense.WEIGHTS).write_text(json.dumps(whole))
    assert dense.read(tmp_path).features == ("a", "b")
    (tmp_path / dense.WEIGHTS).write_text(json.dumps(whole | change))
    with pytest.raises(Unreadable, match="no model of plain numbers"):
        dense.read(tmp_path)
    (tmp_path / dense.WEIGHTS).write_text(json.dumps(whole).replace("[0]", "[NaN]"))
    with pytest.raises(Unreadable, match="NaN"):
        dense.read(tmp_path)


def test_equal_models_are_equal_bytes_and_values_are_cut_to_their_range(tmp_path):
    layers = (dense.Layer(np.array([[1.0, 2.0]]), np.array([0.5])),)
    model = dense.Dense(("a", "b"), {"a": (0.0, 10.0)}, layers)
    for name in ("one", "two"):
        model.write(tmp_path / name)
    assert measure(tmp_path / "one").sha256 == measure(tmp_path / "two").sha256
    frame = pd.DataFrame({"a": [-5, 5, 50], "b": [0.0, 1.0, 0.0]})
    assert dense.read(tmp_path / "one").decision_function(frame).tolist() == [-0.5, 2.5, 1.5]
    assert dense.read(tmp_path / "one").predict(frame).tolist() == [0, 1, 1]
