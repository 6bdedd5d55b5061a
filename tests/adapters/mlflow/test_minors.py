"""The other MLflow minor that mlseal supports: a real server of it, and the table of attacks on that."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import requests

from tests.adapters.mlflow import minors, ways

ELSEWHERE = {ways.a_method_of_a_later_mlflow, ways.tracking_store}  # they look at this process, not at a server


@pytest.fixture(scope="module")
def _older(module_shop):
    return module_shop(PYTHONPATH=str(minors.other()))


@pytest.fixture
def older(_older, enter, home):
    """A server of the other minor; this process is a client of the installed one."""
    import mlflow

    enter(_older)
    mlflow.set_tracking_uri(_older.url)
    mlflow.set_registry_uri(_older.url)
    yield _older
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_no_way_past_the_gate_of_the_other_minor(older):
    assert requests.get(f"{older.url}/version", timeout=30).text == minors.OTHER
    for way in ways.WAYS:
        if way.attempt not in ELSEWHERE:
            way.attempt(older)
    ways.two_promotions_at_once(older)


@pytest.mark.slow
def test_each_method_and_route_of_the_other_minor_is_classified(older):
    done = subprocess.run(
        [sys.executable, "-m", "mlseal", "mlflow", "doctor", "--json"],
        env=older.env,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["mlflow surface"]["ok"], checks
    assert checks["mlflow surface"]["detail"].startswith(f"mlflow {minors.OTHER}, ")
