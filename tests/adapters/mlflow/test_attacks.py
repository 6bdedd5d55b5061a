"""Ways around the gate, each through a real server; every test ends by reading what the registry then says."""

from __future__ import annotations

import threading
import urllib.parse

import pytest


def proven(shop, name=None):
    files = shop.pyfunc()
    name, version, uri = shop.model(files, name=name)
    shop.prove(files)
    return name, version, uri


def versions(shop, name):
    return sorted(int(v.version) for v in shop.client.search_model_versions(f"name='{name}'"))


def test_copy_into_a_governed_model(shop):
    """Client-side: copy_model_version creates the version with source models:/NAME/VERSION."""
    name, version, _ = shop.model()
    target = shop.fresh("risk-{}-prod")
    source = shop.client.get_model_version(name, version)
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="no test-result evidence"):
        shop.client.copy_model_version(f"models:/{source.name}/{source.version}", target)
    assert versions(shop, target) == []


def test_copy_into_a_model_that_no_policy_names(shop):
    name, version, _ = proven(shop)
    target = shop.fresh("else-{}")
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="no policy governs this action"):
        shop.client.copy_model_version(f"models:/{name}/{version}", target)
    assert versions(shop, target) == []


def test_copy_of_what_is_proven_goes_through(shop):
    name, version, uri = proven(shop)
    target = shop.fresh("risk-{}-prod")
    made = shop.client.copy_model_version(f"models:/{name}/{version}", target)
    assert versions(shop, target) == [1]
    assert shop.client.get_model_version_download_uri(target, made.version) == uri


@pytest.mark.parametrize("spelling", ["01", "%31", "１", "latest", "Production", "1@champion", "1/../1"])
def test_copy_by_another_spelling_of_the_version(shop, spelling):
    """MLflow's handler resolves some of them before the store is asked; what comes out is judged all the same."""
    name, _, _ = shop.model()
    target = shop.fresh("risk-{}-prod")
    shop.client.create_registered_model(target)
    assert shop.post("model-versions/create", name=target, source=f"models:/{name}/{spelling}").status_code != 200
    assert versions(shop, target) == []


def test_creating_directly_in_a_governed_model(shop):
    target = shop.fresh("risk-{}-prod")
    shop.client.create_registered_model(target)
    files = shop.pyfunc()
    source, _ = shop.upload(files)
    shop.refused(
        lambda: shop.client.create_model_version(target, source, model_id=source.removeprefix("models:/")),
        "no test-result evidence",
    )
    assert versions(shop, target) == []
    shop.prove(files)
    shop.client.create_model_version(target, source, model_id=source.removeprefix("models:/"))
    assert versions(shop, target) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "s3://evil-bucket/model",
        "file:///etc",
        "/etc",
        "mlflow-artifacts:/0/../..",
        "mlflow-artifacts:/",
        "gs://evil/x",
        "zz:///x",
    ],
)
def test_evil_sources_for_a_governed_model(shop, source):
    target = shop.fresh("risk-{}-prod")
    shop.client.create_registered_model(target)
    answer = shop.post("model-versions/create", name=target, source=source)
    assert 400 <= answer.status_code < 500, answer.text
    assert versions(shop, target) == []


def test_rename_into_a_governed_name(shop):
    name, version, _ = shop.model(name=shop.fresh("else-{}"))
    shop.client.set_registered_model_alias(name, "scratch", version)
    target = shop.fresh("risk-{}-prod")
    shop.refused(lambda: shop.client.rename_registered_model(name, target), "no test-result evidence")
    assert shop.aliases(name) == {"scratch": version}
    shop.refused(lambda: shop.client.get_registered_model(target), "not found", status=404)


def test_rename_into_a_name_that_no_policy_names(shop):
    name, _, _ = proven(shop)
    shop.refused(
        lambda: shop.client.rename_registered_model(name, shop.fresh("else-{}")), "no policy governs this action"
    )
    assert versions(shop, name) == [1]


def test_rename_carries_each_alias_to_the_gate(shop):
    """champion is governed under the old name; under the new one every alias is."""
    name, version, _ = proven(shop)
    shop.client.set_registered_model_alias(name, "champion", version)
    source, _ = shop.upload(shop.pyfunc())
    shop.client.create_model_version(name, source, model_id=source.removeprefix("models:/"))
    shop.client.set_registered_model_alias(name, "scratch", "2")
    target = shop.fresh("risk-{}-prod")
    shop.refused(lambda: shop.client.rename_registered_model(name, target), "no test-result evidence")
    assert shop.aliases(name) == {"champion": version, "scratch": "2"}
    shop.client.delete_model_version(name, "2")
    shop.client.rename_registered_model(name, target)
    assert shop.aliases(target) == {"champion": version}


