"""`mlseal mlflow doctor` and `reconcile`: what the operator sees, including what slipped past the store."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest


def run(shop, *arguments, **env):
    environment = shop.authority.env | {k: shop.env[k] for k in ("MLSEAL_TRUST", "MLSEAL_STORE", "MLSEAL_POLICY")} | env
    return subprocess.run(
        [sys.executable, "-m", "mlseal", "mlflow", *arguments],
        env=environment,
        cwd=shop.base,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_doctor_says_what_a_server_would_meet(shop):
    done = run(shop, "doctor", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    assert [check["ok"] for check in json.loads(done.stdout)["checks"]] == [True] * 4
    done = run(shop, "doctor", MLSEAL_POLICY="/nowhere.yaml")
    assert done.returncode == 11
    assert "AMISS" in done.stdout
    assert "Traceback" not in done.stderr


def test_doctor_tries_the_server(shop):
    done = run(shop, "doctor", "--tracking-uri", shop.url)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "refused as it must be" in done.stdout
    assert [m for m in shop.client.search_registered_models("name LIKE 'mlseal-canary-%'")] == []


def test_doctor_finds_a_server_without_the_plugin(new_shop):
    shop = new_shop(start=False, workers=1)
    gated = type(shop).registry
    shop.__class__ = type(
        "Bare", (type(shop),), {"registry": property(lambda s: gated.fget(s).removeprefix("mlseal:"))}
    )
    shop.start()
    done = run(shop, "doctor", "--tracking-uri", shop.url)
    assert done.returncode == 11, done.stdout
    assert "let an unproven alias through" in done.stdout
    assert list(shop.client.search_registered_models()) == []


def test_reconcile_finds_and_takes_back_what_sql_did(new_shop):
    shop = new_shop(workers=1)
    files = shop.pyfunc()
    good, good_version, _ = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(good, "champion", good_version)
    bad, bad_version, _ = shop.model()
    with sqlite3.connect(shop.base / "registry.db") as db:
        db.execute(
            "insert into registered_model_aliases(workspace, name, alias, version) values('default', ?, 'champion', 1)",
            (bad,),
        )
        db.execute("update model_versions set current_stage='Production' where name=?", (bad,))
    done = run(shop, "reconcile", "--tracking-uri", shop.url, "--json")
    assert done.returncode == 10, done.stderr + done.stdout
    found = {(f["model"], f.get("alias") or f.get("stage")): f["stands"] for f in json.loads(done.stdout)["findings"]}
    assert found == {(good, "champion"): True, (bad, "champion"): False, (bad, "Production"): False}
    assert shop.aliases(bad) == {"champion": bad_version}
    done = run(shop, "reconcile", "--tracking-uri", shop.url, "--demote")
    assert done.returncode == 10
    assert shop.aliases(bad) == {}
    assert shop.client.get_model_version(bad, bad_version).current_stage == "Archived"
    assert shop.aliases(good) == {"champion": good_version}
    done = run(shop, "reconcile", "--tracking-uri", shop.url)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["doctor", "reconcile", "prompt"])
def test_help_is_quick_and_plain(shop, command):
    done = run(shop, command, "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout


def test_reconcile_without_a_server_is_misuse(shop):
    done = run(shop, "reconcile")
    assert done.returncode == 2
    assert "no server named" in done.stderr
