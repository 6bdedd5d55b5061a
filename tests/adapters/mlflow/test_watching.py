"""`mlseal mlflow reconcile --watch`: passes with a stated window; webhooks only wake it, and only signed ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
import uuid

import pytest
import requests
import sqlalchemy
from cryptography.fernet import Fernet
from mlseal_mlflow import watching
from mlseal_mlflow.reconcile import Finding
from mlseal_mlflow.watching import Doorbell

from mlseal.errors import Misuse, Refusal, RuleBroken

SECRET = b"a secret of this test, shared with MLflow"


def signed(body=b"{}", *, secret=SECRET, at=None, delivery=None):
    """Headers as MLflow's server makes them."""
    delivery, stamp = delivery or str(uuid.uuid4()), str(int(time.time() if at is None else at))
    mac = hmac.new(secret, f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def test_a_signed_delivery_rings_once():
    bell, headers = Doorbell(SECRET), signed()
    assert bell.deliver(headers, b"{}")
    assert bell.rung.is_set()
    bell.rung.clear()
    assert not bell.deliver({key.lower(): value for key, value in headers.items()}, b"{}")
    assert not bell.rung.is_set()


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("X-MLflow-Signature"),
        lambda h: h.update({"X-MLflow-Signature": "v1,"}),
        lambda h: h.update({"X-MLflow-Signature": "v1,ä"}),
        lambda h: h.update({"X-MLflow-Signature": h["X-MLflow-Signature"].removeprefix("v1,")}),
        lambda h: h.update({"X-MLflow-Delivery-Id": str(uuid.uuid4())}),
        lambda h: h.update({"X-MLflow-Timestamp": str(int(h["X-MLflow-Timestamp"]) + 1)}),
        lambda h: h.update(signed(secret=b"the secret of somebody else")),
        lambda h: h.update(signed(b'{"other": "body"}')),
        lambda h: h.update(signed(at=time.time() - 1_000)),
        lambda h: h.update(signed(at=time.time() + 1_000)),
    ],
)
def test_whatever_else_rings_not(change):
    bell, headers = Doorbell(SECRET), signed()
    change(headers)
    with pytest.raises(Refusal, match="webhook delivery"):
        bell.deliver(headers, b"{}")
    assert not bell.rung.is_set()


def test_a_short_secret_is_refused():
    with pytest.raises(Misuse, match="too short"):
        Doorbell(b"short")


def test_over_http():
    bell = Doorbell(SECRET)
    with watching.listening(bell, "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}/any"
        assert requests.get(url, timeout=10).status_code == 501
        assert requests.post(url, data=b"{}", timeout=10).status_code == 403
        assert requests.post(url, data=iter([b"{}"]), timeout=10).status_code == 411
        assert requests.post(url, data=b"x" * (watching.MAX_BODY + 1), timeout=10).status_code == 413
        assert not bell.rung.is_set()
        assert requests.post(url, data=b"{}", headers=signed(), timeout=10).status_code == 204
        assert bell.rung.is_set()
        with pytest.raises(Misuse, match="cannot listen"), watching.listening(bell, "127.0.0.1", port):
            pass


def test_the_window_is_stated_and_a_failed_pass_is_not_the_last(monkeypatch):
    monkeypatch.setattr(watching, "MIN_PAUSE_SECONDS", 0.0)
    found = Finding("risk", "1", "alias", "champion", RuleBroken("no verdict"))
    answers = iter([[found], OSError("the server is away"), Refusal("no trust"), []])

    def look():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        yield from answer

    now = iter([0.0, 5.0, 5.0, 100.0, 101.0, 101.0, 200.0, 201.0, 201.0, 300.0, 302.0, 302.0])
    passes = list(watching.watch(look, 0.0, threading.Event(), passes=4, clock=lambda: next(now)))
    assert [one.window for one in passes] == [None, 101.0, 201.0, 302.0]  # since the last look that succeeded
    assert [len(one.wrong) for one in passes] == [1, 0, 0, 0]
    assert ["registry could not be read" in str(one.error) for one in passes] == [False, True, False, False]
    assert [one.error is None for one in passes] == [True, False, False, True]


def test_a_ring_during_a_pass_is_not_lost(monkeypatch):
    monkeypatch.setattr(watching, "MIN_PAUSE_SECONDS", 0.0)
    rung = threading.Event()

    def look():
        rung.set()  # meanwhile
        yield from ()

    first, second = watching.watch(look, 3_600.0, rung, passes=2)
    assert (first.woken, second.woken) == (False, True)


@pytest.mark.slow
def test_mlflows_own_webhook_wakes_the_watch(new_shop, tmp_path):
    """One pass an hour; the second comes because the server told of a new version."""
    shop = new_shop(
        workers=1,
        MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true",
        MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http",
        MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=Fernet.generate_key().decode(),
        MLFLOW_WEBHOOK_CACHE_TTL="0",
        MLSEAL_MLFLOW_WEBHOOK_HOSTS="127.0.0.1",
    )
    name, version, _ = shop.model()
    (tmp_path / "secret").write_bytes(SECRET)
    command = [sys.executable, "-m", "mlseal", "mlflow", "reconcile", "--tracking-uri", shop.url, "--json", "--demote"]
    watch = ["--watch", "--every", "3600", "--passes", "2", "--listen", "127.0.0.1:0", "--secret-file"]
    process = subprocess.Popen(
        [*command, *watch, str(tmp_path / "secret")],
        env=shop.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        port = process.stderr.readline().rsplit(":", 1)[1].strip()
        first = json.loads(process.stdout.readline())
        assert (first["pass"], first["findings"], first["windowSeconds"]) == (1, [], None)
        event = {"entity": "MODEL_VERSION", "action": "CREATED"}
        hook = {"name": "watch", "url": f"http://127.0.0.1:{port}/", "events": [event], "secret": SECRET.decode()}
        answer = shop.post("webhooks", **hook)
        assert answer.status_code == 200, answer.text
        engine = sqlalchemy.create_engine(shop.database)
        with engine.begin() as connection:  # what nobody tells of
            insert = "insert into registered_model_aliases values('champion', 1, :name, 'default')"
            columns = "registered_model_aliases(alias, version, name, workspace)"
            connection.execute(sqlalchemy.text(insert.replace("registered_model_aliases", columns)), {"name": name})
        engine.dispose()
        shop.model()
        second = json.loads(process.stdout.readline())
        assert (second["pass"], second["woken"]) == (2, True)
        assert 0 < second["windowSeconds"] < 3600
        assert [(f["model"], f["alias"], f["stands"]) for f in second["findings"]] == [(name, "champion", False)]
        assert shop.aliases(name) == {}
        assert process.wait(60) == 10
    finally:
        process.kill()
        process.communicate()
