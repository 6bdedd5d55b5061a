"""Registering a version: what a window closes, what is hashed ahead, and that a large or odd model gets a clear answer.

The store runs in this process (`module_desk`), over a real authority and a real database.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from contextlib import contextmanager

import pytest
from mlseal_mlflow import loading, measuring, recorder, store
from mlseal_mlflow.measuring import Limits, Measuring

from mlseal.errors import Refusal
from mlseal.policy import load
from tests.adapters.mlflow.test_toctou import after_the_verdict

FREELY = '\n  - {tool: mlflow, action: create, model: "risk-free-*", owner: tests, until: "2100-01-01T00:00:00Z"}'
FROZEN = """
freeze:
  - {tool: mlflow, action: ACTION, model: "risk-*", from: "2000-01-01T00:00:00Z", until: "2100-01-01T00:00:00Z",
     owner: the change board, reason: year end}
"""


@pytest.fixture
def desk(module_desk, monkeypatch):
    """Versions of some models may be registered freely."""
    governed(module_desk, monkeypatch)
    return module_desk


def text(desk):
    return desk.policy.read_text().replace("ungoverned:", f"ungoverned:{FREELY}")


def governed(desk, monkeypatch, more="", beneath=b""):
    """The policy of this desk, for one test: `more` at its end, over `beneath`."""
    policy = load.parse((text(desk) + more).encode(), find=lambda _: beneath)
    monkeypatch.setattr(desk.store.decisions, "policies", (policy,))


def hashing(desk, monkeypatch, place, **limits):
    """What hashes for this desk, for one test: models over 2,000 bytes in the background."""
    decisions = desk.store.decisions
    made = Measuring(place, Limits(**{"inline_bytes": 2000, **limits}), decisions.notice)
    monkeypatch.setattr(decisions, "_measuring", made)
    return made


def free(desk):
    """A name under which versions may be registered."""
    return desk.fresh("risk-free-{}")


def large(desk, size=5000):
    return {**desk.pyfunc(), "weights.bin": os.urandom(size)}


def register(desk, uri, name=None):
    """A new model with a version of these files, made through the gate."""
    name = name or free(desk)
    desk.store.create_registered_model(name)
    desk.store.create_model_version(name, uri)
    return name


def versions(desk, name):
    return sorted(int(found.version) for found in desk.other.search_model_versions(f"name='{name}'"))


def aliases(desk, name):
    return desk.other.get_registered_model(name).aliases


def promote(desk, name):
    desk.store.set_registered_model_alias(name, "champion", "1")


def until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def results(place):
    return list(place.glob("*.json"))


def not_pending(desk, call):
    """`call`, again while it is answered 409."""
    from mlflow.exceptions import MlflowException

    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except MlflowException as error:
            if error.get_http_status_code() != 409:
                raise
            assert time.monotonic() < end, error
            time.sleep(0.02)


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_window_closes_registration_that_is_free_otherwise(desk, monkeypatch):
    uri, name = desk.put(), free(desk)
    governed(desk, monkeypatch, FROZEN.replace("ACTION", "create"))
    desk.refused(lambda: register(desk, uri, name), "frozen until 2100-01-01T00:00:00Z: year end", "the change board")
    assert versions(desk, name) == []
    governed(desk, monkeypatch, FROZEN.replace("ACTION", "create").replace("2100-01", "2020-01"))
    desk.store.create_model_version(name, uri)
    assert versions(desk, name) == [1]


def test_a_window_of_a_layer_beneath_closes_it_too(desk, monkeypatch):
    """The organization's window holds for a team whose own policy lets versions be registered freely."""
    base = text(desk).replace("policy: tests/1", "policy: organization/1").encode()
    window = base + FROZEN.replace("ACTION", "create").encode()
    for beneath, left in ((window, []), (base, [1])):
        extends = f"\nextends: {{policy: organization/1, sha256: {hashlib.sha256(beneath).hexdigest()}}}\n"
        governed(desk, monkeypatch, extends, beneath)
        uri, name = desk.put(), free(desk)
        if left:
            register(desk, uri, name)
        else:
            desk.refused(lambda uri=uri, name=name: register(desk, uri, name), "frozen until 2100-01-01T00:00:00Z")
        assert versions(desk, name) == left


def test_a_window_of_a_layer_beneath_closes_loading(desk, monkeypatch, tmp_path):
    beneath = text(desk).replace("policy: tests/1", "policy: organization/1") + FROZEN.replace("ACTION", "load")
    (tmp_path / "organization.yaml").write_text(beneath)
    extends = f"\nextends: {{policy: organization/1, sha256: {hashlib.sha256(beneath.encode()).hexdigest()}}}\n"
    (tmp_path / "team.yaml").write_text(text(desk) + extends)
    monkeypatch.setenv("MLSEAL_POLICY", str(tmp_path / "team.yaml"))
    files = desk.pyfunc()
    desk.prove(files)
    use = loading.Use("models:/risk-x/1", "default", "risk-x", "1", alias="champion")
    with pytest.raises(Refusal, match="frozen until 2100-01-01T00:00:00Z: year end"):
        loading.require_allowed(desk.measured(files), use, tmp_path / "none")


