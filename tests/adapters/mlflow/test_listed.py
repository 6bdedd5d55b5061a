"""A loader that reads listed pickles only, and plain ``models:`` URIs that are verified where a process opted in."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlseal_mlflow import pickles
from sklearn.linear_model import LogisticRegression

from mlseal.errors import Misuse


@pytest.fixture
def listed(monkeypatch):
    monkeypatch.setenv(pickles.SETTING, "listed")


def sklearn_model(tmp_path, **changes):
    """The files that MLflow writes for an ordinary scikit-learn model."""
    import mlflow

    fitted = LogisticRegression().fit(np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1])
    fitted.mark_ = os.urandom(4).hex()  # each model has other bytes
    mlflow.sklearn.save_model(fitted, tmp_path / "saved", serialization_format="pickle", pip_requirements=pins())
    files = {p.relative_to(tmp_path / "saved").as_posix(): p for p in (tmp_path / "saved").rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items()} | changes


def pins():
    return [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "scikit-learn")]


def promoted(shop, files):
    name, version, _ = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    return f"{name}@champion"


def test_an_ordinary_model_loads(shop, client, listed, tmp_path):
    reference = promoted(shop, sklearn_model(tmp_path))
    assert client.pyfunc.load_model(f"attested:/{reference}").predict(np.array([[3.0]])).tolist() == [1]


def test_a_pickle_that_the_gate_let_through_and_that_runs_code_is_not_read(shop, client, listed, tmp_path):
    ran = tmp_path / "ran"
    reference = promoted(shop, sklearn_model(tmp_path, **{"model.pkl": shop.canary(ran)}))
    text = shop.refused(lambda: client.pyfunc.load_model(f"attested:/{reference}"), "more than models of its flavour")
    assert "system" in text and not ran.exists()


def test_without_the_setting_the_verdict_alone_decides(shop, client, tmp_path):
    ran = tmp_path / "ran"
    reference = promoted(shop, sklearn_model(tmp_path, **{"model.pkl": shop.canary(ran)}))
    client.pyfunc.load_model(f"attested:/{reference}")
    assert ran.exists()


def test_a_model_with_code_of_its_own_is_not_listed(shop, client, listed):
    reference = promoted(shop, shop.pyfunc("fine"))
    shop.refused(lambda: client.pyfunc.load_model(f"attested:/{reference}"), "brings code of its own")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"scikit-learn==1.6.0\n", "made with another scikit-learn"),
        (b"scikit-learn\n", "does not pin scikit-learn"),
        (b"scikit-learn==0.24.1\n", "was reviewed for"),
    ],
)
def test_the_models_own_requirements_choose_the_list(shop, client, listed, tmp_path, text, said):
    reference = promoted(shop, sklearn_model(tmp_path, **{"requirements.txt": text}))
    shop.refused(lambda: client.pyfunc.load_model(f"attested:/{reference}"), said)


def test_settings_that_are_not_known_stop(shop, client, monkeypatch):
    name, version, _ = shop.model(shop.pyfunc("fine"))
    monkeypatch.setenv(pickles.SETTING, "maybe")
    with pytest.raises(Misuse, match="not known"):
        pickles.asked()
    shop.refused(lambda: client.pyfunc.load_model(f"attested:/{name}/{version}"), "not known", status=400)
    monkeypatch.setenv("MLSEAL_MLFLOW_MODELS", "yes")
    shop.refused(lambda: client.pyfunc.load_model(f"models:/{name}/{version}"), "not known", status=400)


# --- plain models: -------------------------------------------------------------------------------------------------


def test_plain_uris_are_verified_in_a_process_that_opted_in(shop, client, monkeypatch, tmp_path):
    files = shop.pyfunc("fine")
    name, version, uri = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    monkeypatch.setenv("MLSEAL_MLFLOW_MODELS", "attested")
    logged = shop.client.get_model_version(name, version).source.removeprefix("models:/")
    for reference in (f"{name}@champion", f"{name}/{version}", logged):
        assert client.pyfunc.load_model(f"models:/{reference}").predict(None) == "fine"
    ran = tmp_path / "ran"
    shop.overwrite(uri, "model.pkl", shop.canary(ran))
    for reference in (f"{name}@champion", f"{name}/{version}", logged):
        shop.refused(lambda reference=reference: client.pyfunc.load_model(f"models:/{reference}"), "never allowed")
    assert not ran.exists()


def test_a_process_that_opted_in_can_still_log_and_register(shop, client, monkeypatch, tmp_path):
    monkeypatch.setenv("MLSEAL_MLFLOW_MODELS", "attested")
    fitted = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
    name = shop.fresh()
    with client.start_run():
        info = client.sklearn.log_model(
            fitted, name="model", registered_model_name=name, pip_requirements=pins(), serialization_format="pickle"
        )
    assert shop.client.get_model_version(name, "1").source == info.model_uri
    assert client.models.get_model_info(info.model_uri).flavors["sklearn"]
    shop.refused(lambda: client.pyfunc.load_model(info.model_uri), "never allowed")


ORDER = """
import importlib, sys, warnings
warnings.simplefilter("error", UserWarning)
importlib.import_module(sys.argv[1])
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
try:
    get_artifact_repository("models:/m-" + "0" * 32)
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("first", ["mlflow", "mlseal_mlflow.artifact", "mlseal_mlflow.entrypoints"])
def test_whatever_is_imported_first_the_schemes_are_known(tmp_path, first):
    """Half-made modules were warned about and passed over, and ``models:`` was read unverified."""
    environment = os.environ | {"MLSEAL_MLFLOW_MODELS": "bogus", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", ORDER, first], env=environment, capture_output=True, text=True)
    assert "MLSEAL_MLFLOW_MODELS has a value that is not known" in done.stdout, done.stderr


def test_pickle_protocols_are_all_read(tmp_path):
    from mlseal.evidence.digest import measure

    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        model = tmp_path / str(protocol)
        model.mkdir()
        fitted = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
        (model / "model.pkl").write_bytes(pickle.dumps(fitted, protocol))
        (model / "requirements.txt").write_text("\n".join(pins()))
        (model / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}\n")
        pickles.require_listed(model, measure(model, name="model"), Path(tmp_path / f"expanded{protocol}"))
