"""Fairness: fires on an unfair model, stays silent on a fair one, says when there are too few, tells no secrets."""

import ast
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest

from mlseal.errors import DigestMismatch, Misuse, NotInitialised, Unchecked, Unreadable
from mlseal.evidence import statement
from mlseal.evidence.digest import measure
from mlseal.stages import scored
from mlseal.stages.governance import decisions, disclosure
from mlseal.stages.governance.decisions import Rule

COMMON = {"table": "test.parquet", "outcome": "need", "attribute": "group"}


QUICK = """
import argparse, pyarrow.parquet
p = argparse.ArgumentParser()
for name in ("model", "data", "kind", "out"):
    p.add_argument("--" + name)
o = p.parse_args()
table = pyarrow.parquet.read_table(o.data)
print([sorted(table.column_names), o.kind])
values = table.column(0).to_pylist()
with open(o.out, "w") as out:
    print(*(SCORE for i, value in enumerate(values)), sep="\\n", file=out)
"""


@pytest.fixture
def scorer(program):
    """Writes a scorer whose score of row `i` is the given expression; by default the first column it is shown."""
    return lambda score="value": program(QUICK.replace("SCORE", score), "scorer.py")


@pytest.fixture
def measured(perform, people, model, scorer):
    """Runs the stage on a model of column ``signal`` with a scorer that needs no scikit-learn."""

    def go(data=None, built=None, score="value", **arguments):
        given = {**COMMON, "select": "top:0.4", **arguments}
        return perform(
            "governance.fairness",
            model=built or model(["signal"]),
            dataset=data or people(),
            scorer=scorer(score),
            **given,
        )

    return go


def metric(made, name):
    return next((m for m in made.predicate["metrics"] if m["name"] == name), None)


# --- the detector ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("feature", "unfair"), [("signal", False), ("skewed", True)])
def test_it_fires_on_an_unfair_model_and_is_silent_on_a_fair_one(perform, people, model, feature, unfair):
    made = perform("governance.fairness", model=model([feature]), dataset=people(), select="top:0.4", **COMMON)
    gap = metric(made, "equalizedOddsDifference")
    assert (gap["ciLow"] > 0.2) == unfair
    assert (gap["ciHigh"] < 0.2) == (not unfair)
    assert gap["ciLow"] <= gap["value"] <= gap["ciHigh"]
    assert gap["halfWidth"] == pytest.approx((gap["ciHigh"] - gap["ciLow"]) / 2, abs=1e-4)
    assert made.predicate["strength"] == "measured" and made.predicate["sufficient"] is True


def test_figures_are_those_of_the_rows(perform, people, model):
    data = people(noisy=np.random.default_rng(2).integers(0, 2, 1200))
    made = perform("governance.fairness", model=model(["signal"]), dataset=data, select="column:noisy", **COMMON)
    rows = pd.read_parquet(data / "test.parquet")
    for group in made.predicate["groups"]:
        own = rows[rows.group == int(group["name"])]
        assert (group["n"], group["positives"], group["negatives"]) == (len(own), own.need.sum(), (own.need == 0).sum())
        assert group["truePositiveRate"] == round(own[own.need == 1].noisy.mean(), 3)
        assert group["falsePositiveRate"] == round(own[own.need == 0].noisy.mean(), 3)
        assert group["selectionRate"] == round(own.noisy.mean(), 3)
    assert made.predicate["n"] == len(rows)


def test_the_subject_is_the_model_and_the_data_set_is_named_by_digest(measured, people, model):
    data, built = people(), model(["signal"])
    made = measured(data, built)
    assert made.subjects == measure(built).subjects
    assert made.predicate["dataset"]["digest"]["sha256"] == measure(data).sha256
    assert made.predicate["harness"]["libraries"]["fairlearn"]
    assert any("provenance was verified" in text for text in made.predicate["notProven"])


