"""A real `mlflow server` with two workers, gated by a real trust service, and clients over HTTP.

`shop`    the shared server with policy, evidence store and what tests need to make evidence
`new_shop` a factory for tests that want their own server, environment or policy
`desk`    no server: the store in this process (`module_desk`: one for all tests of a module)
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

POLICY = """\
policy: tests/1
applies:
  - {{tool: mlflow, action: alias, alias: champion, model: "risk-*", workspace: "*"}}
  - {{tool: mlflow, action: stage, model: "risk-*", workspace: "*"}}
  - {{tool: mlflow, action: create, model: "*-prod", workspace: "*"}}
  - {{tool: mlflow, action: alias, model: "*-prod", workspace: "*"}}
  - {{tool: mlflow, action: stage, model: "*-prod", workspace: "*"}}
  - {{tool: mlflow, action: rename, model: "*-prod", workspace: "*"}}
  - {{tool: mlflow, action: alias, model: "prompt-*", workspace: "*"}}
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers:
  - {{issuer: "{issuer}", san: "{monitor}"}}
ungoverned:
  - {{tool: mlflow, action: create, source: "models:/m-*", owner: tests, until: "2100-01-01T00:00:00Z"}}
  - {{tool: mlflow, action: create, model: "prompt-*", owner: tests, until: "2100-01-01T00:00:00Z"}}
  - {{tool: mlflow, action: alias, alias: scratch, model: "*", workspace: "*", owner: tests, until: "2100-01-01T00:00:00Z"}}
require:
  - predicate: test-result
    by: [{{issuer: "{issuer}", san: "{evaluator}"}}]
    when:
      - {{id: passed, message: "the tests of this model did not pass", check: 'p.result == "PASSED"'}}
"""


LOADER = b"""\
import pickle


class Model:
    def __init__(self, value):
        self.value = value

    def predict(self, data, params=None):
        return self.value["payload"]


def _load_pyfunc(path):
    with open(path, "rb") as file:
        return Model(pickle.load(file))
