"""Every known way past the gate, on every kind of server: database, web server, workspaces, login.

One server for each combination, all rows of the table on it; the state is read over REST by this process, which is not
the server's.
"""

from __future__ import annotations

import configparser
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.security import generate_password_hash

from tests.adapters.mlflow import conftest, postgres, ways

ADMIN = ("admin", "a long password of the admin")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """One PostgreSQL database for the module."""
    with postgres.running() as server:
        yield server.database()


def login(base: Any) -> dict[str, str]:
    """Environment of a server behind MLflow's basic-auth."""
    config = configparser.ConfigParser()
    config["mlflow"] = {
        "default_permission": "MANAGE",
        "database_uri": f"sqlite:///{base}/auth.db",
        "admin_username": ADMIN[0],
        "admin_password": ADMIN[1],
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    with (base / "auth.ini").open("w") as file:
        config.write(file)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(base / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret of this test",
    }


def guarded(module_shop: Any, base: Any, database: str, *more: str) -> conftest.Shop:
    """A server on PostgreSQL with workspaces, behind a login; its client works in one of them, as the admin may."""
    arguments = ("--backend-store-uri", database, "--enable-workspaces", "--app-name", "basic-auth", *more)
    shop: conftest.Shop = module_shop(database=database, arguments=arguments, **login(base))
    shop.auth = ADMIN
    with contextlib.closing(sqlite3.connect(base / "auth.db")) as users, users:  # else each request costs 0.1 s
        quick = generate_password_hash(ADMIN[1], "pbkdf2:sha256:1")
        assert users.execute("update users set password_hash = ?", (quick,)).rowcount == 1
    space = shop.fresh("team-{}")
    answer = ways.rest(shop, "POST", "workspaces", {"name": space})
    assert answer.status_code < 300, answer.text
    shop.headers = {"X-MLFLOW-WORKSPACE": space}
    answer = shop.post("experiments/create", name=shop.fresh("models-{}"))
    assert answer.status_code == 200, answer.text
    shop.experiment = answer.json()["experiment_id"]
    return shop


@pytest.fixture(scope="module", params=["sqlite-uvicorn", "postgresql-uvicorn-guarded", "postgresql-gunicorn-guarded"])
def _site(request: pytest.FixtureRequest, module_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> conftest.Shop:
    if request.param == "sqlite-uvicorn":
        return request.getfixturevalue("_shop")  # type: ignore[no-any-return]
    more = ("--gunicorn-opts", "--timeout 120") if "gunicorn" in request.param else ()
    base, database = tmp_path_factory.mktemp("login"), request.getfixturevalue("database")
    return guarded(module_shop, base, database, *more)


@pytest.fixture
def site(_site: conftest.Shop, enter: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[conftest.Shop]:
    """A running server, and this process its client."""
    import mlflow

    enter(_site)
    mlflow.set_tracking_uri(_site.url)
    mlflow.set_registry_uri(_site.url)
    yield _site
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("race", [race for race in ways.RACES if race not in {way.attempt for way in ways.WAYS}])
def test_what_happens_at_once(site, race):
    race(site)
    assert "mlseal: unforeseen" not in site.log.read_text(errors="replace")


@pytest.mark.parametrize("way", ways.WAYS, ids=lambda way: way.name)
def test_no_way_past_the_gate(site, way):
    way.attempt(site)
    assert site.call("GET", "registered-models/get?name=mlseal-posture", {}).status_code == 200
