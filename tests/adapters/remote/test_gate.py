"""A gate, an audit and the commands over evidence in a bucket: real signatures, a real log, a real S3 service."""

from __future__ import annotations

import json
import os
import threading

import pytest

from mlseal.errors import ServiceUnavailable
from mlseal.evidence import audit as auditing
from mlseal.evidence import paths, store, verifying
from mlseal.evidence.archive import Archive
from mlseal.evidence.audit import audit
from mlseal.evidence.deadlines import Limits
from mlseal.evidence.signing import signer
from mlseal.evidence.tiles import service_tiles
from mlseal.policy.gate import judge
from mlseal.policy.verdict import to_statement
from tests.adapters.remote.changing import changed
from tests.adapters.remote.conftest import PATIENT, SECRET, enter
from tests.adapters.remote.elsewhere import Elsewhere
from tests.adapters.remote.relay import Lie
from tests.unit.policy.test_archive import Bench


@pytest.fixture
def desk(authority, remote, tmp_path, monkeypatch):
    """A model, and evidence about it in the bucket; the log is this test's own."""
    enter(remote, monkeypatch)
    return Bench(Elsewhere(authority, remote.open()), tmp_path / "model")


@pytest.fixture
def authority(new_authority):
    return new_authority()


@pytest.fixture
def judged(desk, remote, tmp_path, monkeypatch):
    """Judges as somebody who was never here: no index, no cache; `again` keeps both of the one before."""
    count = iter(range(99))

    def ask(*, again=False, limits=PATIENT):
        if not again:
            number = next(count)
            monkeypatch.setenv("MLSEAL_STATE_DIR", str(tmp_path / f"state{number}"))
            monkeypatch.setenv("MLSEAL_CACHE_DIR", str(tmp_path / f"cache{number}"))
        archive = Archive.open(desk.authority.trust, remote.open(limits=limits))
        return judge(desk.measured, None, [desk.policy()], archive)

    return ask


def reasons(verdict):
    return " ".join(f"{r.message} {r.got} {r.expected}" for r in verdict.reasons)


def test_allowed_refused_and_the_bucket_is_never_listed(desk, judged, remote, authority):
    for number in range(1000):  # of other people, in the same bucket
        remote.lay_at_once(f"{number:064x}", b"x")
    desk.good()
    remote.relay.asked.clear()
    verdict = judged()
    assert verdict.kind == "allowed", reasons(verdict)
    named = [path for method, path in remote.relay.asked if method == "GET"]
    assert not [path for path in named if "list-type" in path]
    assert len(named) == desk.archive.refresh(), "each bundle of the log once"
    remote.relay.asked.clear()
    assert judged(again=True).kind == "allowed"
    assert remote.relay.asked == []
    signed = desk.authority.signer("gate").sign(to_statement(verdict, desk.measured.subjects, nonce="n"))
    assert remote.read(signed.evidence_id) == signed.raw
    desk.fairness(0.4)
    assert judged(again=True).kind == "refused"
    for leaf in desk.archive.index.leaves():
        assert SECRET.encode() not in remote.read(leaf.evidence_id)