def test_clusters_are_resampled_whole_and_named(perform, people, model):
    n = 1200
    rng = np.random.default_rng(5)
    household = np.arange(n) // 6
    alike = rng.random(n // 6)[household]
    data = people(n=n, household=household, copied=(alike < 0.5).astype(int), need=(alike < 0.7).astype(int))
    built = model(["signal"])
    widths = []
    for cluster in ("", "household"):
        made = perform(
            "governance.fairness", model=built, dataset=data, select="column:copied", cluster=cluster, **COMMON
        )
        widths.append(metric(made, "truePositiveRate")["halfWidth"])
    assert widths[1] > 1.5 * widths[0]
    assert made.predicate["interval"] == {"method": "cluster-bootstrap", "replicates": 2000, "cluster": "household"}
    assert made.predicate["clusters"] == n // 6


def test_equal_input_gives_equal_figures_and_csv_equals_parquet(measured, people, model):
    data, built = people(), model(["signal"])
    told = [measured(data, built, table=table).predicate for table in ("test.parquet", "test.parquet", "test.csv")]
    assert told[0]["metrics"] == told[1]["metrics"] == told[2]["metrics"]
    single = measured(data / "test.csv", built, table="").predicate
    assert single["metrics"] == told[0]["metrics"] and "table" not in single


# --- too few ---------------------------------------------------------------------------------------------------------


def test_too_few_positives_is_said_and_small_counts_are_not(measured, people):
    group = np.array([0] * 1100 + [1] * 100)
    need = np.where(group == 1, np.arange(1200) % 100 < 7, np.arange(1200) % 3 == 0).astype(int)
    made = measured(people(group=group, need=need))
    said = made.predicate
    assert said["sufficient"] is False
    assert (said["smallestGroupPositives"], said["smallestGroupNegatives"]) == (0, 93)
    small = said["groups"][1]
    assert small["n"] == 100 and not {"positives", "negatives", "truePositiveRate"} & small.keys()
    assert metric(made, "equalizedOddsDifference") is None and metric(made, "truePositiveRate") is None
    assert metric(made, "selectionRateDifference") is not None


@pytest.mark.parametrize(("minimum", "sufficient"), [("0", True), ("40", True), ("5000", False)])
def test_the_minimum_is_the_callers_and_is_published(measured, minimum, sufficient):
    made = measured(minimum_positives=minimum)
    assert (made.predicate["sufficient"], made.predicate["minimumPositives"]) == (sufficient, int(minimum))


def test_a_tiny_group_hides_itself_and_the_one_it_could_be_had_from():
    counts = np.array([[[2.0, 1], [1, 1]], [[30, 30], [30, 30]], [[300, 30], [30, 300]]])
    said = disclosure.describe(counts, ["a", "b", "c"], 10)
    assert [("n" in g, "positives" in g) for g in said["groups"]] == [(False, False), (False, False), (True, True)]
    assert said["groups"][1]["truePositiveRate"] == 0.5


def test_a_rate_that_would_reveal_a_small_cell_is_hidden():
    counts = np.array([[[100.0, 100], [95, 5]], [[100, 100], [5, 95]], [[100, 100], [50, 50]]])
    groups = disclosure.describe(counts, ["low", "high", "middle"], 10)["groups"]
    assert [("truePositiveRate" in g) for g in groups] == [False, False, True]
    assert all("falsePositiveRate" in g for g in groups)


def test_nothing_is_published_when_a_group_has_under_ten_rows(measured, people):
    group = np.array([0] * 1195 + [1] * 5)
    with pytest.raises(Unchecked, match="too small"):
        measured(people(group=group))


# --- what the model sees, and what the world sees ---------------------------------------------------------------------


def test_a_scorer_sees_declared_features_only_or_all_but_the_three(measured, people, model):
    data, seen = people(), []
    for signature, columns in ((True, ["signal"]), (False, ["fair", "signal", "skewed", "unfair"])):
        built = model(["signal"], f"model-{signature}", signature=signature)
        measured(data, built, score="i % 2", select="predict", cluster="household", log=seen.append)
        assert ast.literal_eval(seen[-1]) == [columns, "decision"]


def test_the_scorer_is_named_by_digest(measured, scorer):
    assert measured().predicate["scorer"]["digest"]["sha256"] == measure(scorer()).sha256


@pytest.mark.parametrize(("feature", "told"), [("signal", False), ("group", True)])
def test_whether_the_attribute_is_a_feature_is_measured(measured, model, feature, told):
    assert measured(built=model([feature])).predicate["attributeIsFeature"] is told


def test_a_column_of_decisions_is_declared_not_measured(perform, people, model):
    canary = model(["signal"])
    (canary / "model.pkl").write_bytes(b"\x80\x04never loaded")
    said = perform("governance.fairness", model=canary, dataset=people(), select="column:fair", **COMMON).predicate
    assert said["strength"] == "declared" and "attributeIsFeature" not in said
    assert any("read from a column" in text for text in said["notProven"])


def test_no_value_of_a_row_leaves_the_stage(measured, people):
    n = 1200
    data = people(
        n=n, email=[f"canary-{i}@example.org" for i in range(n)], household=[f"canary-house-{i // 2}" for i in range(n)]
    )
    made = measured(data, cluster="household")
    assert b"canary" not in made.payload
    assert str(data).encode() not in made.payload
    assert len(made.payload) < 6000 and statement.parse(made.payload) == made


def test_a_model_swapped_after_hashing_is_not_loaded(perform, people, model, monkeypatch, tmp_path):
    built, data = model(["signal"]), people()
    original = shutil.copyfile

    def swap(source, target):
        if str(source).endswith("model.pkl"):
            (built / "model.pkl").write_bytes(b"cposix\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "pwned").encode())
        return original(source, target)

    monkeypatch.setattr("mlseal.stages.context.shutil.copyfile", swap)
    with pytest.raises(DigestMismatch, match="input model changed"):
        perform("governance.fairness", model=built, dataset=data, **COMMON)
    assert not (tmp_path / "pwned").exists()


def test_provenance_is_asked_for_before_the_model_runs(perform, people, model, tmp_path):
    built = model(["signal"])
    (built / "model.pkl").write_bytes(b"cposix\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "pwned").encode())
    with pytest.raises(NotInitialised):
        perform("governance.fairness", model=built, dataset=people(), producer_issuer="i", producer_san="s", **COMMON)
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(Misuse, match="identity"):
        perform("governance.fairness", model=built, dataset=people(), producer_san="s", **COMMON)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ({"outcome": "neeed"}, {}, "no column 'neeed' for the outcome"),
        ({"attribute": "race"}, {}, "no column 'race'"),
        ({"cluster": "family"}, {}, "no column 'family'"),
        ({"table": "train.parquet"}, {}, "no such table"),
        ({"table": "../../etc/passwd"}, {}, "no such table"),
        ({"table": ""}, {}, "no such table"),
        ({"select": "best"}, {}, "selection rule is unknown"),
        ({"select": "top:25"}, {}, "selection rule is unknown"),
        ({"select": "top:0"}, {}, "selection rule is unknown"),
        ({"select": "threshold:nan"}, {}, "selection rule is unknown"),
        ({"select": "column:"}, {}, "selection rule is unknown"),
        ({"select": "column:signal"}, {}, "column 'signal' must be 0 and 1"),
        ({"outcome": "household"}, {}, "column 'household' must be 0 and 1"),
        ({"attribute": "household"}, {}, "does not hold groups; got 600 values"),
        ({}, {"group": np.zeros(1200)}, "does not hold groups; got 1 values"),
        ({}, {"group": np.where(np.arange(1200) % 2, "x" * 41, "y")}, "does not hold groups"),
        ({}, {"need": np.where(np.arange(1200) == 7, np.nan, 1.0)}, "missing values; got 1 of 1200 rows"),
        ({}, {"group": np.where(np.arange(1200) == 7, None, "a")}, "missing values"),
        ({"replicates": "10"}, {}, "out of range"),
        ({"level": "0.2"}, {}, "out of range"),
        ({"minimum_positives": "-1"}, {}, "out of range"),
    ],
)
def test_wrong_questions_are_refused_in_one_sentence(measured, people, arguments, data, message):
    with pytest.raises(Misuse) as caught:
        measured(people(**data), **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        ("'x'", Unchecked, "no readable scores"),
        ("float('nan')", Unchecked, "does not fit"),
        ("float('inf')", Unchecked, "does not fit"),
        ("f'{i} {i}'", Unchecked, "does not fit"),
        ("i / 0", Unchecked, "ZeroDivisionError"),
        ("i", Misuse, "decisions must be 0 and 1"),
    ],
)
def test_a_scorer_that_fails_or_gives_nonsense_is_no_pass(measured, score, error, message):
    with pytest.raises(error) as caught:
        measured(score=score, select="predict")
    assert message in str(caught.value)
    if error is Misuse:
        assert str(caught.value).endswith(" different numbers"), "no value of anybody's row"