def test_delete_and_recreate_does_not_inherit_an_approval(shop):
    name, version, _ = proven(shop)
    shop.client.set_registered_model_alias(name, "champion", version)
    shop.client.delete_registered_model(name)
    shop.model(shop.pyfunc({"evil": True}), name=name)  # its first version is number 1 again
    assert shop.aliases(name) == {}
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version), "no test-result evidence")
    assert shop.aliases(name) == {}


def test_delete_and_recreate_racing_with_the_promotion(shop):
    """Whatever the order, champion never points at what was not proven."""
    name, version, good = proven(shop)
    evil_source, evil = shop.upload(shop.pyfunc({"evil": True}))
    stop = threading.Event()
    outcomes = []

    def promote():
        while not stop.is_set():
            answer = shop.post("registered-models/alias", name=name, alias="champion", version="1")
            outcomes.append(answer.status_code)

    def swap(source):
        shop.call("DELETE", "registered-models/delete", {"name": name})
        shop.post("registered-models/create", name=name)
        shop.post("model-versions/create", name=name, source=source, model_id=source.removeprefix("models:/"))

    good_source = shop.client.get_model_version(name, "1").source
    threads = [threading.Thread(target=promote) for _ in range(2)]
    for thread in threads:
        thread.start()
    wrong = []
    for turn in range(8):
        swap(evil_source if turn % 2 == 0 else good_source)
        model = shop.call("GET", f"registered-models/get?name={name}", {}).json()["registered_model"]
        at = shop.client.get_model_version_download_uri(name, "1")
        if model.get("aliases") and at == evil:
            wrong.append(model)
    swap(evil_source)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert shop.aliases(name) == {}
    assert shop.client.get_model_version_download_uri(name, "1") == evil
    assert not any(status >= 500 for status in outcomes), sorted(set(outcomes))


@pytest.mark.parametrize("alias", ["ｃhampion", "chаmpion", "champion\u200b", "CHAMPION", "Champion", "cHAMPION"])
def test_lookalike_aliases(shop, alias):
    name, version, _ = shop.model()
    answer = shop.post("registered-models/alias", name=name, alias=alias, version=version)
    assert answer.status_code in (400, 403), answer.text
    assert shop.aliases(name) == {}


@pytest.mark.parametrize("number", ["01", " 1", "１", "+1", "1 ", "0x1"])
def test_other_spellings_of_a_version(shop, number):
    name, _, _ = proven(shop)
    for route, more in (
        ("registered-models/alias", {"alias": "champion"}),
        ("model-versions/transition-stage", {"stage": "Production"}),
    ):
        answer = shop.post(route, name=name, version=number, **more)
        assert answer.status_code == 400, answer.text
    assert shop.aliases(name) == {}
    assert shop.client.get_model_version(name, "1").current_stage == "None"


@pytest.mark.parametrize("stage", ["Ｐroduction", "Productіon", "production ", "PRODUCTION\n", ""])
def test_stage_spellings(shop, stage):
    name, version, _ = proven(shop)
    answer = shop.post("model-versions/transition-stage", name=name, version=version, stage=stage)
    assert answer.status_code == 400, answer.text
    assert shop.client.get_model_version(name, version).current_stage == "None"


def test_models_whose_names_look_alike(shop):
    name, _, _ = shop.model()
    for twin in (name.upper(), name.replace("i", "і"), name + " ", name + "\u200b"):
        answer = shop.post("registered-models/create", name=twin)
        assert answer.status_code == 400, (twin, answer.text)
    empty = shop.fresh("else-{}")
    shop.client.create_registered_model(empty)
    shop.refused(lambda: shop.client.rename_registered_model(empty, name.upper()), "differs in case only", status=400)
    found = [m.name for m in shop.client.search_registered_models(f"name ILIKE '{name}%'")]
    assert found == [name]


