"""Take each refusal of the smaller modules out once: what it refuses must come through (`tests.attacks.mutants`).

Decisions, transaction, store and loader have a table with an authority (`test_mutants`); here no server and no key is needed.
A row is a refusal by function and message, a call that it must refuse, and what that then says.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlseal_mlflow import (
    artifact,
    beside,
    entrypoints,
    evaluating,
    files,
    history,
    identity,
    journal,
    listing,
    loading,
    measuring,
    names,
    pickles,
    posture,
    prompts,
    requester,
    standing,
    surface,
    watching,
)
from mlseal_mlflow.store import SealedStore

from mlseal.errors import Refusal
from mlseal.evidence.bundle import MAX_BYTES
from mlseal.evidence.digest import measure
from mlseal.evidence.identity import Identity
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.store import Store
from tests.adapters.mlflow.conftest import Canary
from tests.adapters.mlflow.test_watching import SECRET, signed
from tests.attacks import mutants

Call = Callable[[Any, "Scene"], object]


class Scene:
    """A place on disk, and this row's own patches."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place, self.patch = place, patch
        place.mkdir()
        patch.chdir(place)  # where MLflow leaves a database when it is asked for a storage

    def file(self, name: str, data: bytes = b"x") -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


def env(variable: str, value: str, call: Callable[[Any], object]) -> Call:
    def ask(module: Any, scene: Scene) -> object:
        scene.patch.setenv(variable, value)
        return call(module)

    return ask


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --- artifact, entrypoints, pickles -----------------------------------------------------------------------------------


def attested(module: Any, uri: str = "attested:/risk@champion") -> Any:
    return module.AttestedArtifactRepository(uri)


def _hidden(module: Any, scene: Scene) -> object:
    scene.patch.setattr(module, "_verified", raises(Refusal("not these bytes")))
    return attested(module).download_artifacts("", str(scene.place))


def _outside(module: Any, scene: Scene) -> object:
    scene.file("secret")
    model = scene.file("model/MLmodel").parent
    scene.patch.setattr(loading, "resolve", lambda *_: loading.Use("models:/risk/1", "default", "risk", "1"))
    scene.patch.setattr(loading, "fetch", lambda *_: model)
    scene.patch.setattr(loading, "set_aside", lambda *_: scene.place / "none")
    scene.patch.setattr(loading, "require_allowed", lambda *_: None)
    return module._verified("models:/risk/1", "../secret", scene.place, None, None)


def _unlisted(module: Any, scene: Scene) -> object:
    model = scene.file("model/model.pkl", pickle.dumps(Canary(scene.place / "ran"))).parent
    scene.file("model/MLmodel", b"flavors: {sklearn: {pickled_model: model.pkl}}\n")
    return module.require_listed(model, measure(model, name="model"), scene.place / "expanded")


# --- evaluating -------------------------------------------------------------------------------------------------------


def _unlogged(module: Any, scene: Scene) -> object:
    for name in ("_stage", "_fetched", "_require_same_rows", "_measured", "_put_beside"):
        scene.patch.setattr(module, name, lambda *_: SimpleNamespace(name="x"))
    scene.patch.setattr(module, "_figures", lambda *_: {})
    config = {"stage": "governance.fairness", "arguments": {"dataset": "x"}}
    return module.StageEvaluator().evaluate(model_type="", dataset=None, run_id="", evaluator_config=config)


def _rows(module: Any, scene: Scene) -> object:
    pd.DataFrame({"a": [1, 2]}).to_csv(scene.place / "rows.csv", index=False)
    given = SimpleNamespace(features_data=pd.DataFrame({"a": [1, 3]}), has_targets=False, targets_name=None)
    return module._require_same_rows(scene.place / "rows.csv", given)


# --- watching ------------------------------------------------------------------------------------------------


def _taken(module: Any, scene: Scene) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with module.listening(module.Doorbell(SECRET), "127.0.0.1", other.getsockname()[1]):
            pass


# --- requester --------------------------------------------------------------------------------------------------------


