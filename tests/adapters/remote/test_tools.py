"""KFP steps, the MLflow gate and the DVC hooks with the evidence in a bucket."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from mlseal_dvc import revoked, sealing
from mlseal_dvc.checking import Checker

from mlseal.errors import MalformedEvidence, ServiceUnavailable, Unchecked
from mlseal.evidence import store
from mlseal.evidence.archive import Archive
from mlseal.evidence.bucket import BucketStore
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import utcnow
from mlseal.evidence.revocation import Revocation, Revocations
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


def test_dvc_does_not_take_no_answer_for_nobody_keeps_it(authority, remote):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    made = snapshot(archive, authority.signer("monitor"), valid_for=timedelta(hours=1))
    listed = {name: Revocation(name, "withdrawn", "x") for name in ("0" * 64, made.evidence_id)}
    checker = SimpleNamespace(_revocations=Revocations(listed))
    kept = remote.open(cached=False)
    assert [one.evidence_id for one in Checker.taken_back(checker, kept)] == [made.evidence_id]
    remote.relay.lie = lambda *_: Lie(403, "AccessDenied")
    with pytest.raises(ServiceUnavailable, match="refuses"):
        list(Checker.taken_back(checker, kept))


def _by_a_step(archive, bundle, tmp_path):
    from mlseal_kfp import surroundings

    store.Store(tmp_path / "known").put(bundle)
    known = SimpleNamespace(path=tmp_path / "known", require=lambda: tmp_path / "known")
    task = SimpleNamespace(artifact=lambda _: known)
    surroundings._bring(task, archive.store, archive.trust, utcnow)


def _by_the_gate(archive, bundle, tmp_path):
    from mlseal_mlflow import beside
    from mlseal_mlflow.decision import Decisions

    folder = tmp_path / "model" / beside.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        (folder / f"{number}.sigstore.json").write_bytes(bundle.raw)
    Decisions.notice(SimpleNamespace(archive=archive, _clock=utcnow), tmp_path / "model")


@pytest.mark.parametrize("bring", [_by_a_step, _by_the_gate])
def test_what_the_bucket_lost_is_put_back_whatever_the_cache_holds(authority, remote, tmp_path, bring):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    made = snapshot(archive, authority.signer("monitor"), valid_for=timedelta(hours=1))
    remote.drop(made.evidence_id)
    assert archive.store.has(made.evidence_id), "this test is about what the cache holds"
    bring(archive, made, tmp_path)
    assert remote.read(made.evidence_id) == made.raw
    bring(archive, made, tmp_path)
    assert remote.read(made.evidence_id) == made.raw


def test_a_gate_waits_once_for_a_bucket_that_gives_no_answer(authority, remote, tmp_path, caplog):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    made = snapshot(archive, authority.signer("monitor"), valid_for=timedelta(hours=1))
    remote.relay.lie = lambda *_: Lie(403, "AccessDenied")
    remote.relay.asked.clear()
    _by_the_gate(archive, made, tmp_path)
    assert "are not taken in: the store" in caplog.text
    assert caplog.text.count("not taken in") == 1
