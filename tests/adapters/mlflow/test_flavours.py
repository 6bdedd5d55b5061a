"""``attested:`` wherever MLflow takes a model's URI: each flavour whose library is here, and each command and target.

What is tampered with runs code when it is read; a loader that did not ask would run it, and does (the last lines).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PINS = {"pip_requirements": ["mlflow"]}  # else MLflow finds them out by loading the model in another process


def _pyfunc(place: Path) -> None:
    import mlflow

    class Same(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    mlflow.pyfunc.save_model(place, python_model=Same(), **PINS)


def _sklearn(place: Path, **how: Any) -> None:
    import mlflow
    from sklearn.linear_model import LinearRegression

    mlflow.sklearn.save_model(LinearRegression().fit([[0.0], [1.0]], [0, 1]), place, **PINS, **how)


def _sklearn_pickle(place: Path) -> None:
    _sklearn(place, serialization_format="pickle")


def _pytorch(place: Path) -> None:
    import mlflow
    import torch

    mlflow.pytorch.save_model(torch.nn.Linear(1, 1), place, serialization_format="pickle", **PINS)


def _statsmodels(place: Path) -> None:
    import mlflow
    import statsmodels.api as sm

    mlflow.statsmodels.save_model(sm.OLS([0.0, 1.1, 2.0], [[1, 0], [1, 1], [1, 2]]).fit(), place, **PINS)


def _spacy(place: Path) -> None:
    import mlflow
    import spacy

    mlflow.spacy.save_model(spacy.blank("en"), place, **PINS)


FLAVOURS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "pyfunc": ("pyfunc", _pyfunc, "python_model.pkl"),
    "sklearn": ("sklearn", _sklearn_pickle, "model.pkl"),
    "sklearn, not pickled": ("sklearn", _sklearn, "model.skops"),
    "pytorch": ("pytorch", _pytorch, "data/model.pth"),
    "statsmodels": ("statsmodels", _statsmodels, "model.statsmodels"),
    "spacy": ("spacy", _spacy, "model.spacy/config.cfg"),
}
"""By name: MLflow's module, what saves a small model, and the file in it that is changed."""


def test_the_table_has_each_flavour_whose_library_is_here():
    import mlflow
    from mlflow.ml_package_versions import _ML_PACKAGE_VERSIONS

    here = {"pyfunc"}
    for flavour, versions in _ML_PACKAGE_VERSIONS.items():
        try:
            importlib.metadata.version(versions["package_info"]["pip_release"])
        except importlib.metadata.PackageNotFoundError:
            continue
        if hasattr(getattr(mlflow, flavour, None), "load_model"):
            here.add(flavour)
    assert {flavour for flavour, _, _ in FLAVOURS.values()} == here


def promoted(shop, place):
    """A model that MLflow saved in `place`, registered, proven and champion: (name, storage URI)."""
    return champion(shop, {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()})


def champion(shop, files):
    name, version, uri = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    return name, uri


@pytest.mark.parametrize("case", FLAVOURS)
def test_a_flavour_loads_as_it_was_allowed_and_no_other_way(shop, client, tmp_path, case):
    flavour, save, changed = FLAVOURS[case]
    module = importlib.import_module(f"mlflow.{flavour}")
    save(tmp_path / "model")
    name, uri = promoted(shop, tmp_path / "model")
    by_id = f"attested:/{shop.client.get_model_version(name, '1').source.removeprefix('models:/')}"
    first = f"attested:/{name}@champion"
    loads = [(module.load_model, reference) for reference in (first, f"attested:/{name}/1", by_id)]
    loads += [(client.models.Model.load, first), (client.models.get_model_info, first)]
    for load, reference in loads:
        assert load(reference) is not None
    ran = tmp_path / "ran"
    shop.overwrite(uri, changed, shop.canary(ran))
    for load, reference in loads:
        shop.refused(lambda load=load, reference=reference: load(reference), "never allowed these bytes")
    assert not ran.exists()


@pytest.fixture
def served(shop, client, tmp_path):
    """A promoted model that says what it was made with: (name, storage URI, files)."""
    files = shop.pyfunc("fine") | {"requirements.txt": b"mlflow\n"}
    return *champion(shop, files), files