def proxied(address: str = "127.0.0.1", value: str = "ana", **more: str) -> Call:
    def ask(module: Any, scene: Scene) -> object:
        scene.patch.delenv("FORWARDED_ALLOW_IPS", raising=False)
        proxy = module.Proxy("X-Forwarded-User", frozenset({"127.0.0.1"}))
        return proxy.named({"HTTP_X_FORWARDED_USER": value, "REMOTE_ADDR": address, **more})

    return ask


# --- files, journal ---------------------------------------------------------------------------------------------------


def location(module: Any, repository: object) -> Any:
    return module.Location("place", repository, "")


def local(path: object) -> Any:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    return LocalArtifactRepository(str(path))


def _many(module: Any, scene: Scene) -> object:
    scene.patch.setattr(module, "MAX_FILES", 1)
    scene.file("a"), scene.file("b")
    return location(module, local(scene.place)).listing()


def _nothing(module: Any, scene: Scene) -> object:
    return module.Location("place", local(scene.place), "no/such").here()


def _lent(module: Any, scene: Scene) -> object:
    lending = SimpleNamespace(download_artifacts=lambda *_: str(scene.place))
    return location(module, lending).fetch(scene.place / "private")


def _other_size(module: Any, scene: Scene) -> object:
    model = scene.file("model/a").parent
    return location(module, None).require_as_listed([("a", 999)], model)


def _went(module: Any, scene: Scene) -> object:
    scene.patch.setattr(module.os, "walk", lambda *_: [(str(scene.place), [], ["gone"])])
    return list(module._walk(scene.place))


def _root_of_all(module: Any, scene: Scene) -> object:
    scene.patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
    scene.patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(scene.place))
    return module.locate("mlflow-artifacts:/../x")


def unwritable(scene: Scene, module: Any) -> Any:
    made = module.Journal(scene.place / "journal")
    (scene.place / "journal/decisions.jsonl").mkdir()
    return made


def _part(module: Any, scene: Scene) -> object:
    made = module.Journal(scene.place / "journal")
    scene.patch.setattr(module.os, "write", lambda *_: 1)
    return made._append(b"a line\n")


def _swallowed(module: Any, scene: Scene) -> None:
    with module.Journal(scene.place / "journal").noting_refusals({}):
        raise Refusal("who is this")


# --- measuring, standing, surface -------------------------------------------------------------------------------------


def hashing(module: Any, scene: Scene, **limits: Any) -> Any:
    """What hashes, where whoever asks waits for nothing and nothing lies yet."""
    wanted = {"inline_bytes": 10, "max_bytes": 100, "at_once": 1, "wait_seconds": 0, **limits}
    return module.Measuring(scene.place / "state", module.Limits(**wanted), lambda _: None)


def _busy(module: Any, scene: Scene) -> object:
    made = hashing(module, scene)
    assert made._slots.acquire()
    return made._measure(location(files, local(scene.file("model/a").parent)), "x")


def _large(module: Any, scene: Scene) -> object:
    return hashing(module, scene).measured(
        location(files, local(scene.file("model/a", b"x" * 20).parent)), "x", name="x"
    )


def _out_of_order(module: Any, scene: Scene) -> object:
    """Of a storage elsewhere, whoever asks waits for what it says."""
    broken = SimpleNamespace(list_artifacts=raises(OSError("no route to host")))
    return hashing(module, scene, wait_seconds=60).measured(location(files, broken), "x", name="x")


def _hidden_leaf(module: Any, scene: Scene) -> None:
    leaf = Leaf("log", 7, "0" * 64, Identity("issuer", "somebody"))
    module.require_none([leaf], Store(scene.place))


def _examined(module: Any, scene: Scene) -> None:
    later = type("Later", (SqlAlchemyStore,), {"promote_everything": lambda self: None})
    module.require_known(later, AbstractStore, type("Sealed", (SealedStore, later), {}))


def version(text: str | BaseException) -> Call:
    def ask(module: Any, scene: Scene) -> None:
        given = (lambda _: text) if isinstance(text, str) else raises(text)
        scene.patch.setattr(module.importlib.metadata, "version", given)
        module._require_version()

    return ask


