"""Through a real server with two workers: what is proven goes through, what is not is refused with a reason."""

from __future__ import annotations

import threading
import time

import pytest


def test_alias_is_refused_until_there_is_evidence_and_then_set(shop):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    message = shop.refused(
        lambda: shop.client.set_registered_model_alias(name, "champion", version), "no test-result evidence", "remedy:"
    )
    assert "roles/evaluator" in message
    assert shop.aliases(name) == {}
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}


def test_the_raw_answer_names_error_and_remedy_for_machines(shop):
    name, version, _ = shop.model()
    answer = shop.post("registered-models/alias", name=name, alias="champion", version=version)
    assert answer.status_code == 403
    body = answer.json()
    assert body["error_code"] == "PERMISSION_DENIED"
    assert body["mlseal"]["error"] == "Unchecked"
    assert body["mlseal"]["exitCode"] == 11
    assert "mlseal sign" in body["mlseal"]["remedy"]


def test_failed_evidence_refuses_with_the_policys_words(shop):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.prove(files, result="FAILED")
    shop.refused(
        lambda: shop.client.set_registered_model_alias(name, "champion", version),
        "the tests of this model did not pass",
    )
    assert shop.aliases(name) == {}


def test_stage_is_gated_in_every_case_of_its_name(shop):
    name, version, _ = shop.model()
    for stage in ("Production", "production", "pRoDuCtIoN", "Staging", "STAGING"):
        shop.refused(
            lambda stage=stage: shop.client.transition_model_version_stage(name, version, stage), "no test-result"
        )
    assert shop.client.get_model_version(name, version).current_stage == "None"


def test_stage_goes_through_with_evidence_and_archives_the_old_one(shop):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.prove(files)
    assert shop.client.transition_model_version_stage(name, version, "production").current_stage == "Production"
    source, _ = shop.upload(files)
    second = str(shop.client.create_model_version(name, source, model_id=source.removeprefix("models:/")).version)
    shop.client.transition_model_version_stage(name, second, "Production", archive_existing_versions=True)
    assert shop.client.get_model_version(name, version).current_stage == "Archived"


def test_demotion_is_always_possible(shop):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    shop.client.transition_model_version_stage(name, version, "Production")
    shop.client.transition_model_version_stage(name, version, "Archived")
    shop.client.transition_model_version_stage(name, version, "None")
    shop.client.delete_registered_model_alias(name, "champion")
    assert shop.aliases(name) == {}
    shop.client.delete_model_version(name, version)
    shop.client.delete_registered_model(name)


def test_an_action_that_no_policy_names_is_refused(shop):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.prove(files)
    shop.refused(
        lambda: shop.client.set_registered_model_alias(name, "challenger", version), "no policy governs this action"
    )
    assert shop.aliases(name) == {}


def test_a_listed_exemption_lets_pass(shop):
    name, version, _ = shop.model()
    shop.client.set_registered_model_alias(name, "scratch", version)
    assert shop.aliases(name) == {"scratch": version}


def test_what_is_not_there_is_404_not_403(shop):
    name, _, _ = shop.model()
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", "99"), "not found", status=404)
    shop.refused(lambda: shop.client.set_registered_model_alias(shop.fresh(), "champion", "1"), "not found", status=404)


