"""Who asked: the user whose password MLflow's own basic-auth checked, by pseudonym in what is signed, by name here."""

from __future__ import annotations

import configparser
import json
import threading
import time
from pathlib import Path

import pytest
import requests
from mlseal_mlflow import requester
from mlseal_mlflow.journal import Journal
from mlseal_mlflow.requester import BASIC_AUTH, Asking, Requester

PASSWORD = "a long password of bob"
ADMIN = ("admin", "a long password of the admin")


@pytest.fixture
def guarded(new_shop, tmp_path, monkeypatch):
    """A server behind MLflow's basic-auth, with the user bob; this process asks as bob."""
    config = configparser.ConfigParser()
    config["mlflow"] = {
        "default_permission": "MANAGE",
        "database_uri": f"sqlite:///{tmp_path}/auth.db",
        "admin_username": ADMIN[0],
        "admin_password": ADMIN[1],
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    with (tmp_path / "auth.ini").open("w") as file:
        config.write(file)
    shop = new_shop(
        arguments=("--app-name", "basic-auth"),
        MLFLOW_AUTH_CONFIG_PATH=str(tmp_path / "auth.ini"),
        MLFLOW_FLASK_SERVER_SECRET_KEY="a secret of this test",
    )
    answer = requests.post(
        f"{shop.url}/api/2.0/mlflow/users/create",
        json={"username": "bob", "password": PASSWORD},
        auth=ADMIN,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return shop


def journal_of(shop):
    return shop.authority.home.path / ".local/state/mlseal/mlflow-decisions"


def lines(shop, name):
    text = (journal_of(shop) / "decisions.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["action"]["model"] == name]


def verdicts(shop, files, number):
    """The signed verdicts about these files, once there are `number`."""
    archive, subject = shop.archive(), shop.measured(files).sha256
    end = time.monotonic() + 30
    while True:
        archive.refresh()
        found = archive.candidates([subject], ["slsa-vsa"])
        if len(found) >= number:
            return [bundle.statement.predicate["mlseal"] for bundle in found]
        assert time.monotonic() < end
        time.sleep(0.1)


def model(shop, files, auth):
    """A registered model with one version, logged over REST as `auth`."""
    url, name = f"{shop.url}/api/2.0", shop.fresh()

    def post(route, **body):
        answer = requests.post(f"{url}/mlflow/{route}", json=body, auth=auth, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    info = post("logged-models", experiment_id="0", name="m")["model"]["info"]
    place = info["artifact_uri"].removeprefix("mlflow-artifacts:/")
    for file, data in files.items():
        answer = requests.put(f"{url}/mlflow-artifacts/artifacts/{place}/{file}", data=data, auth=auth, timeout=30)
        assert answer.status_code == 200, answer.text
    post("registered-models/create", name=name)
    post("model-versions/create", name=name, source=f"models:/{info['model_id']}", model_id=info["model_id"])
    return name


def champion(shop, name, **how):
    return requests.post(
        f"{shop.url}/api/2.0/mlflow/registered-models/alias",
        json={"name": name, "alias": "champion", "version": "1"},
        timeout=60,
        **how,
    )


def test_the_verdict_says_who_asked_and_names_nobody(guarded):
    shop, bob = guarded, ("bob", PASSWORD)
    files = shop.pyfunc()
    name = model(shop, files, bob)
    assert champion(shop, name).status_code == 401  # nobody: not decided at all
    assert champion(shop, name, auth=("bob", "a guess")).status_code == 401
    assert champion(shop, name, auth=bob).status_code == 403
    assert champion(shop, name, auth=ADMIN).status_code == 403  # the same refusal for another person is another one
    shop.prove(files)
    assert champion(shop, name, auth=bob).status_code == 200
    said = verdicts(shop, files, 3)
    salt = (journal_of(shop) / "salt").read_bytes()
    bobs = requester.pseudonym(Requester(BASIC_AUTH, "bob"), salt)
    admins = requester.pseudonym(Requester(BASIC_AUTH, "admin"), salt)
    assert sorted((v["verdict"], v["requester"]["pseudonym"]) for v in said) == sorted(
        [("undecided", bobs), ("undecided", admins), ("allowed", bobs)]
    )
    assert {v["requester"]["source"] for v in said} == {"basic-auth"}
    told = {(line["requester"], line["pseudonym"]) for line in lines(shop, name)}
    assert told == {("bob", bobs), ("admin", admins)}
    assert {v["nonce"] for v in said} <= {line.get("nonce") for line in lines(shop, name)}
    for path in shop.authority.store.root.rglob("*"):
        assert not path.is_file() or b"bob" not in path.read_bytes()


def test_who_says_who_they_are_is_not_believed(shop):
    """No login on this server: a header and a tag are words."""
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    forged = {"Authorization": "Basic Ym9iOmJvYg==", "X-MLFLOW-USER": "bob", "Remote-User": "bob"}
    body = {"name": name, "alias": "champion", "version": version}
    assert shop.call("POST", "registered-models/alias", body, headers=forged).status_code == 403
    (said,) = verdicts(shop, files, 1)
    assert said["requester"] == {"source": "unauthenticated"}
    line = lines(shop, name)[-1]
    assert (line["requester"], line["source"], line.get("pseudonym")) == (None, "unauthenticated", None)


def test_outside_a_request_nobody_asked():
    assert Asking().current() == Requester("unauthenticated")


def test_a_person_is_forgotten_and_the_others_stay(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    for who in ("bob", "ana", "bob"):
        journal.note(Requester(BASIC_AUTH, who), {"model": "m"}, "allowed")
    before = journal.note(Requester(BASIC_AUTH, "ana"), {"model": "m"}, "allowed").pseudonym
    assert journal.forget("bob") == 2
    text = (tmp_path / "j" / "decisions.jsonl").read_text()
    assert "bob" not in text
    assert text.count("ana") == 2
    assert journal.note(Requester(BASIC_AUTH, "ana"), {}, "allowed").pseudonym == before
    assert journal.forget(None) == 3
    assert not (tmp_path / "j" / "salt").exists()
    assert journal.note(Requester(BASIC_AUTH, "ana"), {}, "allowed").pseudonym != before
    assert {oct(f.stat().st_mode & 0o777) for f in (tmp_path / "j").iterdir()} == {"0o600"}


def test_the_log_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("mlseal_mlflow.journal.MAX_BYTES", 2_000)
    journal = Journal(tmp_path)
    for number in range(100):
        journal.note(Requester(BASIC_AUTH, f"u{number}"), {}, "allowed")
    assert sum(f.stat().st_size for f in tmp_path.glob("*.jsonl")) <= 4_000
    assert journal.forget("u99") == 1
    assert journal.forget("u90") == 1


def test_workers_agree_on_one_salt(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(requester.salt(tmp_path / "salt"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["salt"]


def test_nothing_is_decided_that_cannot_be_written_down(tmp_path):
    from mlseal.errors import Unchecked

    journal = Journal(tmp_path / "j")
    (tmp_path / "j" / "decisions.jsonl").mkdir()
    with pytest.raises(Unchecked, match="decision log"):
        journal.note(Requester("unauthenticated"), {}, "allowed")


def test_a_broken_line_is_nobodys_and_goes(tmp_path):
    journal = Journal(tmp_path)
    journal.note(Requester(BASIC_AUTH, "ana"), {}, "allowed")
    file = Path(tmp_path / "decisions.jsonl")
    file.write_bytes(file.read_bytes() + b'{"requester": "bo')
    assert journal.forget("bob") == 1
    assert "ana" in file.read_text()