ANYBODY = requester.Requester(requester.UNAUTHENTICATED)


def _failing(code: str) -> Callable[[], object]:
    """Ends as MLflow's client does when the server answers with this error."""
    from mlflow.exceptions import RestException

    def ask() -> object:
        raise RestException({"error_code": code, "message": "the server says so"})

    return ask


class _Unanswering:
    """A client whose server cannot say whether it has workspaces."""

    @property
    def store(self) -> object:
        return SimpleNamespace(supports_workspaces=_failing("TEMPORARILY_UNAVAILABLE")())


def _no_workspace(module: Any, scene: Scene) -> object:
    scene.patch.setattr("mlflow.MlflowClient.list_workspaces", lambda self: [])
    client = SimpleNamespace(store=SimpleNamespace(supports_workspaces=True))
    return module.workspaces(client, "http://127.0.0.1:9")


def _many_hidden(module: Any, scene: Scene) -> object:
    """One version that is shown, and a high number that somebody wrote by SQL."""
    ask = _failing("RESOURCE_DOES_NOT_EXIST")
    client = SimpleNamespace(
        get_latest_versions=lambda name: [SimpleNamespace(version=module.MAX_HIDDEN + 2)],
        get_model_version=lambda name, version: ask(),
    )
    return module._hidden(client, "risk", {"1"})


