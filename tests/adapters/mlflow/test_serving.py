"""`mlseal mlflow serve`: a server that was seen to refuse, or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from mlseal.errors import Misuse, Unchecked


@pytest.fixture
def shop(new_shop):
    """What a server needs; none is started."""
    shop = new_shop(start=False)
    shop.snapshot()
    return shop


def serve(shop, *arguments, **env):
    with shop.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "mlseal", "mlflow", "serve", str(shop.base / "home"), *arguments],
            env=shop.env | env,
            cwd=shop.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def ends(process, shop, words, code):
    out, _ = process.communicate(timeout=180)
    said = shop.log.read_text()
    assert process.returncode == code, said[-3000:]
    assert "serving" not in out
    assert words in said, said[-3000:]
    assert "Traceback" not in said[-600:]


def test_it_says_where_it_serves_once_it_refused_and_ends_when_told(shop):
    here = {
        name: os.path.relpath(shop.env[name], shop.base) for name in ("MLSEAL_TRUST", "MLSEAL_POLICY", "MLSEAL_STORE")
    }
    process = serve(shop, "--port", "0", "--workers", "1", **here)
    told = process.stdout.readline()
    assert told.startswith("serving http://127.0.0.1:"), shop.log.read_text()[-3000:]
    assert told.endswith("refuses what nothing proves\n")
    shop.url = told.split()[1].rstrip(",")
    name, version, _ = shop.model()
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version), "no test-result evidence")
    assert (shop.base / "home" / "registry.db").is_file()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(shop.url, timeout=5)


def test_it_ends_with_who_started_it(shop):
    process = serve(shop, "--port", "0", "--workers", "1")
    url = process.stdout.readline().split()[1].rstrip(",")
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    end = time.monotonic() + 60
    while True:
        try:
            requests.get(f"{url}/health", timeout=5)
        except requests.ConnectionError:
            break
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_server_without_the_gate_is_noticed(shop):
    from mlseal_mlflow import serving

    (home := shop.base / "bare").mkdir()
    ungated = f"sqlite:///{home}/registry.db"
    with (
        serving.running(home, registry=ungated, workers=1, env=shop.env, log=shop.log) as server,
        pytest.raises(Unchecked, match="let an unproven alias through"),
    ):
        serving.require_gated(server)
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=5)


def test_a_server_that_cannot_start_is_said_so(shop):
    ends(serve(shop, "--port", "0", MLSEAL_POLICY=""), shop, "the gate has no policy", 2)
    assert len(shop.log.read_text().splitlines()) == 1, "one sentence, and no server was started"
    assert not (shop.base / "home").exists()


def test_a_registry_without_the_gate_cannot_be_asked_for(shop):
    process = serve(shop, "--port", "0", "--", "--registry-store-uri", "sqlite:///x.db")
    ends(process, shop, "the registry is named otherwise here", 2)
    ends(serve(shop, "--registry", "mlseal:sqlite:///x.db"), shop, "not a database", 2)


def test_behind_a_login_it_needs_one_to_look(shop, tmp_path):
    (tmp_path / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\nadmin_password = a long password\n"
        f"database_uri = sqlite:///{tmp_path}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    more = ("--port", "0", "--workers", "1", "--", "--app-name", "basic-auth")
    env = {"MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret"}
    ends(serve(shop, *more, **env), shop, "MLFLOW_TRACKING_USERNAME", 11)
    process = serve(shop, *more, **env, MLFLOW_TRACKING_USERNAME="admin", MLFLOW_TRACKING_PASSWORD="a long password")
    assert process.stdout.readline().startswith("serving"), shop.log.read_text()[-3000:]
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("database", ["mlseal:sqlite:///x", "x.db", ""])
def test_what_is_no_database(database):
    from mlseal_mlflow import serving

    with pytest.raises(Misuse):
        serving.gated(database)


def test_forget_asks_for_a_name_or_for_all(shop):
    def forget(*arguments):
        command = [sys.executable, "-m", "mlseal", "mlflow", "forget", *arguments]
        return subprocess.run(command, env=shop.env, capture_output=True, text=True, check=False)

    assert forget().returncode == 2
    assert forget("bob", "--all").returncode == 2
    done = forget("bob", "--json")
    assert json.loads(done.stdout) == {"removed": 0}, done.stderr
    assert forget("--all").returncode == 0
    assert not (Path(os.fspath(shop.authority.home.path)) / ".local/state/mlseal/mlflow-decisions/salt").exists()
