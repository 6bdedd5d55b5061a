"""Whether the gate is on, as the server says over the registry's own REST; red when it could not decide."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlseal_mlflow import doctor, posture

from mlseal.errors import Misuse


def asked(shop, status):
    """The server's answer once it is `status`; an answer is remembered for a moment."""
    end = time.monotonic() + 60
    while True:
        answer = shop.call("GET", f"registered-models/get?name={posture.NAME}", {})
        if answer.status_code == status:
            return answer
        assert time.monotonic() < end, answer.text
        time.sleep(0.2)


def amiss(shop, name):
    """What the check `name` says, once it is red."""
    end = time.monotonic() + 60
    while True:
        body = asked(shop, 503).json()["mlseal"]
        for check in body["checks"]:
            if check["name"] == name and not check["ok"]:
                return check["detail"]
        assert time.monotonic() < end, body
        time.sleep(0.2)


def refused(shop, name, version):
    answer = shop.post("registered-models/alias", name=name, alias="champion", version=version)
    assert answer.status_code == 403, answer.text
    assert answer.json()["message"].startswith("mlseal: alias"), answer.text
    assert shop.aliases(name) == {}
    return answer.json()["message"]


def test_a_gated_server_says_what_is_in_force(shop):
    model = asked(shop, 200).json()["registered_model"]
    tags = {tag["key"]: tag["value"] for tag in model["tags"]}
    assert tags["mlseal.posture"] == "on"
    assert tags["mlseal.policy"].startswith("tests/1 sha256:")
    assert tags["mlseal.identity-of-the-gate"].startswith("https://demo.mlseal.local/roles/gate ")
    assert all(check.ok for check in doctor.server(shop.url))


def test_its_name_is_nobodys(shop):
    name, _, _ = shop.model()
    for call in (
        lambda: shop.client.create_registered_model(posture.NAME),
        lambda: shop.client.create_registered_model("MLSEAL-posture"),
        lambda: shop.client.rename_registered_model(name, posture.NAME),
    ):
        shop.refused(call, "no model may have this name", status=400)
    assert [m for m in shop.client.search_registered_models("name ILIKE 'mlseal-posture%'")] == []
    with pytest.raises(Misuse):
        posture.require_other(posture.NAME)


def test_a_server_without_the_gate_is_told_apart(new_shop):
    shop = new_shop(start=False, workers=1)
    shop.__class__ = type("Bare", (type(shop),), {"registry": property(lambda s: s.database)})
    shop.start()
    checks = {check.name: check for check in doctor.server(shop.url)}
    assert [check.ok for check in checks.values()] == [False, False]
    assert "no gate answered: 404" in checks["server's own posture"].detail
    assert "let an unproven alias through" in checks["server refuses what nothing proves"].detail
    shop.client.create_registered_model(posture.NAME)  # whoever takes the name there does not pass for a gate
    assert "no gate answered: 200" in doctor.server(shop.url)[0].detail


@pytest.mark.slow
def test_a_plugin_that_cannot_be_imported_allows_nothing_and_is_seen(new_shop, tmp_path):
    """MLflow warns and starts; its registry is then closed, and says so to whoever asks."""
    (tmp_path / "broken" / "mlseal_mlflow").mkdir(parents=True)
    (tmp_path / "broken" / "mlseal_mlflow" / "__init__.py").write_text("raise ImportError('a part is missing')\n")
    shop = new_shop(start=False, workers=1, PYTHONPATH=str(tmp_path / "broken"))
    uri, name = shop.put(), shop.fresh()
    store = SqlAlchemyStore(shop.database)
    store.create_registered_model(name)
    store.create_model_version(name, uri)
    shop.start()
    for method, route, more in (
        ("POST", "registered-models/alias", {"alias": "champion", "version": "1"}),
        ("POST", "model-versions/transition-stage", {"version": "1", "stage": "Production"}),
        ("POST", "model-versions/create", {"source": f"models:/{name}/1"}),
        ("POST", "registered-models/rename", {"new_name": f"{name}-prod"}),
        ("POST", "registered-models/create", {"name": f"{name}-prod"}),
    ):
        answer = shop.call(method, route, {"name": name, **more})
        assert 400 <= answer.status_code < 500, answer.text
        assert "mlseal" in answer.json()["message"], answer.text
    [(version, stage)] = [(v.version, v.current_stage) for v in store.search_model_versions(f"name='{name}'")]
    assert (version, stage, store.get_registered_model(name).aliases) == (1, "None", {})
    assert [model.name for model in store.search_registered_models()] == [name]
    said, canary = doctor.server(shop.url)
    assert (said.ok, "no gate answered: 4" in said.detail) == (False, True), said
    assert not canary.ok


@pytest.mark.slow
def test_readiness_is_red_while_nothing_can_be_decided(new_shop):
    """One server; each fault is mended before the next. Never allowed, a clear 4xx, and readiness says why."""
    shop = new_shop(workers=1)
    files = shop.pyfunc()
    name, version, _ = shop.model(files, proven=True)
    asked(shop, 200)
    _store_down(shop, name, version)
    _service_hung(shop, name, version)
    _journal_full(shop, name, version)
    asked(shop, 200)
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}


def _store_down(shop, name, version):
    root = shop.authority.store.root
    root.rename(root.with_name("aside"))
    try:
        assert "is gone" in amiss(shop, "evidence store")
        refused(shop, name, version)
        done = subprocess.run(
            [sys.executable, "-m", "mlseal", "mlflow", "doctor", "--tracking-uri", shop.url, "--json"],
            env=shop.env,
            capture_output=True,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 11, done.stderr
        first = json.loads(done.stdout)["checks"][0]
        assert (first["ok"], "evidence store" in first["detail"]) == (False, True)
    finally:
        root.with_name("aside").rename(root)


def _service_hung(shop, name, version):
    """It takes connections and never answers."""
    asked(shop, 200)
    pids = _services(shop.authority.state)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert "answer within" in refused(shop, name, version)
        assert "answer within" in amiss(shop, "log and revocations")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _services(state):
    """Process ids of the trust services of this state directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "mlseal" in " ".join(words) and any(str(state) in word for word in words):
                found.append(int(entry.name))
    return found


def _journal_full(shop, name, version):
    file = shop.authority.home.path / ".local/state/mlseal/mlflow-decisions/decisions.jsonl"
    file.rename(file.with_name("aside"))
    file.mkdir()
    try:
        assert "cannot be written" in amiss(shop, "decision log")
        assert "decision log cannot be written" in refused(shop, name, version)
    finally:
        file.rmdir()
        file.with_name("aside").rename(file)