"""


@dataclass
class Shop:
    """A gated MLflow server and everything around it."""

    authority: Any
    base: Path
    policy: Path
    env: dict[str, str]
    arguments: tuple[str, ...] = ()
    workers: int = 2
    prefix: tuple[str, ...] = ()
    database: str = ""
    auth: tuple[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    experiment: str = "0"
    url: str = ""
    server: Any = None
    store: Any = None
    other: Any = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.base / "server.log"
        self.database = self.database or f"sqlite:///{self.base}/registry.db"

    @property
    def artifacts(self) -> Path:
        """Where the server keeps what it proxies."""
        return self.base / "artifacts"

    @property
    def registry(self) -> str:
        """The registry store; without ``mlseal:`` there is no gate."""
        return f"mlseal:{self.database}"

    def command(self, port: int) -> list[str]:
        from mlseal_mlflow import serving

        return serving.command(
            self.base, self.registry, host="127.0.0.1", port=port, workers=self.workers, more=self.arguments
        )

    def start(self) -> None:
        """Start the server and wait until the registry answers."""
        from mlseal_mlflow import serving

        self.server = serving.start(
            self.base,
            registry=self.registry,
            workers=self.workers,
            more=self.arguments,
            prefix=self.prefix,
            env=self.env,
            log=self.log,
        )
        self.url = self.server.url

    def stop(self) -> None:
        """End the server with its workers."""
        if self.server is not None:
            self.server.stop()
            self.server = None

    # -- the client's side --------------------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """An MLflow client that speaks to the server over HTTP."""
        from mlflow import MlflowClient

        return MlflowClient(self.url, self.url)

    def post(self, route: str, **body: Any) -> Any:
        """A raw REST call, as a browser would make it."""
        return self.call("POST", route, body)

    def call(self, method: str, route: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        import requests

        url, more = f"{self.url}/api/2.0/mlflow/{route}", {"headers": self.headers | (headers or {}), "auth": self.auth}
        return requests.request(method, url, json=body, timeout=60, **more)

    def fresh(self, pattern: str = "risk-{}") -> str:
        """A model name that no other test uses."""
        return pattern.format(uuid.uuid4().hex[:10])

    def upload(self, files: dict[str, bytes]) -> tuple[str, str]:
        """Log a model with these files through the artifact proxy; returns (source, storage URI)."""
        logged = self.client.create_logged_model(self.experiment, name="model")
        for name, data in files.items():
            self.overwrite(logged.artifact_location, name, data)
        self.client.finalize_logged_model(logged.model_id, "READY")
        return f"models:/{logged.model_id}", logged.artifact_location

    def overwrite(self, place: str, name: str, data: bytes) -> None:
        """What anyone who reaches the server may do to stored files."""
        import requests

        place = place.removeprefix("mlflow-artifacts:/")
        url, more = f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{place}/{name}", {"headers": self.headers}
        answer = requests.put(url, data=data, auth=self.auth, timeout=30, **more)
        assert answer.status_code == 200, answer.text

    def model(
        self, files: dict[str, bytes] | None = None, *, name: str | None = None, proven: bool = False
    ) -> tuple[str, str, str]:
        """A registered model with one version: (name, version, storage URI)."""
        name = name or self.fresh()
        contents = files or pyfunc_model()
        source, uri = self.upload(contents)
        self.client.create_registered_model(name)
        version = self.client.create_model_version(
            name, source, model_id=source.removeprefix("models:/"), await_creation_for=0
        ).version
        if proven:
            self.prove(contents)
        return name, str(version), uri

    def refused(self, call: Callable[[], Any], *words: str, status: int = 403) -> str:
        """Assert that `call` is refused with `status` and a message that holds `words`; returns the message."""
        from mlflow.exceptions import MlflowException

        with pytest.raises(MlflowException) as caught:
            call()
        message = str(caught.value)
        assert caught.value.get_http_status_code() == status, message
        for word in words:
            assert word in message, message
        return message

    def put(self, files: dict[str, bytes] | None = None, *, proven: bool = True) -> str:
        """Files in storage, past any server; returns their URI."""
        files, place = files or pyfunc_model(), f"0/models/{uuid.uuid4().hex}"
        for name, data in files.items():
            file = self.artifacts / place / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if proven:
            self.prove(files)
        return f"mlflow-artifacts:/{place}"

    def files_of(self, uri: str) -> dict[str, bytes]:
        """What lies in storage now."""
        root = self.artifacts / uri.removeprefix("mlflow-artifacts:/")
        return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}

    @staticmethod
    def pyfunc(payload: object = None) -> dict[str, bytes]:
        """The files of a new pyfunc model."""
        return pyfunc_model(payload)

    @staticmethod
    def canary(file: Path) -> bytes:
        """A pickle that creates `file` when it is read."""
        return pickle.dumps(Canary(file))

    # -- evidence -----------------------------------------------------------------------------------------------------

    def measured(self, files: dict[str, bytes]) -> Any:
        """The subjects of a model with these files."""
        from mlseal.evidence.digest import measure

        place = self.base / "measured" / uuid.uuid4().hex / "model"
        for name, data in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
        return measure(place)

    def prove(
        self, files: dict[str, bytes], *, result: str = "PASSED", role: str = "evaluator", store: bool = True
    ) -> Any:
        """A test result about these files, signed by `role`."""
        return self.prove_subjects(self.measured(files).subjects, result=result, role=role, store=store)

    def prove_subjects(
        self, subjects: Any, *, result: str = "PASSED", role: str = "evaluator", store: bool = True
    ) -> Any:
        from mlseal.evidence import statement
        from mlseal.evidence.predicates import test_result

        predicate = {"result": result, "configuration": [{"name": uuid.uuid4().hex, "digest": {"sha256": "0" * 64}}]}
        signer = self.authority.signer(role) if store else self.authority.signer(role, store=None)
        return signer.sign(statement.make(subjects, test_result.URI, predicate))

    def archive(self) -> Any:
        """The archive as the gate sees it."""
        from mlseal.evidence.archive import Archive

        return Archive.open(self.authority.trust, self.authority.store)

    def snapshot(self) -> None:
        """The monitor states afresh what is revoked."""
        from mlseal.evidence import revoking

        revoking.snapshot(self.archive(), self.authority.signer("monitor"), valid_for=timedelta(hours=24))

    def revoke(self, evidence_id: str, *, role: str = "monitor") -> None:
        """`role` takes evidence back."""
        from mlseal.evidence import revoking

        archive = self.archive()
        archive.refresh()
        revoking.revoke(archive, self.authority.signer(role), evidence_id, reason="withdrawn")

    def aliases(self, name: str) -> dict[str, str]:
        """The registry's own answer, read after the attack."""
        return {item["alias"]: item["version"] for item in self.registered(name).get("aliases", [])}

    def registered(self, name: str) -> dict[str, Any]:
        """A registered model as the server shows it, prompts too."""
        answer = self.call("GET", f"registered-models/get?name={name}", {})
        assert answer.status_code == 200, answer.text
        return answer.json()["registered_model"]

    def tags(self, name: str, version: str) -> dict[str, str]:
        """The tags of a version, as the server shows them."""
        answer = self.call("GET", f"model-versions/get?name={name}&version={version}", {})
        return {item["key"]: item["value"] for item in answer.json()["model_version"].get("tags", [])}

    def set_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Set a version's tag; raises as MLflow's client does."""
        from mlflow.entities.model_registry import ModelVersionTag
        from mlflow.tracking._model_registry.client import ModelRegistryClient

        ModelRegistryClient(self.url, self.url).store.set_model_version_tag(name, version, ModelVersionTag(key, value))

    def delete_tag(self, name: str, version: str, key: str) -> None:
        """Delete a version's tag; raises as MLflow's client does."""
        from mlflow.tracking._model_registry.client import ModelRegistryClient

        ModelRegistryClient(self.url, self.url).store.delete_model_version_tag(name, version, key)


def pyfunc_model(payload: object = None) -> dict[str, bytes]:
    """A pyfunc model whose prediction is its payload; each call makes other bytes."""
    mark = uuid.uuid4().hex
    return {
        "MLmodel": b"flavors:\n  python_function:\n    loader_module: canary_loader\n    data: model.pkl\n    code: code\n"
        b'    python_version: "3.11"\n',
        "code/canary_loader.py": LOADER,
        "model.pkl": pickle.dumps({"mark": mark, "payload": payload}),
    }


class Canary:
    """Unpickling this runs code."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


