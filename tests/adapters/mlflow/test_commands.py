"""`mlseal mlflow doctor` and `reconcile`: what the operator sees, including what slipped past the store."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.adapters.mlflow import ways


def run(shop, *arguments, group=("mlflow",), **env):
    environment = shop.authority.env | {k: shop.env[k] for k in ("MLSEAL_TRUST", "MLSEAL_STORE", "MLSEAL_POLICY")} | env
    return subprocess.run(
        [sys.executable, "-m", "mlseal", *group, *arguments],
        env=environment,
        cwd=shop.base,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def quick(shop, *arguments, group=("mlflow",), **env):
    """The same in this process, which is a client of `shop` already: a start of Python and MLflow less."""
    from mlseal.cli import main

    runner = CliRunner(env={"MLSEAL_POLICY": shop.env["MLSEAL_POLICY"], **env})
    return runner.invoke(main, [*group, *arguments])


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


@pytest.fixture
def bare(new_shop):
    """MLflow's own server with its own store: nothing of mlseal is in it."""
    shop = new_shop(start=False, workers=1)
    gated = type(shop).registry
    shop.__class__ = type(
        "Bare", (type(shop),), {"registry": property(lambda s: gated.fget(s).removeprefix("mlseal:"))}
    )
    shop.snapshot()
    shop.start()
    return shop


def test_a_server_that_cannot_be_extended(bare):
    """The doctor says that nothing is in its way; verdicts are made by hand, and the reconciler takes back the rest."""
    from mlseal_mlflow import loading

    shop = bare
    done = quick(shop, "doctor", "--tracking-uri", shop.url)
    assert (done.exit_code, "let an unproven alias through" in done.output) == (11, True), done.output
    assert list(shop.client.search_registered_models()) == []

    (good, _, _), (bad, _, _) = shop.model(proven=True), shop.model()
    for name in (good, bad):
        place = shop.base / name
        shop.client.set_registered_model_alias(name, "champion", "1")  # nobody asks
        place.mkdir()
        loading.storage(f"models:/{name}/1", shop.url, shop.url).download_artifacts("", str(place))
        facts = ["workspace=default", f"model={name}", "alias=champion"]
        gate = ["gate", str(place), "--action", "mlflow/alias", *(w for fact in facts for w in ("--fact", fact))]
        made = quick(shop, *gate, "-o", f"{place}.json", group=())
        assert made.exit_code == (0 if name == good else 11), made.output
    done = run(shop, "reconcile", "--tracking-uri", shop.url, "--json", "--demote")
    assert done.returncode == 10, done.stderr + done.stdout
    told = {f["model"]: (f["stands"], f["takenBack"]) for f in json.loads(done.stdout)["findings"]}
    assert told == {good: (True, False), bad: (False, True)}
    assert (shop.aliases(good), shop.aliases(bad)) == ({"champion": "1"}, {})
    assert quick(shop, "reconcile", "--tracking-uri", shop.url).exit_code == 0


@pytest.fixture(scope="module")
def _lone(module_shop):
    return module_shop(workers=1)


@pytest.fixture
def lone(_lone, enter):
    """A server with few models, since each look is at all of them."""
    return enter(_lone)


def test_reconcile_finds_and_takes_back_what_sql_did(lone):
    shop = lone
    good, _, _ = shop.model(proven=True)
    shop.client.set_registered_model_alias(good, "champion", "1")
    bad, _, _ = shop.model()
    ways.another(shop, bad)
    files = shop.pyfunc()
    shop.prove(files)
    prod, _, _ = shop.model(files, name="risk-prod")
    for text, values in (
        ("insert into registered_model_aliases(workspace, name, alias, version) values(:w, :n, 'champion', 1)", {}),
        ("update model_versions set current_stage='Production' where workspace=:w and name=:n", {}),
        (ways.COPY_ROW, {"t": prod}),
    ):
        ways.statement(shop, text, n=bad, **values)
    done = run(shop, "reconcile", "--tracking-uri", shop.url, "--json")
    assert done.returncode == 10, done.stderr + done.stdout
    found = {
        (f["model"], f["version"], what): f["stands"]
        for f in json.loads(done.stdout)["findings"]
        for what in ("alias", "stage", "create")
        if what in f and f["model"] in (good, bad, prod)
    }
    wrong = [(bad, "1", "alias"), (bad, "1", "stage"), (bad, "2", "stage"), (prod, "2", "stage"), (prod, "2", "create")]
    assert found == {(good, "1", "alias"): True, (prod, "1", "create"): True, **dict.fromkeys(wrong, False)}
    assert shop.aliases(bad) == {"champion": "1"}
    assert quick(shop, "reconcile", "--tracking-uri", shop.url, "--delete").exit_code == 2
    done = quick(shop, "reconcile", "--tracking-uri", shop.url, "--demote")
    assert done.exit_code == 10
    assert "found   risk-prod/2 create" in done.output
    assert shop.aliases(bad) == {}
    assert [ways.stage_of(shop, *which) for which in ((bad, "1"), (bad, "2"), (prod, "2"))] == ["Archived"] * 3
    assert shop.aliases(good) == {"champion": "1"}
    assert ways.versions(shop, prod) == [1, 2]  # a version does not come back, so nothing deletes it unasked
    done = quick(shop, "reconcile", "--tracking-uri", shop.url, "--demote", "--delete")
    assert (done.exit_code, "demoted risk-prod/2 create" in done.output) == (10, True), done.output
    assert ways.versions(shop, prod) == [1]
    done = quick(shop, "reconcile", "--tracking-uri", shop.url)
    assert done.exit_code == 0, done.output
    done = quick(shop, "reconcile", "--tracking-uri", shop.url, MLSEAL_POLICY="")
    assert (done.exit_code, "of which models creation is promotion" in done.output) == (0, True), done.output


def test_the_benchmark_of_the_reconciler_runs(lone, tmp_path, monkeypatch, capsys):
    import mlflow

    from benchmarks import bench_mlflow
    from mlseal.evidence.store import Store

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # which it sets
    before = mlflow.get_tracking_uri()
    store = Store(lone.env["MLSEAL_STORE"])
    bench_mlflow.reconciled(f"{lone.url}/api/2.0", lone.authority.trust, store, tmp_path, models=2, bundles=2)
    mlflow.set_tracking_uri(before)
    assert "reconcile: 2 models x 2 bundles in " in capsys.readouterr().out
    assert [lone.aliases(f"risk-r{number}") for number in range(2)] == [{"champion": "1"}] * 2


@pytest.mark.parametrize("command", ["doctor", "reconcile", "prompt"])
def test_help_is_quick_and_plain(shop, command):
    done = run(shop, command, "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout


def test_reconcile_without_a_server_is_misuse(shop):
    done = run(shop, "reconcile")
    assert done.returncode == 2
    assert "no server named" in done.stderr