CALLS: dict[Any, dict[str, tuple[Call, str]]] = {
    measuring: {
        "_size: nothing lies at …": (lambda m, s: hashing(m, s)._size(location(files, None), []), "nothing lies at"),
        "_size: this model is larger than the gate hashes": (
            lambda m, s: hashing(m, s)._size(location(files, None), [("a", 101)]),
            "larger than the gate hashes",
        ),
        "_measure: the gate is hashing other models": (_busy, "the gate is hashing other models"),
        "_awaited: ": (_out_of_order, "the storage of this model failed; got OSError: no route to host"),
        "_awaited: verification pending: this model is hashed in the background": (_large, "verification pending"),
        "_fresh: this model could not be hashed in the background": (
            lambda m, s: m._fresh(s.file("result.json", b'{"failed": "a reason"}')),
            "could not be hashed in the background; got a reason",
        ),
    },
    standing: {
        "require_there: the trust root is gone": (
            lambda m, s: m.Root(SimpleNamespace(source=str(s.place / "none"), fingerprint="x")).require_there(),
            "the trust root is gone",
        ),
        "require_none: the log holds evidence that cannot be read here, and it may be against any model": (
            _hidden_leaf,
            "cannot be read here",
        ),
    },
    surface: {
        "require_known: this MLflow is not the one that was examined": (_examined, "new: promote_everything"),
        "require_handlers: MLflow's server cannot be asked for a model's files": (
            lambda m, s: m.require_handlers(object()),
            "cannot be asked for",
        ),
        "require_routes: this MLflow has other registry routes than the one that was examined": (
            lambda m, s: m.require_routes([]),
            "other registry routes",
        ),
        "_require_version: MLflow is not installed": (
            version(PackageNotFoundError("mlflow")),
            "MLflow is not installed",
        ),
        "_require_version: this MLflow was never examined": (version("9.1.0"), "was never examined; got 9.1.0"),
    },
    artifact: {
        "download_artifacts: ": (_hidden, "not these bytes"),
        "log_artifact: ": (lambda m, s: attested(m).log_artifact("x"), "for reading"),
        "log_artifacts: ": (lambda m, s: attested(m).log_artifacts("x"), "for reading"),
        "_split: …": (lambda m, s: attested(m, "attested://host/risk@champion")._split(""), "names a model only"),
        "_verified: the model has no such part": (_outside, "no such part"),
    },
    entrypoints: {"models: …": (env("MLSEAL_MLFLOW_MODELS", "on", lambda m: m.models("models:/x/1")), "not known")},
    pickles: {
        "asked: … has a value that is not known": (
            env("MLSEAL_MLFLOW_PICKLES", "on", lambda m: m.asked()),
            "not known",
        ),
        "require_listed: loading this model could do more than models of its flavour do": (_unlisted, "could do more"),
    },
    evaluating: {
        "of: the evaluator's configuration is not understood": (
            lambda m, s: m.Settings.of({"stage": "x", "arguments": {}, "more": 1}),
            "not understood",
        ),
        "of: the model is the one that is evaluated": (
            lambda m, s: m.Settings.of({"stage": "x", "arguments": {"model": "mine"}}),
            "the one that is evaluated",
        ),
        "evaluate: only a logged model can be evaluated: its bytes are what evidence is about": (
            _unlogged,
            "only a logged model",
        ),
        "_stage: … cannot be asked about a model and these rows": (
            lambda m, s: m._stage(m.Settings("testing.code", {"dataset": "x"})),
            "cannot be asked",
        ),
        "_require_same_rows: … does not hold the rows that MLflow was given": (_rows, "does not hold the rows"),
    },
    watching: {
        "__init__: the webhook's secret is too short": (lambda m, s: m.Doorbell(b"short"), "too short"),
        "deliver: this webhook delivery is not signed with the secret": (
            lambda m, s: m.Doorbell(SECRET).deliver(signed(secret=b"the secret of somebody else"), b"{}"),
            "not signed",
        ),
        "deliver: this webhook delivery is not of now": (
            lambda m, s: m.Doorbell(SECRET).deliver(signed(at=time.time() - 1_000), b"{}"),
            "not of now",
        ),
        "listening: cannot listen for webhooks": (_taken, "cannot listen"),
    },
    listing: {
        "workspaces: the server shows no workspace": (_no_workspace, "shows no workspace"),
        "_hidden: too many versions of … are hidden by the tag of prompts": (_many_hidden, "hidden by the tag"),
        "_unless_gone: ": (lambda m, s: m._unless_gone(_failing("INTERNAL_ERROR")), "the server says"),
        "_has_workspaces: ": (lambda m, s: m._has_workspaces(_Unanswering()), "the server says"),
    },
    history: {"moment: no moment": (lambda m, s: m.moment("soon"), "no moment")},
    posture: {
        "answer: mlseal: …": (lambda m, s: m.answer([m.Check("store", False, "no")], "default"), "cannot decide"),
        "require_other: no model may have this name": (lambda m, s: m.require_other(m.NAME), "may have this name"),
    },
    requester: {
        "named: … from …": (proxied(address="10.0.0.9"), "nothing shows"),
        "named: X-Forwarded-For, by which uvicorn lets an address be claimed": (
            proxied(HTTP_X_FORWARDED_FOR="127.0.0.1"),
            "nothing shows",
        ),
        "named: …: …": (proxied(value="ana,boss"), "nothing shows"),
        "current: this server decides only for a user whom a login vouches for": (
            lambda m, s: m.Asking(required=True).current(),
            "a login vouches for",
        ),
        "configured: … cannot be read": (env(requester.REQUIRED, "yes", lambda m: m.configured()), "cannot be read"),
        "_proxy: … lists no addresses": (lambda m, s: m._proxy("X-User somewhere"), "lists no addresses"),
        "_proxy: … names no header": (lambda m, s: m._proxy("X_User 127.0.0.1"), "names no header"),
    },
    identity: {
        "gates: … cannot be read": (env(identity.VARIABLE, "one", lambda m: m.gates(SimpleNamespace(logs=()))), "read"),
        "gates: nothing says who the gate is": (lambda m, s: m.gates(SimpleNamespace(logs=())), "nothing says"),
    },
    names: {
        "_matching: this … has a spelling that could be mistaken for another": (
            lambda m, s: m.alias("ｃhamp"),
            "mistaken",
        ),
    },
    prompts: {
        "content: this prompt version has no text": (lambda m, s: m.content({}), "has no text"),
        "_json: tag … of this prompt version is not JSON": (lambda m, s: m._json("key", "{"), "is not JSON"),
    },
    files: {
        "listing: … holds too many files": (_many, "too many"),
        "here: nothing lies at …": (_nothing, "nothing lies"),
        "fetch: … was not copied but lent": (_lent, "but lent"),
        "require_as_listed: the storage lists other files than it gives": (_other_size, "lists other files"),
        "_walk: the model's files are being changed": (_went, "being changed"),
        "locate: … is not the place of one model": (_root_of_all, "not the place"),
        "locate: this model lies where the gate does not look": (lambda m, s: m.locate("s3://evil/x"), "does not look"),
    },
    journal: {
        "note: the decision log cannot be written": (
            lambda m, s: unwritable(s, m).note(ANYBODY, {}, "allowed"),
            "cannot be written",
        ),
        "noting_refusals: ": (_swallowed, "who is this"),
        "require_writable: the decision log cannot be written": (
            lambda m, s: unwritable(s, m).require_writable(),
            "cannot be written",
        ),
        "_append: …": (_part, "in part"),
    },
}
ROWS = [(module, where) for module, calls in CALLS.items() for where in calls]