def test_a_window_closes_the_promotion_of_what_is_proven(desk, monkeypatch):
    name = register(desk, desk.put())
    governed(desk, monkeypatch, FROZEN.replace("ACTION", "alias"))
    desk.refused(lambda: promote(desk, name), "frozen until 2100-01-01T00:00:00Z: year end")
    assert aliases(desk, name) == {}
    governed(desk, monkeypatch)
    promote(desk, name)
    assert aliases(desk, name) == {"champion": 1}


# --- hashed ahead -----------------------------------------------------------------------------------------------------


def test_a_large_model_is_hashed_once_it_is_registered(desk, monkeypatch, tmp_path):
    """A promotion finds it done: it is never told to wait. What is small is not hashed ahead."""
    hashing(desk, monkeypatch, tmp_path / "m")
    register(desk, desk.put())
    name = register(desk, desk.put(large(desk)))
    until(lambda: results(tmp_path / "m"))
    assert len(results(tmp_path / "m")) == 1
    promote(desk, name)
    assert aliases(desk, name) == {"champion": 1}


def test_one_whose_registration_was_judged_is_hashed_for_its_promotion(desk, monkeypatch, tmp_path):
    hashing(desk, monkeypatch, tmp_path / "m")
    name, uri = desk.fresh("risk-{}-prod"), desk.put(large(desk))
    desk.store.create_registered_model(name)
    desk.refused(lambda: desk.store.create_model_version(name, uri), "verification pending", status=409)
    assert versions(desk, name) == []
    not_pending(desk, lambda: desk.store.create_model_version(name, uri))
    until(lambda: len(results(tmp_path / "m")) == 2)
    promote(desk, name)
    assert aliases(desk, name) == {"champion": 1}


def test_bytes_that_came_after_the_registration_are_hashed_anew(desk, monkeypatch, tmp_path):
    hashing(desk, monkeypatch, tmp_path / "m")
    uri = desk.put(large(desk))
    name = register(desk, uri)
    until(lambda: results(tmp_path / "m"))
    (desk.artifacts / uri.removeprefix("mlflow-artifacts:/") / "weights.bin").write_bytes(os.urandom(6000))
    desk.refused(lambda: promote(desk, name), "verification pending", status=409)
    desk.refused(lambda: not_pending(desk, lambda: promote(desk, name)), "no test-result evidence")
    assert aliases(desk, name) == {}


def test_too_much_at_once_refuses_no_registration(desk, monkeypatch, tmp_path, caplog):
    """One is hashed, one waits, one does not fit: all are registered, and each is promoted in the end."""
    monkeypatch.setattr(recorder, "_QUEUED", 1)
    made = hashing(desk, monkeypatch, tmp_path / "m", at_once=1, wait_seconds=0)
    with held(made):
        names = [register(desk, desk.put(large(desk)))]
        until(made._registered._queue.empty)  # begun, and waiting for its turn
        names += [register(desk, desk.put(large(desk))) for _ in range(2)]
        assert "hashing what was registered: too much at once, one was dropped" in caplog.text
        assert [versions(desk, name) for name in names] == [[1], [1], [1]]
        for name in names:
            desk.refused(lambda name=name: promote(desk, name), "verification pending", status=409)
            assert aliases(desk, name) == {}
    for name in names:
        not_pending(desk, lambda name=name: promote(desk, name))
        assert aliases(desk, name) == {"champion": 1}


def test_what_cannot_be_hashed_ahead_is_registered_all_the_same(desk, monkeypatch, tmp_path, caplog):
    made = hashing(desk, monkeypatch, tmp_path / "m", max_bytes=4000)
    caplog.set_level("INFO", logger="mlseal_mlflow.store")
    elsewhere, too_large = register(desk, "s3://elsewhere/model"), register(desk, desk.put(large(desk)))
    assert made._registered.drain(60)
    assert (
        f"{elsewhere} version 1 is hashed when it is promoted: this model lies where the gate does not" in caplog.text
    )
    assert "hashing what was registered failed: this model is larger than the gate hashes" in caplog.text
    assert results(tmp_path / "m") == []
    desk.refused(lambda: promote(desk, too_large), "larger than the gate hashes", "MLSEAL_MLFLOW_MAX_BYTES")
    desk.refused(lambda: promote(desk, elsewhere), "lies where the gate does not look")
    assert [(versions(desk, name), aliases(desk, name)) for name in (elsewhere, too_large)] == [([1], {})] * 2


