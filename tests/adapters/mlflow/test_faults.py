"""Evidence taken back, withheld or spoilt, and parts that fail while the server runs: never allowed, always 4xx."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def own(new_shop):
    """A server whose log this test may disturb."""
    return new_shop(workers=1)


def promote(shop, name, version, *words, status=403):
    return shop.refused(
        lambda: shop.client.set_registered_model_alias(name, "champion", version), *words, status=status
    )


def test_what_goes_wrong_with_evidence(own, monkeypatch):
    """One server, one story: each fault is mended before the next."""
    shop = own
    import mlflow

    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    proof = shop.prove(files)
    shop.client.set_registered_model_alias(name, "champion", version)
    mlflow.set_tracking_uri(shop.url)
    mlflow.set_registry_uri(shop.url)
    try:
        _withheld(shop, name, version, proof)
        _corrupt(shop, name, version, proof)
        _store_gone(shop, name, version)
        _service_gone(shop, name, version)
        _load_works(shop, name, mlflow)
        _revoked(shop, name, version, proof, mlflow)
    finally:
        mlflow.set_registry_uri(None)
        mlflow.set_tracking_uri(None)
    assert "Traceback" not in shop.log.read_text() or "mlseal: unforeseen" not in shop.log.read_text()


def _load_works(shop, name, mlflow):
    assert mlflow.artifacts.download_artifacts(f"attested:/{name}@champion")


def _withheld(shop, name, version, proof):
    """A bundle that the log knows and nobody shows, of whatever result."""
    path = shop.authority.store.path(proof.evidence_id)
    path.rename(path.with_suffix(".aside"))
    promote(shop, name, version)
    path.with_suffix(".aside").rename(path)
    shop.client.set_registered_model_alias(name, "champion", version)


def _corrupt(shop, name, version, proof):
    path = shop.authority.store.path(proof.evidence_id)
    whole = path.read_bytes()
    for spoilt in (
        whole[: len(whole) // 2],
        b"",
        whole.replace(b"PASSED", b"FAILED"),
        b"{}",
        whole.replace(b'"sig":"M', b'"sig":"N'),
    ):
        if spoilt == whole:
            continue
        path.write_bytes(spoilt)
        promote(shop, name, version)
    path.write_bytes(whole)
    shop.client.set_registered_model_alias(name, "champion", version)


def _store_gone(shop, name, version):
    root = shop.authority.store.root
    root.rename(root.with_name("evidence-aside"))
    promote(shop, name, version)
    os.path.isdir(root) and __import__("shutil").rmtree(root)
    root.with_name("evidence-aside").rename(root)
    shop.client.set_registered_model_alias(name, "champion", version)


def _service_gone(shop, name, version):
    shop.authority.stop()
    services = shop.authority.home.path / ".config/mlseal/services.json"
    aside = services.read_bytes()
    services.unlink()  # nobody may start it on demand
    promote(shop, name, version)
    services.write_bytes(aside)
    services.chmod(0o600)
    shop.authority.start()
    shop.client.set_registered_model_alias(name, "champion", version)


def _revoked(shop, name, version, proof, mlflow):
    shop.revoke(proof.evidence_id)
    shop.snapshot()
    promote(shop, name, version)
    shop.refused(lambda: mlflow.artifacts.download_artifacts(f"attested:/{name}@champion"))
    shop.client.delete_registered_model_alias(name, "champion")
    assert shop.aliases(name) == {}


def test_without_a_fresh_snapshot_nothing_is_allowed(new_shop):
    shop = new_shop(start=False, workers=1)
    shop.start()
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    shop.prove(files)
    promote(shop, name, version, "snapshot")
    shop.snapshot()
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}


def test_self_approval(new_shop):
    """The person who trained it approves it."""
    policy = """\
policy: people/1
applies:
  - {{tool: mlflow, action: alias, alias: champion, model: "*", workspace: "*"}}
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
require:
  - predicate: human-approval
    by:
      - {{issuer: "{issuer}", san: "{alice}"}}
    distinct: 1
ungoverned: [{{tool: mlflow, action: create, owner: tests, until: "2100-01-01T00:00:00Z"}}]
"""
    from mlseal.evidence import statement
    from mlseal.evidence.predicates import human_approval

    shop = new_shop(policy=policy, workers=1)
    files = shop.pyfunc()
    name, version, _ = shop.model(files)

    def approve(role, nonce):
        predicate = {
            "decision": "approve",
            "reviewed": ["0" * 64],
            "expires": "2099-01-01T00:00:00Z",
            "nonce": nonce * 32,
            "notProven": ["that anything was read"],
        }
        subjects = shop.measured(files).subjects
        shop.authority.signer(role).sign(statement.make(subjects, human_approval.URI, predicate))

    for role, nonce in (("producer", "a"), ("gate", "b"), ("reviewer/mallory", "c")):
        approve(role, nonce)
        promote(shop, name, version)
    assert shop.aliases(name) == {}
    approve("reviewer/alice", "d")
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}


def test_large_models_are_hashed_in_the_background(new_shop):
    """409 until the hash is known to every worker, never 5xx; a model beyond the limit is refused."""
    import time

    shop = new_shop(MLSEAL_MLFLOW_INLINE_BYTES="4000", MLSEAL_MLFLOW_MAX_BYTES="3000000")
    files = {**shop.pyfunc(), "weights.bin": os.urandom(2_000_000)}
    name, version, _ = shop.model(files)
    shop.prove(files)
    seen = set()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        answer = shop.post("registered-models/alias", name=name, alias="champion", version=version)
        seen.add(answer.status_code)
        if answer.status_code == 200:
            break
        assert answer.status_code == 409, answer.text
        assert "verification pending" in answer.text
        time.sleep(0.1)
    assert seen == {409, 200}
    assert shop.aliases(name) == {"champion": version}
    big, number, _ = shop.model({**shop.pyfunc(), "weights.bin": os.urandom(3_000_001)})
    promote(shop, big, number, "larger than the gate hashes")
    assert shop.aliases(big) == {}
