"""``attested:`` gives out what the gate allowed, byte for byte, and runs nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def promoted(shop, payload="fine"):
    files = shop.pyfunc(payload)
    name, version, uri = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    return name, version, uri, files


def loaded(mlflow, uri):
    return mlflow.pyfunc.load_model(uri).predict(None)


def test_a_promoted_model_loads_by_each_of_its_names(shop, client):
    name, version, uri, _ = promoted(shop)
    shop.client.transition_model_version_stage(name, version, "Production")
    logged = shop.client.get_model_version(name, version).source.removeprefix("models:/")
    for reference in (f"{name}@champion", f"{name}/{version}", f"{name}/Production", f"{name}/latest", logged):
        assert loaded(client, f"attested:/{reference}") == "fine", reference


def test_an_overwritten_pickle_is_refused_and_never_read(shop, client, tmp_path):
    name, version, uri, _ = promoted(shop)
    ran = tmp_path / "ran"
    shop.overwrite(uri, "model.pkl", shop.canary(ran))
    logged = shop.client.get_model_version(name, version).source.removeprefix("models:/")
    for reference in (f"{name}@champion", f"{name}/{version}", logged):
        shop.refused(lambda reference=reference: loaded(client, f"attested:/{reference}"), "never allowed these bytes")
        assert not ran.exists()
    client.pyfunc.load_model(f"models:/{name}@champion")  # the canary is alive: the stock loader runs it
    assert ran.exists()
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version))


@pytest.mark.parametrize("change", ["code/canary_loader.py", "MLmodel", "new.py", "attestations/../model.pkl"])
def test_any_other_change_is_refused(shop, client, change, tmp_path):
    name, _, uri, files = promoted(shop)
    place = shop.artifacts / uri.removeprefix("mlflow-artifacts:/") / change
    place.write_bytes(place.read_bytes() + b"\n" if place.exists() else b"x = 1\n")
    shop.refused(lambda: loaded(client, f"attested:/{name}@champion"), "never allowed these bytes")


def test_what_no_digest_counts_is_not_handed_out(shop, client, tmp_path):
    name, _, uri, _ = promoted(shop)
    shop.overwrite(uri, "attestations/evil.py", b"raise SystemExit\n")
    path = Path(client.artifacts.download_artifacts(f"attested:/{name}@champion", dst_path=str(tmp_path)))
    assert sorted(p.name for p in path.iterdir()) == ["MLmodel", "code", "model.pkl"]
    assert oct(os.stat(path.parents[len(path.relative_to(tmp_path).parts) - 2]).st_mode & 0o777) == "0o700"


def test_a_refused_load_leaves_nothing_on_disk(shop, client, tmp_path):
    name, _, uri, _ = promoted(shop)
    place = tmp_path / "place"
    place.mkdir()
    shop.overwrite(uri, "model.pkl", b"other")
    shop.refused(lambda: client.artifacts.download_artifacts(f"attested:/{name}@champion", dst_path=str(place)))
    assert list(place.iterdir()) == []


def test_a_verdict_on_one_alias_does_not_serve_another(shop, client):
    name, version, _, files = promoted(shop)
    shop.client.set_registered_model_alias(name, "scratch", version)
    assert loaded(client, f"attested:/{name}@scratch") == "fine"
    other, other_version, _ = shop.model(files)
    shop.client.set_registered_model_alias(other, "scratch", other_version)
    assert loaded(client, f"attested:/{other}@scratch") == "fine"
    with_sql(shop, other, "champion", other_version)
    shop.refused(lambda: loaded(client, f"attested:/{other}@champion"), "never allowed these bytes for this use")


def with_sql(shop, name, alias, version):
    """Past the gate, by someone with the database's password."""
    import sqlite3

    with sqlite3.connect(shop.base / "registry.db") as db:
        db.execute(
            "insert or replace into registered_model_aliases(workspace, name, alias, version) values('default', ?, ?, ?)",
            (name, alias, int(version)),
        )


def test_an_alias_set_by_sql_does_not_load(shop, client, tmp_path):
    name, version, uri = shop.model({**shop.pyfunc(), "model.pkl": shop.canary(tmp_path / "ran")})
    with_sql(shop, name, "champion", version)
    assert shop.aliases(name) == {"champion": version}
    shop.refused(lambda: loaded(client, f"attested:/{name}@champion"))
    assert not (tmp_path / "ran").exists()


def test_a_part_of_a_model_is_verified_as_a_whole(shop, client):
    name, _, uri, files = promoted(shop)
    got = client.artifacts.download_artifacts(f"attested:/{name}@champion/MLmodel")
    assert Path(got).read_bytes() == files["MLmodel"]
    shop.overwrite(uri, "model.pkl", b"other")
    shop.refused(lambda: client.artifacts.download_artifacts(f"attested:/{name}@champion/MLmodel"))


@pytest.mark.parametrize(
    "uri", ["attested:/{}@chаmpion", "attested:/{}/01", "attested:/{}@champion/../../x", "attested://host/{}@champion"]
)
def test_odd_uris_are_refused(shop, client, uri):
    from mlflow.exceptions import MlflowException

    name, _, _, _ = promoted(shop)
    with pytest.raises(MlflowException):
        client.artifacts.download_artifacts(uri.format(name))


def test_attested_is_read_only(shop, client, tmp_path):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    name, _, _, _ = promoted(shop)
    repository = get_artifact_repository(f"attested:/{name}@champion")
    file = tmp_path / "x"
    file.write_text("x")
    shop.refused(lambda: repository.log_artifact(str(file)), "for reading", status=400)
    shop.refused(lambda: repository.log_artifacts(str(tmp_path)), "for reading", status=400)
    assert sorted(entry.path for entry in repository.list_artifacts()) == [
        "MLmodel",
        "attestations",
        "code",
        "model.pkl",
    ]


def test_another_process_loads_with_nothing_but_trust_and_store(shop, tmp_path):
    name, _, _, _ = promoted(shop, payload=41)
    script = (
        "import mlflow, sys\nmlflow.set_tracking_uri(sys.argv[1])\nmlflow.set_registry_uri(sys.argv[1])\n"
        "print('payload', mlflow.pyfunc.load_model('attested:/' + sys.argv[2]).predict(None))\n"
    )
    env = shop.authority.env | {key: shop.env[key] for key in ("MLSEAL_TRUST", "MLSEAL_STORE")}
    done = subprocess.run(
        [sys.executable, "-c", script, shop.url, f"{name}@champion"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "payload 41" in done.stdout, done.stderr[-2000:]


def test_a_policy_that_governs_load_is_judged_instead(shop, client, monkeypatch, tmp_path):
    name, version, _, files = promoted(shop)
    policy = tmp_path / "load.yaml"
    policy.write_text(
        shop.policy.read_text()
        .replace("tests/1", "loads/1")
        .replace("applies:\n", 'applies:\n  - {tool: mlflow, action: load, model: "risk-*", workspace: "*"}\n', 1)
    )
    monkeypatch.setenv("MLSEAL_POLICY", str(policy))
    assert loaded(client, f"attested:/{name}@champion") == "fine"
    unproven, number, _ = shop.model()
    shop.refused(lambda: loaded(client, f"attested:/{unproven}/{number}"), "no test-result evidence")