# --- what a promotion is told while, and after, files are hashed --------------------------------------------------------


@contextmanager
def held(made):
    """All places where this gate hashes are taken."""
    for _ in range(made._limits.at_once):
        assert made._slots.acquire(timeout=60)
    try:
        yield
    finally:
        for _ in range(made._limits.at_once):
            made._slots.release()


def test_while_others_are_hashed_the_answer_is_409(desk, monkeypatch, tmp_path):
    """For a small model at once; one that waited in the background in vain is not taken for a broken one."""
    made = hashing(desk, monkeypatch, tmp_path / "m", at_once=1, wait_seconds=0)
    monkeypatch.setattr(made, "ahead", lambda *_, **__: None)
    small, big = register(desk, desk.put()), register(desk, desk.put(large(desk)))
    with held(made):
        desk.refused(lambda: promote(desk, small), "is pending: the gate is hashing other models", status=409)
        for _ in range(2):
            desk.refused(lambda: promote(desk, big), "verification pending", status=409)
            until(lambda: not locked(tmp_path / "m"))
        assert (aliases(desk, small), aliases(desk, big), results(tmp_path / "m")) == ({}, {}, [])
    for name in (small, big):
        not_pending(desk, lambda name=name: promote(desk, name))
        assert aliases(desk, name) == {"champion": 1}


def locked(place):
    """Whether anything is being hashed."""
    import fcntl

    for file in place.glob("*.lock"):
        with file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    return False


def test_a_failure_in_the_background_is_told_to_the_next_who_asks(desk, monkeypatch, tmp_path):
    """A link that leads out of the model is refused; once it is gone, the model is promoted."""
    hashing(desk, monkeypatch, tmp_path / "m")
    uri = desk.put(large(desk))
    link = desk.artifacts / uri.removeprefix("mlflow-artifacts:/") / "passwords"
    link.symlink_to("/etc/passwd")
    name = register(desk, uri)
    desk.refused(lambda: promote(desk, name), "verification pending", status=409)
    desk.refused(
        lambda: not_pending(desk, lambda: promote(desk, name)),
        "this model could not be hashed in the background",
        "passwords",
    )
    assert aliases(desk, name) == {}
    link.unlink()
    monkeypatch.setattr(measuring, "FAILURE_SECONDS", 0)  # for so long it is told
    not_pending(desk, lambda: promote(desk, name))
    assert aliases(desk, name) == {"champion": 1}


def test_a_storage_that_cannot_be_reached(desk, monkeypatch, tmp_path):
    hashing(desk, monkeypatch, tmp_path / "m")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        for key, value in {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(desk.store.decisions, "_sources", ("s3://models",))
        name = register(desk, "s3://models/risk")
        desk.refused(lambda: promote(desk, name), "the storage of this model failed", "see that the server reaches it")
    assert aliases(desk, name) == {}


# --- what changes, and how much -----------------------------------------------------------------------------------------


def test_a_logged_model_that_is_moved_before_its_version_is_written(desk, monkeypatch):
    """Somebody with the tracking database points it elsewhere, right after the gate said yes."""
    import sqlalchemy
    from mlflow import MlflowClient

    logged = MlflowClient().create_logged_model("0", name="model").model_id
    name, engine = desk.fresh("risk-{}-prod"), sqlalchemy.create_engine(desk.database)

    def place(uri):
        with engine.begin() as connection:
            change = "update logged_models set artifact_location = :uri where model_id = :id"
            connection.execute(sqlalchemy.text(change), {"uri": uri, "id": logged})

    place(desk.put())
    desk.store.create_registered_model(name)
    after_the_verdict(desk, monkeypatch, lambda: place(desk.put(proven=False)))
    create = lambda: desk.store.create_model_version(name, f"models:/{logged}", model_id=logged)  # noqa: E731
    desk.refused(create, "the source leads elsewhere now", status=409)
    assert versions(desk, name) == []
    desk.refused(create, "no test-result evidence")
    assert versions(desk, name) == []


def test_a_rename_of_very_many_versions(desk, monkeypatch):
    monkeypatch.setattr(store, "MAX_RENAMED_VERSIONS", 1)
    uri, new = desk.put(), desk.fresh("risk-{}-prod")
    name = register(desk, uri)
    desk.store.create_model_version(name, uri)
    rename = lambda: desk.store.rename_registered_model(name, new)  # noqa: E731
    desk.refused(rename, "too many versions to judge at once; got 2; expected at most 1", status=400)
    assert versions(desk, name) == [1, 2]
    desk.other.delete_model_version(name, "2")
    rename()
    assert versions(desk, new) == [1]
