"""Evidence taken back, withheld or spoilt, and parts that fail while the server runs: never allowed, always 4xx."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from mlseal_mlflow import doctor

from mlseal.evidence.store import relative
from tests.adapters.mlflow.test_posture import amiss, asked


@pytest.fixture
def own(new_shop):
    """A server whose log this test may disturb."""
    return new_shop(workers=1)


def promote(shop, name, version, *words, status=403):
    """Refused for the reason in `words`, and nothing points at the model afterwards."""
    said = shop.refused(
        lambda: shop.client.set_registered_model_alias(name, "champion", version), *words, status=status
    )
    assert shop.aliases(name) == {}
    return said


def allowed(shop, name, version):
    """In order again: the same promotion passes. Taken back at once, so that the next fault finds nothing promoted."""
    shop.client.set_registered_model_alias(name, "champion", version)
    assert shop.aliases(name) == {"champion": version}
    shop.client.delete_registered_model_alias(name, "champion")
    assert shop.aliases(name) == {}


def test_what_goes_wrong_with_evidence(own, monkeypatch):
    """One server, one story: nothing is promoted while a fault lasts, and each is mended before the next."""
    shop = own
    import mlflow

    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    proof = shop.prove(files)
    _any_bundle(shop, name, version)
    mlflow.set_tracking_uri(shop.url)
    mlflow.set_registry_uri(shop.url)
    try:
        _withheld(shop, name, version, proof)
        _corrupt(shop, name, version, proof)
        _store_gone(shop, name, version)
        _trust_gone(shop, name, version)
        _service_gone(shop, name, version)
        _revoked(shop, name, version, proof, mlflow)
    finally:
        mlflow.set_registry_uri(None)
        mlflow.set_tracking_uri(None)
    assert "unforeseen" not in shop.log.read_text()


def _any_bundle(shop, name, version):
    """A bundle that the gate never read is spoilt: it may be against any model, so this one is refused as well.

    Readiness and `doctor` say so, and name the file; both are good again once it is mended, and so is the promotion.
    """
    other = shop.prove(shop.pyfunc())
    path = shop.authority.store.path(other.evidence_id)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    said = promote(shop, name, version, "the log holds evidence that nobody shows", relative(other.evidence_id))
    assert f"mlseal revoke {other.evidence_id}" in said
    detail = amiss(shop, "log and revocations")
    assert str(path) in detail
    assert "restore the file from a copy" in detail
    posture, canary = doctor.server(shop.url)
    assert (posture.ok, canary.ok) == (False, True), posture
    assert str(path) in posture.detail
    path.write_bytes(whole)
    asked(shop, 200)
    assert all(check.ok for check in doctor.server(shop.url))
    allowed(shop, name, version)


def _withheld(shop, name, version, proof):
    """A bundle that the log knows and the gate has read, and nobody shows any more."""
    path = shop.authority.store.path(proof.evidence_id)
    path.rename(path.with_suffix(".aside"))
    promote(shop, name, version, "that the store no longer shows", str(path))
    path.with_suffix(".aside").rename(path)
    allowed(shop, name, version)


def _corrupt(shop, name, version, proof):
    path = shop.authority.store.path(proof.evidence_id)
    whole = path.read_bytes()
    document = json.loads(whole)
    envelope = document["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    failed = base64.b64encode(payload.replace(b"PASSED", b"FAILED")).decode()
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[-1] ^= 1
    signatures = [{**envelope["signatures"][0], "sig": base64.b64encode(signature).decode()}]
    spoilt = {
        "half": (whole[: len(whole) // 2], "bundle is not strict JSON"),
        "nothing": (b"", "is empty"),
        "no bundle": (b"{}", "not a Sigstore bundle v0.3"),
        "another result": (_bundle(document, payload=failed), "holds other evidence"),
        "another signature": (_bundle(document, signatures=signatures), "stock verification refused the bundle"),
    }
    for data, reason in spoilt.values():
        assert data != whole
        path.write_bytes(data)
        promote(shop, name, version, reason)
    path.write_bytes(whole)
    allowed(shop, name, version)


def _bundle(document, **changes):
    return json.dumps({**document, "dsseEnvelope": {**document["dsseEnvelope"], **changes}}).encode()


def _store_gone(shop, name, version):
    root = shop.authority.store.root
    root.rename(root.with_name("evidence-aside"))
    promote(shop, name, version, "that the store no longer shows")
    if root.is_dir():
        shutil.rmtree(root)
    root.with_name("evidence-aside").rename(root)
    allowed(shop, name, version)


def _trust_gone(shop, name, version):
    """While the server runs; it read it at its start."""
    file = Path(shop.env["MLSEAL_TRUST"])
    whole = file.read_bytes()
    aside = file.with_suffix(".aside")
    for spoil, reason in (
        (lambda: file.rename(aside), "the trust root is gone"),
        (lambda: file.write_text("{}"), "is not a trust root"),
    ):
        spoil()
        promote(shop, name, version, reason)
        assert reason in amiss(shop, "trust root")
        aside.unlink(missing_ok=True)
        file.write_bytes(whole)
        asked(shop, 200)
    allowed(shop, name, version)


def _service_gone(shop, name, version):
    shop.authority.stop()
    services = shop.authority.home.path / ".config/mlseal/services.json"
    aside = services.read_bytes()
    services.unlink()  # nobody may start it on demand
    promote(shop, name, version, "the trust service does not run")
    services.write_bytes(aside)
    services.chmod(0o600)
    shop.authority.start()
    allowed(shop, name, version)


def _revoked(shop, name, version, proof, mlflow):
    """What is promoted loads, until what it rests on is taken back; then nothing puts it back where it was."""
    shop.client.set_registered_model_alias(name, "champion", version)
    uri = f"attested:/{name}@champion"
    assert mlflow.artifacts.download_artifacts(uri)
    shop.revoke(proof.evidence_id)
    shop.snapshot()
    shop.refused(lambda: mlflow.artifacts.download_artifacts(uri), "was withdrawn")
    shop.client.delete_registered_model_alias(name, "champion")
    promote(shop, name, version, "was withdrawn by a listed revoker")


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
    """From their registration on, so that a promotion finds it done; else 409 until every worker knows. Never 5xx."""
    shop = new_shop(MLSEAL_MLFLOW_INLINE_BYTES="4000", MLSEAL_MLFLOW_MAX_BYTES="3000000")
    files = {**shop.pyfunc(), "weights.bin": os.urandom(2_000_000)}
    name, version, _ = shop.model(files, proven=True)
    _hashed(shop, 1)
    allowed(shop, name, version)
    name, version, place = shop.model({**files, "weights.bin": os.urandom(2_000_000)})
    _hashed(shop, 2)
    files["weights.bin"] = os.urandom(2_000_001)  # came later, and nobody hashed it
    shop.overwrite(place, "weights.bin", files["weights.bin"])
    shop.prove(files)
    seen = []
    end = time.monotonic() + 60
    while seen[-1:] != [200]:
        answer = shop.post("registered-models/alias", name=name, alias="champion", version=version)
        seen.append(answer.status_code)
        assert answer.status_code == 200 or "verification pending" in answer.text, answer.text
        assert time.monotonic() < end, seen
        time.sleep(0.1)
    assert set(seen) == {409, 200}
    assert shop.aliases(name) == {"champion": version}
    big, number, _ = shop.model({**shop.pyfunc(), "weights.bin": os.urandom(3_000_001)})
    promote(shop, big, number, "larger than the gate hashes")


def _hashed(shop, number):
    """So many models were hashed in the background."""
    place = shop.authority.home.path / ".local/state/mlseal/mlflow"
    end = time.monotonic() + 60
    while len(list(place.glob("*.json"))) < number:
        assert time.monotonic() < end, sorted(place.iterdir())
        time.sleep(0.05)