def require_mlflow() -> None:
    assert importlib.util.find_spec("mlflow"), "these tests need mlflow: pip install 'mlseal[mlflow]'"


def build(
    authority: Any,
    base: Path,
    *,
    policy: str = POLICY,
    workers: int = 2,
    arguments: tuple[str, ...] = (),
    database: str = "",
    **env: str,
) -> Shop:
    """A server that is not started yet."""
    require_mlflow()
    base.mkdir(parents=True, exist_ok=True)
    temporary = base / "tmp"
    temporary.mkdir()
    file = base / "policy.yaml"
    file.write_text(
        policy.format(
            issuer=authority.issuer,
            monitor=authority.san("monitor"),
            evaluator=authority.san("evaluator"),
            alice=authority.san("reviewer/alice"),
        )
    )
    environment = authority.env | {
        "MLSEAL_TRUST": str(authority.trust_config),
        "MLSEAL_POLICY": str(file),
        "MLSEAL_STORE": str(authority.store),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "TMPDIR": str(temporary),
        **env,
    }
    environment = {key: value for key, value in environment.items() if value}
    return Shop(authority, base, file, environment, arguments, workers, database=database)


@pytest.fixture
def shop(_shop: Shop, home: Any, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shared server; the test's own process is a client with the same trust root and evidence store.

    Tests that revoke, withhold or break things make their own (`new_shop`): the log is shared.
    """
    enter(_shop, monkeypatch)
    return _shop


@pytest.fixture(scope="session")
def _shop(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with opened(pytestconfig, tmp_path_factory.mktemp("shop")) as one:
        yield one


@pytest.fixture(scope="module")
def module_shop(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Shop]]:
    """Makes a server for the tests of one module; each of them must `enter` it."""
    with ExitStack() as stack:
        yield lambda **kwargs: stack.enter_context(opened(pytestconfig, tmp_path_factory.mktemp("shop"), **kwargs))


@contextmanager
def opened(pytestconfig: pytest.Config, base: Path, **kwargs: Any) -> Iterator[Shop]:
    """A running server with a trust service of its own."""
    shared = next(plugin for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "_new_authority"))
    authority = shared._new_authority()
    one = build(authority, base, **kwargs)
    try:
        with pytest.MonkeyPatch.context() as patch:
            enter(one, patch)
            authority.start()
            one.snapshot()
            one.start()
        yield one
    finally:
        one.stop()
        shared._remove(authority)
        shutil.rmtree(one.base, ignore_errors=True)


@pytest.fixture
def new_shop(new_authority: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Shop]]:
    """Makes servers for this test alone, each with a trust service of its own; ``start=False`` leaves the server out."""
    made: list[Shop] = []

    def make(*, start: bool = True, **kwargs: Any) -> Shop:
        made.append(build(new_authority(), tmp_path / f"shop{len(made)}", **kwargs))
        enter(made[-1], monkeypatch)
        if start:
            made[-1].snapshot()
            made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


@contextmanager
def at_desk(shop: Shop, patch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The store of `shop` in this process, and a second session on the same database; the shop needs no server."""
    import mlflow
    from mlflow.server import handlers
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlseal_mlflow.store import build_store

    at_home(shop, patch)
    patch.setattr(handlers, "_artifact_repo", None)
    database = shop.database
    mlflow.set_tracking_uri(database)
    try:
        shop.store = build_store(f"mlseal:{database}")
        shop.other = SqlAlchemyStore(database)  # whoever else writes: another worker, after its own verdict
        yield shop
    finally:
        mlflow.set_tracking_uri(None)


def at_home(shop: Shop, patch: pytest.MonkeyPatch) -> None:
    """This process as one of the server's: its environment, and where it keeps what it serves."""
    enter(shop, patch)
    for key, value in shop.env.items():
        patch.setenv(key, value)
    patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(shop.artifacts))