def test_a_mistake_in_the_call_is_one_sentence_of_a_whole_process(authority, people, model, program):
    """An import that another thread began is let finish: else the interpreter prints what the import thinks of that."""
    scorer = program("raise SystemExit('no')", "scorer.py")
    words = ["--model", model(["signal"]), "--dataset", people(), "--table", "test.parquet", "--outcome", "need"]
    done = authority.run(
        "run", "governance.fairness", *map(str, words), "--attribute", "group", "--scorer", str(scorer)
    )
    assert done.returncode == 11, done.stderr
    assert "Traceback" not in done.stderr and "mend the scorer" in done.stderr


def test_models_that_cannot_be_scored_say_what_to_do(perform, people, model, tmp_path):
    data, built = people(), model(["signal"])
    missing = model(["absent"], "other")
    with pytest.raises(Misuse, match="lacks features of the model; got no absent"):
        perform("governance.fairness", model=missing, dataset=data, **COMMON)
    (built / "MLmodel").write_text("flavors: {pytorch: {}}\n")
    with pytest.raises(Unchecked, match="no scikit-learn flavour.*--scorer"):
        perform("governance.fairness", model=built, dataset=data, **COMMON)
    (built / "MLmodel").write_text("flavors: {sklearn: {pickled_model: ../../elsewhere.pkl}}\n")
    with pytest.raises(Unchecked, match="outside the model directory"):
        perform("governance.fairness", model=built, dataset=data, **COMMON)
    (built / "MLmodel").write_text("signature: {inputs: '[broken'}\n")
    with pytest.raises(Unreadable, match="MLmodel"):
        perform("governance.fairness", model=built, dataset=data, **COMMON)
    (built / "MLmodel").unlink()
    with pytest.raises(Misuse, match="no MLflow directory; remedy: pass --scorer"):
        perform("governance.fairness", model=built, dataset=data, **COMMON)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", b"\x00" * 64])
