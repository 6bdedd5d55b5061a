"""Artifacts in S3, a storage that answers slowly or lies about sizes, and very many files: a clear answer each time."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlseal_mlflow import files

from mlseal.errors import Pending
from tests.adapters.mlflow import ways


class Relay(ThreadingHTTPServer):
    """Stands before the S3 service; what it is told to, it delays or falsifies, for objects named ``model.pkl``."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = urllib.parse.urlsplit(behind).netloc
        self.opened = threading.Event()
        self.opened.set()
        self.lies = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Passes requests on."""

    protocol_version = "HTTP/1.1"
    server: Relay

    def _pass(self) -> None:
        if self.path.partition("?")[0].endswith("model.pkl") and self.command == "GET":
            self.server.opened.wait(120)
        length = int(self.headers.get("Content-Length") or 0)
        connection = http.client.HTTPConnection(self.server.behind, timeout=60)
        connection.request(self.command, self.path, self.rfile.read(length), dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        if self.server.lies and "list-type=2" in self.path:
            body = re.sub(rb"(model\.pkl</Key>.*?<Size>)\d+", rb"\g<1>1", body, flags=re.DOTALL)
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("content-length", "connection", "date", "server", "transfer-encoding"):
                self.send_header(key, value)
        size = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass  # noqa: N815 - as http.server calls them

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def relay():
    from moto.server import ThreadedMotoServer

    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    relay = Relay("http://{}:{}".format(*service.get_host_and_port()))
    thread = threading.Thread(target=relay.serve_forever, daemon=True)
    thread.start()
    yield relay
    relay.opened.set()
    relay.shutdown()
    service.stop()


@pytest.fixture(scope="module")
def _buckets(module_shop, relay):
    import boto3

    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    client = boto3.client(
        "s3", endpoint_url=relay.url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    for bucket in ("models", "listed", "other"):
        client.create_bucket(Bucket=bucket)
    env = {**keys, "MLFLOW_S3_ENDPOINT_URL": relay.url, "MLSEAL_MLFLOW_WAIT_SECONDS": "3"}
    env["MLSEAL_MLFLOW_SOURCES"] = "s3://elsewhere,s3://listed/models"
    return module_shop(workers=1, arguments=("--artifacts-destination", "s3://models/registry"), **env)


@pytest.fixture
def buckets(_buckets, enter, home, relay):
    """A server whose artifacts lie in S3."""
    import mlflow

    enter(_buckets)
    mlflow.set_tracking_uri(_buckets.url)
    mlflow.set_registry_uri(_buckets.url)
    yield _buckets
    relay.opened.set()
    relay.lies = False
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("way", [way for way in ways.WAYS if way.row in (1, 3, 4, 5, 8, 10)], ids=lambda way: way.name)
def test_no_way_past_the_gate_with_artifacts_in_s3(buckets, way):
    way.attempt(buckets)


def test_what_lies_in_s3_has_the_digest_that_it_had_before(buckets):
    import mlflow

    files = {**buckets.pyfunc(), "deep/er/data.bin": os.urandom(300_000), "empty": b""}
    name, version, _ = buckets.model(files, proven=True)
    buckets.client.set_registered_model_alias(name, "champion", version)
    got = mlflow.artifacts.download_artifacts(f"attested:/{name}@champion")
    assert {k: open(os.path.join(got, k), "rb").read() for k in files} == files
    target = buckets.fresh("risk-{}-prod")
    buckets.client.copy_model_version(f"models:/{name}/{version}", target)
    assert ways.versions(buckets, target) == [1]


def test_models_in_listed_buckets_only(buckets, relay, monkeypatch):
    """Where creation is promotion, with evidence, and the files in S3 itself: what the operator listed is looked at."""
    import boto3
    import mlflow

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.setenv(key, buckets.env[key])
    name, files, client = buckets.fresh("risk-{}-prod"), buckets.pyfunc(), boto3.client("s3", endpoint_url=relay.url)
    buckets.prove(files)
    buckets.client.create_registered_model(name)
    for bucket, prefix in (("listed", "models/a"), ("listed", "models-evil/a"), ("other", "models/a")):
        for file, data in files.items():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{file}", Body=data)
    for source in ("s3://other/models/a", "s3://listed/models-evil/a", "s3://listed/models/../models-evil/a"):
        answer = buckets.post("model-versions/create", name=name, source=source)
        assert 400 <= answer.status_code < 500, answer.text
        assert ways.versions(buckets, name) == []
    answer = buckets.post("model-versions/create", name=name, source="s3://other/models/a")
    assert (answer.status_code, "where the gate does not look" in answer.text) == (403, True), answer.text
    answer = buckets.post("model-versions/create", name=name, source="s3://listed/models/a")
    assert answer.status_code == 200, answer.text
    assert ways.versions(buckets, name) == [1]
    got = mlflow.artifacts.download_artifacts(f"attested:/{name}/1")
    assert Path(got, "model.pkl").read_bytes() == files["model.pkl"]
    client.put_object(Bucket="listed", Key="models/a/model.pkl", Body=b"other bytes")
    ways.unloadable(buckets, f"{name}/1")
    assert [(f.what, f.error is None) for f in ways.findings(buckets, name)] == [("create", False)]


def test_evidence_that_lies_beside_the_model_only_is_found_again_after_a_copy(buckets):
    """The store has never seen it: the gate reads it where the copied version's files lie, and so do loaders."""
    import mlflow

    files, target = buckets.pyfunc(), buckets.fresh("risk-{}-prod")
    source, place = buckets.upload(files)
    name = buckets.fresh()
    buckets.client.create_registered_model(name)
    buckets.client.create_model_version(name, source, model_id=source.removeprefix("models:/"), await_creation_for=0)
    copy = f"models:/{name}/1"
    buckets.refused(lambda: buckets.client.copy_model_version(copy, target), ways.REFUSED, status=500)
    assert ways.versions(buckets, target) == []
    bundle = buckets.prove(files, store=False)
    assert not buckets.authority.store.has(bundle.evidence_id)
    buckets.overwrite(place, "attestations/result.sigstore.json", bundle.raw)
    assert buckets.client.copy_model_version(copy, target).version in (1, "1")
    assert ways.versions(buckets, target) == [1]
    assert ways.champion(buckets, target).status_code == 200
    got = mlflow.artifacts.download_artifacts(f"attested:/{target}@champion")
    assert Path(got, "model.pkl").read_bytes() == files["model.pkl"]


