"""``mlflow.models.evaluate`` with our evaluator: signed figures of the bytes that are stored, beside the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlseal_mlflow import beside
from sklearn.linear_model import LogisticRegression

from mlseal.evidence.bundle import Bundle
from mlseal.evidence.predicates import fairness

CONFIG = {"outcome": "need", "attribute": "group", "replicates": 200, "minimum_positives": 5}


@pytest.fixture
def rows(tmp_path):
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"signal": rng.normal(size=400), "group": np.where(np.arange(400) % 2, "a", "b")})
    table["need"] = (table["signal"] + rng.normal(size=400) > 0).astype(int)
    table.to_parquet(tmp_path / "test.parquet")
    return tmp_path / "test.parquet"


@pytest.fixture
def logged(client, rows):
    """A logged scikit-learn model."""
    table = pd.read_parquet(rows)
    fitted = LogisticRegression().fit(table[["signal"]], table["need"])
    signature = client.models.infer_signature(table[["signal"]])
    return client.sklearn.log_model(
        fitted, name="model", pip_requirements=[], signature=signature, serialization_format="pickle"
    )


@pytest.fixture
def evaluated(client, logged, rows):
    def go(data=None, uri=None, **config):
        settings = {"stage": "governance.fairness", "arguments": CONFIG | {"dataset": rows}, **config}
        return client.models.evaluate(
            uri or logged.model_uri,
            pd.read_parquet(rows) if data is None else data,
            targets="need",
            model_type="classifier",
            evaluators=["mlseal"],
            evaluator_config={"mlseal": settings},
        )

    return go


@pytest.fixture
def copied(client, logged, tmp_path):
    """A download of the model as it is stored now."""

    def go():
        target = tmp_path / f"copy{len(list(tmp_path.glob('copy*')))}"
        target.mkdir()
        return Path(client.artifacts.download_artifacts(logged.model_uri, dst_path=str(target)))

    return go


def test_figures_are_signed_kept_and_put_beside_the_model(shop, client, evaluated, copied):
    result = evaluated()
    value = result.metrics["governance.fairness/equalizedOddsDifference"]
    assert result.metrics["governance.fairness/equalizedOddsDifference/ciHigh"] >= value
    lying = copied() / beside.FOLDER
    bundle = Bundle((lying / beside.CLAIMS).read_bytes().strip())
    assert Bundle.read(lying / f"{bundle.evidence_id}.sigstore.json").evidence_id == bundle.evidence_id
    assert Bundle.read(shop.authority.store.path(bundle.evidence_id)).evidence_id == bundle.evidence_id
    assert bundle.statement.predicate_type == fairness.URI
    run = client.search_runs(output_format="list", experiment_ids=["0"])[0]
    assert run.data.metrics["governance.fairness/equalizedOddsDifference"] == value
    evaluated()
    claimed = (copied() / beside.FOLDER / beside.CLAIMS).read_bytes().splitlines()
    assert len(claimed) == 2 and bundle.evidence_id in {Bundle(one).evidence_id for one in claimed}


def test_evidence_goes_where_the_model_goes_and_is_about_its_bytes(client, evaluated, copied):
    from mlseal.evidence.digest import measure

    evaluated()
    place = copied()
    found = list(beside.bundles(place / beside.FOLDER))
    assert len(found) == 2 and len({one.evidence_id for one in beside.parsed(found)}) == 1
    assert measure(place, name="model").sha256 in {subject.sha256 for subject in found[0].statement.subjects}


def test_the_stored_bytes_are_measured_and_not_the_object_in_memory(shop, client, logged, evaluated, rows):
    """Whoever evaluates may hold another model than the one that is stored under this id."""
    loaded = client.pyfunc.load_model(logged.model_uri)
    honest = evaluated(uri=loaded).metrics
    loaded._model_impl.sklearn_model.coef_ = -loaded._model_impl.sklearn_model.coef_
    loaded._model_impl.sklearn_model.intercept_ = loaded._model_impl.sklearn_model.intercept_ + 9
    assert evaluated(uri=loaded).metrics == honest


def test_other_rows_than_those_of_the_file_stop_it(evaluated, rows, shop, copied):
    table = pd.read_parquet(rows)
    for other in (
        table.assign(signal=table["signal"] * 2),
        table[::-1],
        table[:-1],
        table.assign(need=1 - table["need"]),
    ):
        shop.refused(lambda other=other: evaluated(data=other), "does not hold the rows")
    assert not (copied() / beside.FOLDER).exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": "no.such"}, "there is no stage"),
        ({"stage": "testing.code"}, "cannot be asked about a model"),
        ({"arguments": {"outcome": "need"}}, "cannot be asked about a model"),
        ({"arguments": {"model": "mine"}}, "leave 'model' out"),
        ({"surprise": 1}, "not understood"),
    ],
)
def test_configurations_that_are_not_understood(shop, evaluated, changes, said):
    shop.refused(lambda: evaluated(**changes), said, status=400)


def test_a_stage_that_fails_is_an_error_and_no_figure(shop, evaluated, rows):
    wrong = CONFIG | {"dataset": rows, "attribute": "nosuch"}
    shop.refused(lambda: evaluated(arguments=wrong), "no column", status=400)


def test_spoilt_claims_hide_no_others(tmp_path):
    kept = Bundle.read(next((Path(__file__).parents[2] / "golden").rglob("*.sigstore.json")))
    (tmp_path / beside.CLAIMS).write_bytes(b"{}\n\n" + kept.raw + b"\nnot json\n")
    (tmp_path / "empty.json").touch()
    (tmp_path / "link.json").symlink_to("/etc/hostname")
    found = list(beside.parsed(beside.bundles(tmp_path)))
    assert [one.evidence_id for one in found] == [kept.evidence_id]
    assert json.loads(beside.claims([*found, *found])) == kept.document
    (tmp_path / beside.CLAIMS).write_bytes((kept.raw + b"\n") * 200)
    assert len(list(beside.bundles(tmp_path))) == beside.MAX_FOUND
