"""KFP steps and the DVC hooks with the evidence in a bucket."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from mlseal_dvc import revoked, sealing

from mlseal.errors import MalformedEvidence, ServiceUnavailable, Unchecked
from mlseal.evidence import store
from mlseal.evidence.archive import Archive
from mlseal.evidence.bucket import BucketStore
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.revoking import snapshot
from tests.adapters.kfp.test_gate import case  # noqa: F401 - a fixture
from tests.adapters.remote.conftest import enter
from tests.adapters.remote.elsewhere import Elsewhere
from tests.adapters.remote.relay import Lie


@pytest.fixture
def authority(new_authority, remote, monkeypatch):
    made = new_authority()
    enter(remote, monkeypatch)
    return Elsewhere(made, remote.open())


def test_a_kfp_gate_decides_enforces_and_stops_by_the_bucket(case, remote, monkeypatch, tmp_path):  # noqa: F811
    case.give("evidence_1", case.evidence())
    assert case.decided()["verificationResult"] == "PASSED"
    verdict = case.verdict.read_bytes()
    assert remote.read(Bundle(verdict).evidence_id) == verdict
    (case.base / "verdict").write_bytes(verdict)
    case.artifacts.clear()
    case.parameters.clear()
    case.give("verdict", case.base / "verdict")
    monkeypatch.setenv("MLSEAL_STATE_DIR", str(tmp_path / "another-pod"))
    monkeypatch.setenv("MLSEAL_CACHE_DIR", str(tmp_path / "another-pods-cache"))
    assert case.run("enforce")[0] == 0
    monkeypatch.setenv("MLSEAL_STATE_DIR", str(tmp_path / "a-third-pod"))
    monkeypatch.setenv("MLSEAL_CACHE_DIR", str(tmp_path / "a-third-pods-cache"))
    remote.relay.lie = lambda *_: Lie(500, "InternalError")
    code, said = case.run("enforce")
    assert (code, "cannot be reached" in said) == (Unchecked.exit_code, True), said


def test_dvc_looks_for_what_was_taken_back_in_the_bucket(authority, remote, monkeypatch):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    made = snapshot(archive, authority.signer("monitor"), valid_for=timedelta(hours=1))
    monkeypatch.setenv("MLSEAL_STORE", remote.url)
    assert [bundle.evidence_id for bundle in revoked._in_store()] == [made.evidence_id]
    kept = sealing._store(SimpleNamespace(repo=None))
    assert isinstance(kept, BucketStore)
    assert str(kept) == remote.url
    remote.lay("f" * 64, b"{}")
    with pytest.raises(MalformedEvidence):
        list(revoked._in_store())
    remote.relay.lie = lambda *_: Lie(500, "InternalError")
    with pytest.raises(ServiceUnavailable):
        list(revoked._in_store())
    assert store.resolve().where(made.evidence_id).startswith(remote.url)