def test_a_storage_that_answers_slowly(buckets, relay):
    """409 while it takes its time, and then the answer; meanwhile other models are judged."""
    name, version, _ = buckets.model(proven=True)
    relay.opened.clear()
    answer = ways.champion(buckets, name)
    assert (answer.status_code, "verification pending" in answer.text) == (409, True), answer.text
    assert ways.champion(buckets, name).status_code == 409
    assert buckets.aliases(name) == {}
    relay.opened.set()
    end = time.monotonic() + 60
    while (answer := ways.champion(buckets, name)).status_code == 409:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text
    assert buckets.aliases(name) == {"champion": version}


def test_a_storage_that_lies_about_sizes(buckets, relay):
    name, version, _ = buckets.model(proven=True)
    relay.lies = True
    answer = ways.champion(buckets, name)
    assert (answer.status_code, "lists other files than it gives" in answer.text) == (403, True), answer.text
    assert "expected 1 bytes" in answer.text
    assert buckets.aliases(name) == {}
    relay.lies = False
    assert ways.champion(buckets, name).status_code == 200


def test_a_storage_that_is_gone(buckets, relay):
    import boto3

    name, _, place = buckets.model(proven=True)
    client = boto3.client(
        "s3", endpoint_url=relay.url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    prefix = "registry/" + place.removeprefix("mlflow-artifacts:/")
    for item in client.list_objects_v2(Bucket="models", Prefix=prefix)["Contents"]:
        client.delete_object(Bucket="models", Key=item["Key"])
    answer = ways.champion(buckets, name)
    assert (answer.status_code, "nothing lies at" in answer.text) == (403, True), answer.text
    assert buckets.aliases(name) == {}


def many(desk, number):
    """A model of `number` files in the server's storage; its URI."""
    place = desk.artifacts / "0" / "models" / uuid.uuid4().hex
    place.mkdir(parents=True)
    (place / "MLmodel").write_bytes(uuid.uuid4().bytes)
    for index in range(number - 1):
        below = place / f"data{index // 1000}"
        if index % 1000 == 0:
            below.mkdir()
            (below / "0").write_bytes(b"x")
        else:
            os.link(below / "0", below / str(index))  # quicker than as many files, and to a reader the same
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("number", "said"), [(100_000, None), (100_001, "too many files")])
def test_a_model_of_very_many_files(desk, number, said):
    from mlseal.evidence.digest import measure

    place = many(desk, number)
    name = desk.fresh()
    desk.store.create_registered_model(name)
    desk.other.create_model_version(name, f"mlflow-artifacts:/{place.relative_to(desk.artifacts)}")
    if said is None:
        desk.prove_subjects(measure(place).subjects)
        desk.store.set_registered_model_alias(name, "champion", "1")
        assert desk.other.get_registered_model(name).aliases == {"champion": 1}
    else:
        desk.refused(lambda: desk.store.set_registered_model_alias(name, "champion", "1"), said)
        assert desk.other.get_registered_model(name).aliases == {}


def test_a_file_that_goes_while_files_are_listed_is_asked_for_again(tmp_path):
    """An upload ends by renaming its first half; whoever listed that half must not answer 403 for it."""
    for name in "ab":
        (tmp_path / name).write_bytes(b"x")
    listing = files._walk(tmp_path)
    first, _ = next(listing)
    for left in {"a", "b"} - {Path(first).name}:
        (tmp_path / left).unlink()
    with pytest.raises(Pending, match="being changed"):
        next(listing)