def test_a_damaged_table_is_unreadable(measured, people, content):
    data = people()
    (data / "test.parquet").write_bytes(content)
    with pytest.raises(Unreadable):
        measured(data)


@pytest.mark.parametrize("serialization", ["cloudpickle", "skops"])
def test_the_built_in_scorer_loads_what_mlflow_writes(model, tmp_path, serialization, monkeypatch):
    import runpy

    import skops.io
    import yaml

    built = model(["a", "b"])
    fitted = pickle.loads((built / "model.pkl").read_bytes())
    if serialization == "skops":
        skops.io.dump(fitted, built / "model.skops")
        (built / "model.pkl").unlink()
        flavor = {"pickled_model": "model.skops", "serialization_format": "skops", "skops_trusted_types": None}
        (built / "MLmodel").write_text(yaml.safe_dump({"flavors": {"sklearn": flavor}}))
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    table.to_parquet(tmp_path / "table.parquet")
    for kind, expected in (
        ("decision", fitted.predict(table)),
        ("score", fitted.decision_function(table)),
        ("probability", fitted.predict_proba(table)[:, 1]),
    ):
        out = tmp_path / kind
        arguments = [
            "--model",
            str(built),
            "--data",
            str(tmp_path / "table.parquet"),
            "--kind",
            kind,
            "--out",
            str(out),
        ]
        monkeypatch.setattr("sys.argv", ["scoring.py", *arguments])
        runpy.run_path(str(scored.BUILTIN_SCORER), run_name="__main__")
        assert np.array_equal(np.array(out.read_text().split(), dtype=float), expected)


def test_rules():
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.5, 0.2])
    chosen, ties = decisions.apply(Rule.parse("top:0.5"), scores)
    assert chosen.tolist() == [0, 1, 1, 1, 0, 0] and ties == 3
    assert decisions.apply(Rule.parse("threshold:0.5"), scores)[0].tolist() == [0, 1, 1, 1, 1, 0]
    assert decisions.apply(Rule.parse("top:0.01"), scores)[0].tolist() == [0] * 6
    assert Rule.parse("top:0.25").to_json() == {"rule": "top-fraction", "fraction": 0.25}
    assert Rule.parse("threshold:-1").to_json() == {"rule": "threshold", "threshold": -1.0}
    assert Rule.parse("column:x").to_json() == {"rule": "column"} and Rule.parse("predict").to_json() == {
        "rule": "predict"
    }


def test_two_computations_that_disagree_stop(measured, monkeypatch):
    monkeypatch.setattr("fairlearn.metrics.equalized_odds_difference", lambda **_: 0.0)
    with pytest.raises(Unchecked, match="equalizedOddsDifference disagree"):
        measured()