@pytest.mark.parametrize("module", CALLS, ids=lambda module: module.__name__)
def test_every_refusal_is_in_the_table(module: Any) -> None:
    assert sorted(mutants.names(module)) == sorted(CALLS[module])


@pytest.mark.parametrize(("module", "where"), ROWS, ids=[f"{m.__name__}.{where}" for m, where in ROWS])
def test_taking_a_refusal_out_lets_something_through(
    module: Any, where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call, words = CALLS[module][where]
    with monkeypatch.context() as patch:
        with pytest.raises(Exception, match=words):
            call(module, Scene(tmp_path / "whole", patch))
    with monkeypatch.context() as patch:
        try:
            call(mutants.mutant(module, where), Scene(tmp_path / "mutant", patch))
        except Exception as error:  # it stumbles: the refusal was what said why
            assert words not in str(error)


BOUNDS = {
    "file.is_symlink() or ": "False or ",
    "not file.is_file() or file.is_symlink()": "not file.is_file()",
    ", MAX_FOUND)": ", 1 << 30)",
    " and len(line) <= MAX_BYTES": "",
    "with contextlib.suppress(Error):": "if True:",
    "except Unreadable as error:": "except ZeroDivisionError as error:",
    " or file.name.startswith(without)": "",
}
"""What keeps others' files beside a model from being taken for evidence, and what would let them."""


@pytest.mark.parametrize("kept", BOUNDS)
def test_taking_a_bound_out_of_beside_changes_what_is_found(kept: str, tmp_path: Path) -> None:
    golden = next((Path(__file__).parents[2] / "golden").rglob("*.sigstore.json")).read_bytes()
    source = Path(beside.__file__).read_text()
    assert source.count(kept) == 1
    less: dict[str, Any] = {"__name__": beside.__name__}
    exec(compile(source.replace(kept, BOUNDS[kept]), beside.__file__, "exec"), less)
    place, elsewhere = tmp_path / "attestations", tmp_path / "elsewhere.json"
    place.mkdir()
    elsewhere.write_bytes(golden)
    for name in ("one", "verdict-1"):
        (place / f"{name}.json").write_bytes(golden)
    (place / "link.json").symlink_to(elsewhere)
    (place / "empty.json").touch()

    def found(module: dict[str, Any]) -> list[int | str]:
        try:
            taken = list(module["bundles"](place, without="verdict-"))
            return [len(taken), *(bundle.evidence_id for bundle in module["parsed"](taken))]
        except Exception as error:
            return [str(error)]

    different = []
    for make in (
        lambda: None,
        lambda: (place / "claims.jsonl").symlink_to(elsewhere),
        lambda: (place / "claims.jsonl").write_bytes((golden + b"\n") * 200),
        lambda: (place / "claims.jsonl").write_bytes(b"x" * (MAX_BYTES + 2)),
        lambda: (place / "claims.jsonl").write_bytes(b"{}\n"),
    ):
        with contextlib.suppress(FileNotFoundError):
            (place / "claims.jsonl").unlink()
        make()
        different.append(found(vars(beside)) != found(less))
    assert any(different), "nothing notices"