def test_what_is_deleted_replaced_or_cut_leaves_it_undecided(desk, judged, remote):
    desk.good()
    failed = desk.fairness(0.4)
    whole = remote.read(failed)
    assert judged().kind == "refused"
    for spoil in (
        lambda: remote.drop(failed),
        lambda: remote.lay(failed, b""),
        lambda: remote.lay(failed, whole[: len(whole) // 2]),
        lambda: remote.lay(failed, remote.read(desk.good())),
    ):
        spoil()
        verdict = judged()
        assert verdict.kind == "undecided"
        assert "the log holds evidence that nobody shows" in reasons(verdict)


def test_a_spoilt_signature_stops_until_the_bucket_is_mended(desk, judged, remote):
    """A wrong encoding has the right id, so the cache takes it; it is dropped when it does not verify."""
    good = desk.good()
    whole = remote.read(good)
    document = json.loads(whole)
    other = json.loads(remote.read(desk.provenance()))["dsseEnvelope"]["signatures"]
    document["dsseEnvelope"]["signatures"] = other
    remote.lay(good, json.dumps(document).encode())
    assert judged().kind in {"refused", "undecided"}
    assert judged(again=True).kind in {"refused", "undecided"}
    remote.lay(good, whole)
    verdict = judged(again=True)
    assert verdict.kind == "allowed", reasons(verdict)


def test_a_store_that_is_away_is_undecided_in_one_sentence(desk, judged, remote):
    desk.good()
    released = threading.Event()
    for lie, words in (
        (Lie(500, "InternalError"), "cannot be reached"),
        (Lie(403, "AccessDenied"), "refuses evidence"),
        (Lie(404, "NoSuchBucket"), "there is no bucket"),
        (Lie(wait=released), "did not answer"),
    ):
        remote.relay.lie = lambda *_, lie=lie: lie
        limits = Limits(call=0.5, total=0.5, workers=4) if lie.wait else PATIENT
        verdict = judged(limits=limits)
        assert verdict.kind == "undecided"
        assert words in reasons(verdict)
        assert SECRET not in reasons(verdict)
    released.set()


def test_away_with_a_warm_cache_what_is_known_is_judged_and_what_is_new_is_not(desk, judged, remote):
    desk.good()
    assert judged().kind == "allowed"
    remote.relay.lie = lambda *_: Lie(500, "InternalError")
    assert judged(again=True).kind == "allowed"
    remote.relay.lie = lambda *_: None
    desk.fairness(0.4)
    remote.relay.lie = lambda *_: Lie(500, "InternalError")
    verdict = judged(again=True)
    assert (verdict.kind, "cannot be reached" in reasons(verdict)) == ("undecided", True)
    remote.relay.lie = lambda *_: None
    assert judged(again=True).kind == "refused"


def test_nothing_is_logged_while_the_store_is_away_and_what_was_is_published_later(desk, remote):
    signer, before = desk.authority.signer("evaluator", store=remote.open()), desk.archive.refresh()
    remote.relay.lie = lambda *_: Lie(500, "InternalError")
    made = to_statement(judge(desk.measured, None, [desk.policy()], desk.archive), desk.measured.subjects, nonce="1")
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        signer.sign(made)
    assert desk.archive.refresh() == before
    remote.relay.lie = lambda method, _: Lie(500, "InternalError") if method == "PUT" else None
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        signer.sign(made)
    remote.relay.lie = lambda *_: None
    assert [leaf.evidence_id for leaf in _open(desk).unresolved()] == [made.evidence_id]
    assert [one.evidence_id for one in signer.recover()] == [made.evidence_id]
    assert _open(desk).unresolved() == []


def _open(desk):
    archive = Archive.open(desk.authority.trust, desk.authority.store)
    archive.refresh()
    return archive


def test_a_copy_of_a_directory_is_a_store(authority, remote, tmp_path, monkeypatch):
    """What 'aws s3 sync' does."""
    enter(remote, monkeypatch)
    bench = Bench(authority, tmp_path / "model")
    bench.good()
    root = authority.store.root
    for file in root.rglob("*.sigstore.json"):
        key = f"{remote.prefix}/{file.relative_to(root)}"
        remote.client.put_object(Bucket=remote.bucket, Key=key, Body=file.read_bytes())
    archive = Archive.open(authority.trust, remote.url)
    assert judge(bench.measured, None, [bench.policy()], archive).kind == "allowed"


def test_an_audit_is_about_what_the_bucket_shows_now(desk, remote):
    good = desk.good()
    trust, kept = desk.authority.trust, desk.authority.store
    report = audit(trust, kept, service_tiles(trust))
    assert report.passed
    assert len(report.verified) == report.tree_size
    whole = remote.read(good)
    remote.lay(good, whole.replace(b'"payload":"e', b'"payload":"f'))
    assert not audit(trust, kept, service_tiles(trust)).passed, "the cache has a good copy, and nobody asked it"
    remote.drop(good)
    assert [f.error.message for f in audit(trust, kept, service_tiles(trust)).findings] == ["no bundle for this leaf"]
    remote.lay(good, whole)
    remote.lay("f" * 64, whole)
    assert audit(trust, kept, service_tiles(trust)).unlogged == ["f" * 64]
    remote.relay.lie = lambda _, path: Lie(500, "InternalError") if "list-type" in path else None
    with pytest.raises(ServiceUnavailable):
        audit(trust, kept, service_tiles(trust))


def test_the_commands(authority, remote, tmp_path, monkeypatch):
    """From the first signature to the audit, as they are typed; and nothing secret is said."""
    enter(remote, monkeypatch)
    (model := tmp_path / "model").mkdir()
    (model / "weights.bin").write_bytes(os.urandom(32))
    (claim := tmp_path / "claim.json").write_text('{"result": "PASSED", "configuration": []}')
    policy = tmp_path / "policy.yaml"
    issuer = f"issuer: '{authority.issuer}', san: '{authority.san('producer')}'"
    monitor = f"issuer: '{authority.issuer}', san: '{authority.san('monitor')}'"
    policy.write_text(
        "policy: here/1\napplies: [{tool: '*', action: '*'}]\nassurance: {identity: local, log: unwitnessed, time: local}\n"
        f"revokers: [{{{monitor}}}]\nrequire:\n  - {{predicate: test-result, by: [{{{issuer}}}]}}\n"
    )
    said = []

    def run(*words, code=0, by_option=True):
        done = authority.call(*words, *(["--store", remote.url] if by_option else []))
        said.append(done.stdout + done.stderr)
        assert done.returncode == code, said[-1]
        return done.stdout

    signed = json.loads(run("sign", str(model), "--type", "test-result", "--predicate", str(claim), "--json"))
    assert signed["bundle"] == f"{remote.url}/{store.relative(signed['evidenceId'])}"
    run("revoke", "--snapshot")
    run("gate", str(model), "--policy", str(policy))
    monkeypatch.setenv("MLSEAL_STORE", remote.url)
    run("gate", str(model), "--policy", str(policy), by_option=False)
    run("approve", str(model), "--evidence", signed["evidenceId"][:10])
    assert "0 unresolved" in run("log", "show")
    assert "nothing missing" in run("audit")
    run("lineage", str(model))
    assert f"{remote.url}, 3 bundles, can be written" in run("doctor", "--write")
    assert "not asked: pass --store" in run("doctor", by_option=False)
    remote.drop(signed["evidenceId"])
    monkeypatch.setenv("MLSEAL_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert "no bundle for this leaf" in run("audit", code=11)
    run("gate", str(model), "--policy", str(policy), code=11)
    remote.relay.lie = lambda *_: Lie(500, "InternalError")
    monkeypatch.setenv("MLSEAL_STATE_DIR", str(tmp_path / "state"))
    for words in (["gate", str(model), "--policy", str(policy)], ["audit"], ["log", "show"], ["doctor"]):
        run(*words, code=11)
    with pytest.raises(AssertionError, match="cannot name an evidence store"):
        done = authority.call("audit", "--store", f"s3://x:{SECRET}@bucket/x")
        said.append(done.stdout + done.stderr)
        assert done.returncode == 0, said[-1]
    assert SECRET not in "".join(said)
    assert paths.cache_dir().name == "elsewhere"


MUTANTS = [
    (auditing, "store.afresh()", "store", test_an_audit_is_about_what_the_bucket_shows_now),
    (verifying, "self._doubted(bundle.evidence_id)", "pass", test_a_spoilt_signature_stops_until_the_bucket_is_mended),
    (signer, "self.store.require_answering()", "pass", test_nothing_is_logged_while_the_store_is_away_and_what_was_is_published_later),
]  # fmt: skip


@pytest.mark.parametrize(("module", "old", "new", "test"), MUTANTS, ids=[row[1] for row in MUTANTS])
def test_taking_a_check_out_is_noticed(module, old, new, test, desk, judged, remote):
    offered = {"desk": desk, "judged": judged, "remote": remote}
    with changed(module, old, new), pytest.raises(BaseException):
        test(**{name: offered[name] for name in test.__code__.co_varnames[: test.__code__.co_argcount]})