def test_the_verdict_is_signed_by_the_gate_kept_and_put_beside_the_model(shop):
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.identity import Identity

    files = shop.pyfunc()
    name, version, uri = shop.model(files)
    proof = shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    end = time.monotonic() + 20
    while not (
        beside := [data for path, data in shop.files_of(uri).items() if "verdict-" in path and "uploading" not in path]
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(beside) == 1
    archive = Archive.open(shop.authority.trust, shop.authority.store)
    archive.refresh()
    said = archive.verifier.verify(
        Bundle(beside[0]),
        predicate_type="slsa-vsa",
        identities=[Identity(shop.authority.issuer, shop.authority.san("gate"))],
        subjects=[s.sha256 for s in shop.measured(files).subjects],
        revocations=archive.revocations([]),
    )
    assert said.predicate.verification_result == "PASSED"
    assert proof.evidence_id in {i.annotations["evidenceId"] for i in said.predicate.input_attestations}
    assert said.predicate.mlseal.action == {
        "tool": "mlflow",
        "action": "alias",
        "alias": "champion",
        "model": name,
        "version": version,
        "workspace": "default",
    }
    assert archive.store.get(said.evidence_id).raw == beside[0]


def test_a_refusal_is_signed_too_a_moment_later(shop):
    from mlseal.evidence.archive import Archive

    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version))
    archive = Archive.open(shop.authority.trust, shop.authority.store)
    end = time.monotonic() + 20
    while True:
        archive.refresh()
        found = archive.candidates([shop.measured(files).sha256], ["slsa-vsa"])
        if found or time.monotonic() > end:
            break
        time.sleep(0.1)
    assert [bundle.statement.predicate["verificationResult"] for bundle in found] == ["FAILED"]


def test_evidence_may_travel_with_the_model(shop):
    """The evaluator reaches the artifact proxy, not the gate's store."""
    files = shop.pyfunc()
    name, version, uri = shop.model(files)
    bundle = shop.prove(files, store=False)
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", version))
    shop.overwrite(uri, "attestations/tests.sigstore.json", bundle.raw)
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}


def test_many_promotions_at_once_over_two_workers(shop):
    files = shop.pyfunc()
    shop.prove(files)
    models = [shop.model(files)[:2] for _ in range(6)]
    failed = []

    def promote(name, version):
        try:
            shop.client.set_registered_model_alias(name, "champion", version)
        except Exception as error:
            failed.append(str(error))

    threads = [threading.Thread(target=promote, args=model) for model in models for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all(shop.aliases(name) == {"champion": version} for name, version in models)


@pytest.mark.parametrize("key", ["mlseal.approved", "MLSEAL.x", "mlseal.verdict.champion"])
def test_reserved_tags_are_refused_everywhere(shop, key):
    name, version, _ = shop.model()
    shop.refused(lambda: shop.client.set_registered_model_tag(name, key, "1"), "name space")
    shop.refused(lambda: shop.client.set_model_version_tag(name, version, key, "1"), "name space")
    shop.refused(lambda: shop.client.delete_registered_model_tag(name, key), "name space")
    shop.refused(lambda: shop.client.delete_model_version_tag(name, version, key), "name space")
    shop.refused(lambda: shop.client.create_registered_model(shop.fresh(), tags={key: "1"}), "name space")
    source, _ = shop.upload(shop.pyfunc())
    shop.refused(
        lambda: shop.client.create_model_version(
            name, source, tags={key: "1"}, model_id=source.removeprefix("models:/")
        ),
        "name space",
    )
    assert len(shop.client.search_model_versions(f"name='{name}'")) == 1


def test_other_tags_stay_free(shop):
    name, version, _ = shop.model()
    shop.client.set_registered_model_tag(name, "team", "risk")
    shop.client.set_model_version_tag(name, version, "note", "x")
    shop.client.delete_model_version_tag(name, version, "note")
    assert shop.client.get_registered_model(name).tags == {"team": "risk"}


def test_webhooks_report_to_listed_hosts_only(shop):
    events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
    import requests

    answer = requests.post(
        f"{shop.url}/api/2.0/mlflow/webhooks",
        json={"name": "w", "url": "https://evil.example/x", "events": events},
        timeout=30,
    )
    assert answer.status_code == 403, answer.text
    assert "MLSEAL_MLFLOW_WEBHOOK_HOSTS" in answer.text
    assert requests.get(f"{shop.url}/api/2.0/mlflow/webhooks", timeout=30).json().get("webhooks", []) == []
