"""A server that could not enforce does not start; nothing is decided later than that."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def shop(new_shop):
    """A configuration that would start."""
    return new_shop(start=False, workers=1)


def refused(shop, *words, **env):
    environment = {key: value for key, value in (shop.env | env).items() if value}
    done = subprocess.run(
        shop.command(port=1),
        env=environment,
        cwd=shop.base,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Uvicorn running" not in said
    for word in words:
        assert word in said, said[-2000:]


def test_no_trust_root(shop):
    missing = str(shop.base / "missing.json")
    refused(shop, "cannot read trust root", MLSEAL_TRUST=missing)
    checks = doctor(shop, MLSEAL_TRUST=missing)
    assert checks.pop("mlflow surface")["ok"]
    assert {name: check["ok"] for name, check in checks.items()} == {
        "trust root": False,
        "gate identity": False,
        "policy, store and token": False,
    }
    assert all(f"cannot read trust root {missing}" in check["detail"] for check in checks.values()), checks


def doctor(shop, **env):
    """What `mlseal mlflow doctor` says in this environment; it must find something amiss."""
    done = subprocess.run(
        [sys.executable, "-m", "mlseal", "mlflow", "doctor", "--json"],
        env=shop.env | env,
        cwd=shop.base,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 11, done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_no_trust_root_anywhere(shop, make_home):
    """A stranger's home: nothing is pinned there."""
    refused(
        shop,
        "no trust root is configured",
        MLSEAL_TRUST="",
        **{key: value for key, value in make_home("stranger").env.items() if key.startswith(("HOME", "XDG_"))},
    )


def test_a_trust_root_that_is_none(shop):
    (shop.base / "root.json").write_text("{}")
    refused(shop, "is not a trust root", MLSEAL_TRUST=str(shop.base / "root.json"))


def test_a_root_without_services_cannot_sign(shop):
    refused(shop, "Error", MLSEAL_TRUST=str(shop.authority.trusted_root))


def test_no_policy(shop):
    refused(shop, "the gate has no policy", MLSEAL_POLICY="")


def test_a_policy_with_a_typo(shop):
    shop.policy.write_text(shop.policy.read_text().replace("revokers:", "revokrs:"))
    refused(shop, "revokrs")


def test_no_store(shop):
    refused(shop, "no evidence store", MLSEAL_STORE=str(shop.base / "missing"))
    refused(shop, "no evidence store", MLSEAL_STORE="")


def test_no_token(shop):
    refused(shop, "cannot read the identity token", MLSEAL_TOKEN_FILE=str(shop.base / "missing.jwt"))


def test_somebody_elses_token(shop):
    """A producer must not sign verdicts."""
    from mlseal.evidence.signing import tokens

    trust = shop.authority.trust
    token = tokens.from_embedded(trust, trust.endpoints.issuer, "producer", 10)
    (shop.base / "producer.jwt").write_text(token)
    refused(shop, "not the gate's", MLSEAL_TOKEN_FILE=str(shop.base / "producer.jwt"))


def test_the_trust_service_is_gone(shop):
    """Nobody can start it again either."""
    shop.authority.stop()
    shutil.rmtree(shop.authority.state)
    refused(shop, "Error")


def test_a_limit_that_is_no_number(shop):
    refused(shop, "a limit is not a number of bytes", MLSEAL_MLFLOW_MAX_BYTES="lots")


@pytest.mark.parametrize("uri", ["mlseal:", "mlseal:mlseal:sqlite:///x.db", "mlseal:file:///tmp/x"])
def test_odd_registry_uris(shop, uri):
    command = [uri if part.startswith("mlseal:") else part for part in shop.command(port=1)]
    done = subprocess.run(
        command,
        env=shop.env,
        cwd=shop.base,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode != 0, done.stdout + done.stderr