@pytest.fixture
def desk(new_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop without server, its store in this process."""
    shop = new_shop(start=False)
    shop.snapshot()
    with at_desk(shop, monkeypatch) as one:
        yield one


@pytest.fixture(scope="module")
def _module_desk(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shared = next(plugin for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "_new_authority"))
    authority = shared._new_authority()
    try:
        with pytest.MonkeyPatch.context() as patch:
            one = build(authority, tmp_path_factory.mktemp("desk"))
            enter(one, patch)
            authority.start()
            one.snapshot()
            with at_desk(one, patch):
                yield one
    finally:
        shared._remove(authority)


@pytest.fixture
def module_desk(_module_desk: Shop, home: Any, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The same for all tests of a module."""
    at_home(_module_desk, monkeypatch)
    return _module_desk


@pytest.fixture(name="enter")
def enter_fixture(home: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Shop], Shop]:
    """Makes this test's process a client of a shop."""

    def _enter(shop: Shop) -> Shop:
        enter(shop, monkeypatch)
        return shop

    return _enter


def enter(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in shop.authority.home.env.items():
        if key.startswith(("HOME", "XDG_")):
            monkeypatch.setenv(key, value)
    for key in ("MLSEAL_TRUST", "MLSEAL_STORE"):
        monkeypatch.setenv(key, shop.env[key])
    if shop.auth:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", shop.auth[0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", shop.auth[1])
    if "X-MLFLOW-WORKSPACE" in shop.headers:
        monkeypatch.setenv("MLFLOW_WORKSPACE", shop.headers["X-MLFLOW-WORKSPACE"])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def client(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """This process as a client of the server, as a serving job would be."""
    import mlflow

    monkeypatch.setattr(sys, "path", list(sys.path))  # pyfunc puts a model's code there
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(shop.url)
    mlflow.set_registry_uri(shop.url)
    yield mlflow
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(None)
    sys.modules.pop("canary_loader", None)