def commands(shop, *arguments):
    """`mlflow models …` in this process; raises what it raises."""
    from click.testing import CliRunner
    from mlflow.models.cli import commands as models

    done = CliRunner(env=shop.env).invoke(models, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def test_a_dockerfile_holds_the_verified_copy_or_is_not_written(shop, served, tmp_path):
    name, uri, files = served
    out = tmp_path / "image"
    arguments = ("generate-dockerfile", "-m", f"attested:/{name}@champion", "--env-manager", "virtualenv", "-d")
    commands(shop, *arguments, str(out))
    text = (out / "Dockerfile").read_text()
    (copied,) = [line.split()[1] for line in text.splitlines() if line.startswith("COPY model_dir")]
    held = {p.relative_to(out / copied).as_posix(): p.read_bytes() for p in (out / copied).rglob("*") if p.is_file()}
    assert held == files
    ran, again = tmp_path / "ran", tmp_path / "again"
    shop.overwrite(uri, "model.pkl", shop.canary(ran))
    shop.refused(lambda: commands(shop, *arguments, str(again)), "never allowed these bytes")
    assert (again.exists(), ran.exists()) == (False, False)


def test_predict_reads_what_was_allowed(shop, served, tmp_path):
    name, uri, _ = served
    (tmp_path / "in.json").write_text('{"inputs": [1]}')
    arguments = (
        "predict",
        "-m",
        f"attested:/{name}@champion",
        "--env-manager",
        "local",
        "-i",
        str(tmp_path / "in.json"),
    )
    commands(shop, *arguments, "-o", str(tmp_path / "out.json"))
    assert "fine" in (tmp_path / "out.json").read_text()
    shop.overwrite(uri, "model.pkl", shop.canary(tmp_path / "ran"))
    shop.refused(lambda: commands(shop, *arguments, "-o", str(tmp_path / "more.json")), "never allowed these bytes")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "more.json").exists()


@pytest.mark.slow
def test_a_scoring_server_serves_what_was_allowed(shop, served, tmp_path):
    name, uri, _ = served
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"attested:/{name}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where MLflow finds its uvicorn
    env = shop.env | {"MLFLOW_TRACKING_URI": shop.url, "MLFLOW_REGISTRY_URI": shop.url, "PATH": path}
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            assert "fine" in asked(process, port, tmp_path / "serve.log")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
    shop.overwrite(uri, "model.pkl", shop.canary(tmp_path / "ran"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode != 0
    assert "never allowed these bytes" in done.stderr
    assert not (tmp_path / "ran").exists()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def asked(process, port, log):
    """What the scoring server predicts, once it answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", b'{"inputs": [1]}', {"Content-Type": "application/json"}
    )
    end = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)


@pytest.fixture
def cloud(monkeypatch):
    """SageMaker and S3, as far as moto goes."""
    import boto3
    from moto.server import ThreadedMotoServer

    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*service.get_host_and_port()))
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="deployments")
    yield boto3
    service.stop()


def test_a_deployment_target_gets_what_was_allowed(shop, served, cloud, tmp_path):
    """SageMaker's, the one target that MLflow brings and that takes models."""
    from mlflow.deployments import get_deploy_client

    name, uri, files = served
    target = get_deploy_client("sagemaker:/us-east-1")
    config = {
        "execution_role_arn": "arn:aws:iam::123456789012:role/deploy",
        "image_url": "123456789012.dkr.ecr.us-east-1.amazonaws.com/pyfunc:1",
        "bucket": "deployments",
        "synchronous": False,
        "archive": True,
    }
    target.create_deployment("good", f"attested:/{name}@champion", config=config)
    (stored,) = cloud.client("s3").list_objects_v2(Bucket="deployments")["Contents"]
    packed = cloud.client("s3").get_object(Bucket="deployments", Key=stored["Key"])["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        sent = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    assert sent == files
    shop.overwrite(uri, "model.pkl", shop.canary(tmp_path / "ran"))
    bad = f"attested:/{name}@champion"
    replace = config | {"mode": "replace"}
    shop.refused(lambda: target.create_deployment("bad", bad, config=config), "never allowed these bytes")
    shop.refused(lambda: target.update_deployment("good", bad, config=replace), "never allowed these bytes")
    assert [one["EndpointName"] for one in target.list_deployments()] == ["good"]
    assert len(cloud.client("s3").list_objects_v2(Bucket="deployments")["Contents"]) == 1
    assert not (tmp_path / "ran").exists()