def test_the_browsers_routes_are_gated_too(shop):
    import requests

    name, version, _ = shop.model()
    for route, body in (
        ("registered-models/alias", {"alias": "champion"}),
        ("model-versions/transition-stage", {"stage": "Production"}),
    ):
        answer = requests.post(
            f"{shop.url}/ajax-api/2.0/mlflow/{route}", json={"name": name, "version": version, **body}, timeout=30
        )
        assert answer.status_code == 403, answer.text
    assert shop.aliases(name) == {}
    assert shop.client.get_model_version(name, version).current_stage == "None"


def test_evidence_for_other_bytes_is_no_evidence(shop):
    """Swapped subject: a passing result about another model, laid beside this one."""
    name, version, uri = shop.model()
    foreign = shop.prove(shop.pyfunc(), store=False)
    shop.overwrite(uri, "attestations/tests.sigstore.json", foreign.raw)
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version), "no test-result evidence")
    assert shop.aliases(name) == {}


def test_files_changed_before_promotion_lose_their_evidence(shop):
    for change in ("overwrite", "extra", "rename"):
        files = shop.pyfunc()
        name, version, uri = shop.model(files)
        shop.prove(files)
        if change == "overwrite":
            shop.overwrite(uri, "model.pkl", b"other")
        elif change == "extra":
            shop.overwrite(uri, "code/sitecustomize.py", b"import os\n")
        else:
            shop.overwrite(uri, "model2.pkl", files["model.pkl"])
            (shop.artifacts / uri.removeprefix("mlflow-artifacts:/") / "model.pkl").unlink()
        shop.refused(
            lambda: shop.client.set_registered_model_alias(name, "champion", version), "no test-result evidence"
        )
        assert shop.aliases(name) == {}, change


def test_evidence_by_the_wrong_identity(shop):
    """The producer, and the gate itself, vouch for a model."""
    for role in ("producer", "gate", "monitor", "reviewer/alice"):
        files = shop.pyfunc()
        name, version, _ = shop.model(files)
        shop.prove(files, role=role)
        message = shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version))
        assert "roles/evaluator" in message
        assert shop.aliases(name) == {}


def test_a_failed_result_outweighs_a_later_pass(shop):
    """Re-run until green."""
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.prove(files, result="FAILED")
    shop.prove(files, result="PASSED")
    message = shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version))
    assert "did not pass" in message
    assert shop.aliases(name) == {}


def test_spoilt_bundles_beside_a_model_do_not_get_in_the_way(shop):
    files = shop.pyfunc()
    name, version, uri = shop.model(files)
    bundle = shop.prove(files, store=False)
    signature = bundle.document["dsseEnvelope"]["signatures"][0]["sig"]
    spoilt = bundle.raw.replace(signature.encode(), (signature[:20] + "AAAA" + signature[24:]).encode())
    shop.overwrite(uri, "attestations/a.json", spoilt)
    shop.overwrite(uri, "attestations/b.json", b"{")
    shop.overwrite(uri, "attestations/c.json", bundle.raw[:500])
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version))
    assert shop.aliases(name) == {}
    assert not shop.authority.store.path(bundle.evidence_id).is_file()
    shop.overwrite(uri, "attestations/d.json", bundle.raw)
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}


def test_a_version_without_files(shop):
    name, version, uri = shop.model()
    import shutil

    shutil.rmtree(shop.artifacts / uri.removeprefix("mlflow-artifacts:/"))
    answer = shop.post("registered-models/alias", name=name, alias="champion", version=version)
    assert 400 <= answer.status_code < 500, answer.text
    assert shop.aliases(name) == {}


def test_links_out_of_storage(shop):
    """Someone with a shell on the storage links to a file of the server."""
    files = shop.pyfunc()
    name, version, uri = shop.model(files)
    shop.prove(files)
    (shop.artifacts / uri.removeprefix("mlflow-artifacts:/") / "extra").symlink_to("/etc/passwd")
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version), "leaves the directory")
    assert shop.aliases(name) == {}


def test_conflicting_spellings_of_a_field(shop):
    """protobuf's JSON takes snake and camel case; the gate sees what MLflow parsed."""
    name, version, _ = shop.model()
    body = {
        "name": name,
        "stage": "None",
        "version": version,
        "archive_existing_versions": False,
        "archiveExistingVersions": True,
    }
    shop.post("model-versions/transition-stage", **body)
    answer = shop.call(
        "POST", f"model-versions/transition-stage?{urllib.parse.urlencode({'stage': 'Production'})}", body
    )
    assert answer.status_code < 500
    assert shop.client.get_model_version(name, version).current_stage == "None"
