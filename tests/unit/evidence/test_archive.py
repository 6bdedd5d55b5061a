"""Index, revocations and audit over a real log: absence is noticed, whoever deletes."""

import gc
import json
import os
import shutil
import sqlite3
import time
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import (
    Error,
    ForgedEvidence,
    MalformedEvidence,
    NoEvidence,
    SplitView,
    StaleEvidence,
    Unchecked,
    Withheld,
)
from mlseal.evidence import publickey, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.audit import audit, directory_tiles
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import utcnow
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.keyholder import KeyHolder
from mlseal.evidence.mirror import copy_log
from mlseal.evidence.revocation import Revocations
from mlseal.evidence.revoking import revoke, snapshot
from mlseal.evidence.signing import Signer, keyuri
from mlseal.evidence.store import Store
from mlseal.evidence.tiles import service_tiles

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


@pytest.fixture
def alone(new_authority):
    """An authority of this test's own, so that it may be damaged."""
    return new_authority()


def claim(result="PASSED", digest="ab" * 32):
    return statement.make(
        [Subject("model", digest)], TEST_RESULT, {"result": result, "configuration": [], "url": f"urn:{time.time_ns()}"}
    )


def opened(authority, **kwargs):
    archive = Archive.open(authority.trust, authority.store, **kwargs)
    archive.refresh()
    return archive


def monitor(authority):
    return [Identity(authority.issuer, authority.san("monitor"))]


def test_another_store_than_the_logs_is_known_by_what_it_shows(alone):
    """From another directory everything seems withheld, and whoever took it back would destroy good evidence."""
    for index in range(2):
        alone.signer("producer").sign(claim(digest=f"{index:02x}" * 32))
    place = alone.store.root
    assert opened(alone).elsewhere() is None

    def asked(store):
        archive = Archive.open(alone.trust, store)
        archive.refresh()
        return archive.elsewhere()

    missing, empty = place.parent / "nowhere", place.parent / "empty"
    assert asked(Store(missing)) == f"the store {missing} does not exist"
    empty.mkdir()
    assert asked(Store(empty)) == f"the store {empty} holds none of the 2 entries of the log"
    shown = next(iter(alone.store.ids()))
    Store(empty).put(alone.store.get(shown))
    assert asked(Store(empty)) is None, "one is missing, and that is no mistake of the place"


def test_what_a_key_takes_back_counts_for_nothing_and_stops_nothing(alone, monkeypatch):
    """A revocation or a snapshot by a key: one would make all evidence of the key unverifiable, for its thief's joy."""
    private = keyuri._File(ec.generate_private_key(ec.SECP256R1()))
    signer = Signer(alone.trust, key=private, store=alone.store)
    good = signer.sign(claim())
    archive = opened(alone)
    snapshot(archive, alone.signer("monitor"), valid_for=timedelta(hours=24))
    monkeypatch.setattr("mlseal.evidence.keyholder.require_work", lambda *_: None)
    taken = revoke(archive, signer, good.evidence_id, reason="withdrawn")
    stated = snapshot(archive, signer, valid_for=timedelta(hours=99))
    monkeypatch.undo()
    archive.refresh()
    mine = KeyHolder(publickey.fingerprint(private.public))
    assert archive.signed_by(taken.evidence_id, [mine])
    assert archive.signed_by(stated.evidence_id, [mine])
    known = archive.revocations([mine, *monitor(alone)])
    assert known.of(good.evidence_id) is None
    assert known == archive.revocations(monitor(alone)) != Revocations()
    assert not archive.accounted(archive.index.leaf(good.evidence_id), [])
    theirs = revoke(archive, alone.signer("monitor"), good.evidence_id, reason="withdrawn")
    archive.refresh()
    assert archive.revocations([mine, *monitor(alone)]).of(good.evidence_id).reason == "withdrawn", theirs


def test_index_finds_by_subject_and_type_in_log_order(alone):
    signer = alone.signer("producer")
    first, second, other = (
        signer.sign(claim("FAILED")),
        signer.sign(claim("PASSED")),
        signer.sign(claim(digest="cd" * 32)),
    )
    archive = opened(alone)
    assert archive.index.find(["ab" * 32], [TEST_RESULT]) == [first.evidence_id, second.evidence_id]
    assert archive.index.find(["cd" * 32], [TEST_RESULT]) == [other.evidence_id]
    assert archive.index.find(["ab" * 32], ["https://mlseal.dev/fairness/v0.1"]) == []
    assert archive.index.find(["ef" * 32], [TEST_RESULT]) == []
    assert archive.tree_size == 3


def test_index_is_incremental_and_can_be_rebuilt(alone):
    signer = alone.signer("producer")
    signer.sign(claim())
    archive = opened(alone)
    signer.sign(claim())
    assert archive.refresh() == 2
    rows = list(archive.index.leaves())
    archive.index.close()
    for file in archive.trust.state_directory().glob("index-*"):
        file.unlink()
    assert list(opened(alone).index.leaves()) == rows


def test_an_archive_that_is_dropped_leaves_no_open_database(alone):
    dropped, closed = opened(alone), opened(alone)
    databases = [one.index._db for one in (dropped, closed)]
    closed.close()
    closed.close()
    del dropped
    gc.collect()
    for database in databases:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.execute("select 1")


def test_withheld_bundle_is_an_unresolved_leaf(alone):
    signer = alone.signer("producer")
    failed = signer.sign(claim("FAILED"))
    alone.store.path(failed.evidence_id).unlink()
    signer.sign(claim("PASSED"))
    (leaf,) = opened(alone).unresolved()
    assert (leaf.evidence_id, leaf.index, leaf.identity.san) == (failed.evidence_id, 0, alone.san("producer"))


def test_bundle_deleted_after_it_was_indexed_is_withheld(alone):
    bundle = alone.signer("producer").sign(claim("FAILED"))
    archive = opened(alone)
    alone.store.path(bundle.evidence_id).unlink()
    with pytest.raises(Withheld, match="no longer shows"):
        archive.candidates(["ab" * 32], [TEST_RESULT])


def test_bundle_replaced_after_it_was_indexed_stops(alone):
    signer = alone.signer("producer")
    failed, passed = signer.sign(claim("FAILED")), signer.sign(claim("PASSED"))
    archive = opened(alone)
    shutil.copy(alone.store.path(passed.evidence_id), alone.store.path(failed.evidence_id))
    with pytest.raises(MalformedEvidence, match="holds other evidence"):
        archive.candidates(["ab" * 32], [TEST_RESULT])


def test_other_bytes_under_the_name_of_a_bundle_resolve_nothing(alone):
    signer = alone.signer("producer")
    failed, passed = signer.sign(claim("FAILED")), signer.sign(claim("PASSED"))
    shutil.copy(alone.store.path(passed.evidence_id), alone.store.path(failed.evidence_id))
    assert [leaf.evidence_id for leaf in opened(alone).unresolved()] == [failed.evidence_id]


def test_revocation_counts_only_by_a_listed_identity(alone):
    bundle = alone.signer("producer").sign(claim())
    archive = opened(alone)
    revoke(archive, alone.signer("producer"), bundle.evidence_id, reason="withdrawn")
    archive.refresh()
    assert archive.revocations(monitor(alone)).of(bundle.evidence_id) is None
    revoke(archive, alone.signer("monitor"), bundle.evidence_id, reason="withdrawn")
    archive.refresh()
    assert archive.revocations(monitor(alone)).of(bundle.evidence_id).reason == "withdrawn"
    assert archive.revocations([]).revoked == {}


def test_revoking_unknown_evidence_is_refused(alone):
    archive = opened(alone)
    with pytest.raises(NoEvidence):
        revoke(archive, alone.signer("monitor"), "ab" * 32, reason="withdrawn")
    assert archive.refresh() == 0


def test_withdrawal_outweighs_supersession_whatever_the_order(alone):
    bundle = alone.signer("producer").sign(claim())
    archive = opened(alone)
    for reason in ("withdrawn", "superseded"):
        revoke(archive, alone.signer("monitor"), bundle.evidence_id, reason=reason)
    archive.refresh()
    assert archive.revocations(monitor(alone)).of(bundle.evidence_id).reason == "withdrawn"


def test_snapshot_must_exist_and_be_fresh(alone):
    archive = opened(alone)
    with pytest.raises(StaleEvidence, match="no revocation snapshot"):
        archive.revocations(monitor(alone)).require_fresh(timedelta(hours=1), utcnow())
    snapshot(archive, alone.signer("monitor"), valid_for=timedelta(hours=2))
    archive.refresh()
    known = archive.revocations(monitor(alone))
    known.require_fresh(timedelta(hours=1), utcnow())
    for later in (timedelta(hours=1, minutes=30), timedelta(hours=3), -timedelta(hours=1)):
        with pytest.raises(StaleEvidence):
            known.require_fresh(
                timedelta(hours=1) if later < timedelta(hours=2) else timedelta(days=9), utcnow() + later
            )


def test_a_snapshot_does_not_lend_its_signers_authority_to_the_revocations_of_others(alone):
    failed = alone.signer("producer").sign(claim("FAILED"))
    archive = opened(alone)
    revoke(archive, alone.signer("producer"), failed.evidence_id, reason="superseded")
    taken = alone.signer("producer").sign(claim("PASSED"))
    archive.refresh()
    revoke(archive, alone.signer("monitor"), taken.evidence_id, reason="withdrawn")
    snapshot(archive, alone.signer("monitor"), valid_for=timedelta(hours=2))
    archive.refresh()
    known = archive.revocations(monitor(alone))
    assert known.of(failed.evidence_id) is None
    assert known.of(taken.evidence_id).reason == "withdrawn"


def test_deleting_a_revocation_leaves_its_leaf(alone):
    bundle = alone.signer("producer").sign(claim())
    archive = opened(alone)
    taken = revoke(archive, alone.signer("monitor"), bundle.evidence_id, reason="withdrawn")
    alone.store.path(taken.evidence_id).unlink()
    fresh = opened(alone)
    assert [leaf.evidence_id for leaf in fresh.unresolved()] == [taken.evidence_id]


def test_what_a_revoker_signed_must_be_shown(alone):
    bundle = alone.signer("producer").sign(claim())
    taken = revoke(opened(alone), alone.signer("monitor"), bundle.evidence_id, reason="withdrawn")
    shown = alone.store.path(taken.evidence_id).read_bytes()
    alone.store.path(taken.evidence_id).unlink()
    fresh = opened(alone)
    with pytest.raises(Withheld, match="nobody shows entry 1 .* by somebody who may revoke"):
        fresh.require_shown(monitor(alone))
    fresh.require_shown([Identity(alone.issuer, alone.san("reviewer"))])
    alone.store.path(taken.evidence_id).write_bytes(shown)
    opened(alone).require_shown(monitor(alone))


def test_a_snapshot_is_no_list_of_what_its_signer_does_not_see(alone):
    bundle = alone.signer("producer").sign(claim())
    taken = revoke(opened(alone), alone.signer("monitor"), bundle.evidence_id, reason="withdrawn")
    shown = alone.store.path(taken.evidence_id).read_bytes()
    alone.store.path(taken.evidence_id).unlink()
    with pytest.raises(Withheld, match="nobody shows entry 1 "):
        snapshot(opened(alone), alone.signer("monitor"), valid_for=timedelta(hours=1))
    failed = alone.call("revoke", bundle.evidence_id, "--store", str(alone.store.root))
    assert failed.returncode == 11
    assert f"{bundle.evidence_id} is revoked; what follows is about the snapshot alone" in failed.stderr
    alone.store.path(taken.evidence_id).write_bytes(shown)
    said = snapshot(opened(alone), alone.signer("monitor"), valid_for=timedelta(hours=1)).statement.predicate
    assert [entry["evidenceId"] for entry in said["revoked"]] == [bundle.evidence_id]


def test_only_its_signer_and_listed_revokers_account_for_what_nobody_shows(alone):
    bundle = alone.signer("producer").sign(claim())
    taken = revoke(opened(alone), alone.signer("monitor"), bundle.evidence_id, reason="withdrawn")
    revoke(opened(alone), alone.signer("producer"), taken.evidence_id, reason="withdrawn")
    alone.store.path(taken.evidence_id).unlink()
    for file in alone.trust.state_directory().glob("index-*"):
        file.unlink()  # a judge who never saw it
    archive = opened(alone)
    (leaf,) = archive.unresolved()
    assert not archive.accounted(leaf, [])
    assert archive.accounted(leaf, [Identity(alone.issuer, alone.san("producer"))])
    revoke(archive, alone.signer("monitor"), taken.evidence_id, reason="superseded")
    archive.refresh()
    assert archive.accounted(leaf, [])


def test_spoilt_revocation_stops_instead_of_being_passed_over(alone):
    bundle = alone.signer("producer").sign(claim())
    archive = opened(alone)
    taken = revoke(archive, alone.signer("monitor"), bundle.evidence_id, reason="withdrawn")
    document = json.loads(taken.raw)
    document["verificationMaterial"]["timestampVerificationData"] = bundle.document["verificationMaterial"][
        "timestampVerificationData"
    ]
    alone.store.path(taken.evidence_id).write_bytes(json.dumps(document).encode())
    archive.refresh()
    with pytest.raises(Error):
        archive.revocations(monitor(alone))


def test_log_that_forgets_is_a_split_view_and_the_index_keeps_what_it_knew(alone, tmp_path):
    alone.signer("producer").sign(claim())
    old = tmp_path / "old"
    shutil.copytree(alone.state / "logs", old)
    alone.signer("producer").sign(claim())
    archive = opened(alone)
    tiles = directory_tiles(alone.trust, old)
    with pytest.raises(Unchecked):  # an old copy cannot prove that it is older, and not another
        Archive.open(alone.trust, alone.store, tiles=tiles).refresh()
    from mlseal.services import state
    from mlseal.tlog import checkpoint

    log = alone.trust.logs[0]
    note = checkpoint.sign(state.load(alone.state).keys().log, checkpoint.Checkpoint(log.origin, 2, b"\7" * 32))
    (old / log.origin / "checkpoint").write_text(note)
    with pytest.raises(SplitView):
        Archive.open(alone.trust, alone.store, tiles=tiles).refresh()
    assert archive.refresh() == 2


def test_tiles_with_another_entry_are_refused(alone, tmp_path):
    alone.signer("producer").sign(claim())
    alone.signer("producer").sign(claim())
    copy = tmp_path / "copy"
    log = alone.trust.logs[0]
    copy_log(log, service_tiles(alone.trust)[log.origin], copy / log.origin)
    file = next((copy / log.origin / "tile" / "entries").rglob("*2"))
    data = bytearray(file.read_bytes())
    data[200] ^= 1
    file.write_bytes(bytes(data))
    for state in alone.trust.state_directory().glob("index-*"):
        state.unlink()
    with pytest.raises(Error):
        Archive.open(alone.trust, alone.store, tiles=directory_tiles(alone.trust, copy)).refresh()


def test_missing_log_is_unchecked(alone):
    with pytest.raises(Unchecked):
        Archive.open(alone.trust, alone.store, tiles={}).refresh()


def test_audit_passes_offline_and_without_any_key(alone, tmp_path):
    signer = alone.signer("producer")
    for _ in range(3):
        signer.sign(claim())
    log = alone.trust.logs[0]
    trust = alone.trust
    copy_log(log, service_tiles(trust)[log.origin], tmp_path / "log" / log.origin)
    alone.stop()
    shutil.rmtree(alone.state)
    report = audit(trust, alone.store, directory_tiles(trust, tmp_path / "log"))
    assert report.passed
    assert (report.tree_size, len(report.verified)) == (3, 3)


@pytest.mark.parametrize("damage", ["delete", "edit", "swap", "unlogged", "nothing"])
def test_audit_notices(alone, tmp_path, damage):
    signer = alone.signer("producer")
    first, second = signer.sign(claim("FAILED")), signer.sign(claim("PASSED"))
    path = alone.store.path(first.evidence_id)
    if damage == "delete":
        path.unlink()
    elif damage == "edit":
        path.write_bytes(first.raw.replace(b'"logIndex":"0"', b'"logIndex":"1"'))
    elif damage == "swap":
        shutil.copy(alone.store.path(second.evidence_id), path)
    elif damage == "unlogged":
        foreign = claim()
        document = json.loads(first.raw)
        import base64

        document["dsseEnvelope"]["payload"] = base64.b64encode(foreign.payload).decode()
        Store(alone.dir / "evidence").put(Bundle(json.dumps(document).encode()))
    report = audit(alone.trust, alone.store, service_tiles(alone.trust))
    assert report.passed == (damage == "nothing")


def test_audit_takes_the_word_of_a_revoker_for_what_is_gone_and_no_producers(alone):
    """Or whoever signed a failed result could withhold it and take it back."""
    failed = alone.signer("producer").sign(claim("FAILED"))
    revoke(opened(alone), alone.signer("producer"), failed.evidence_id, reason="withdrawn")
    alone.store.path(failed.evidence_id).unlink()

    def audited(*options):
        done = alone.call("audit", "--json", "--store", str(alone.store.root), *options)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    code, said = audited()
    assert (code, said["accounted"]) == (11, [])
    assert [found["where"] for found in said["findings"]] == [f"leaf 0 of {alone.trust.logs[0].origin}"]
    policy = alone.dir / "revokers.yaml"
    who = f'{{issuer: "{alone.issuer}", san: "{alone.san("producer")}"}}'
    policy.write_text(
        f"policy: p/1\napplies: [{{tool: any, action: verify}}]\nrevokers: [{who}]\n"
        f"require: [{{predicate: test-result, by: [{who}]}}]\n"
    )
    assert audited("--policy", str(policy))[0] == 0, "whom a policy lists may"
    revoke(opened(alone), alone.signer("monitor"), failed.evidence_id, reason="withdrawn")
    code, said = audited()
    assert code == 0
    assert said["accounted"] == [
        f"leaf 0 of {alone.trust.logs[0].origin}: withdrawn by {Identity(alone.issuer, alone.san('monitor'))}"
    ]


def test_audit_of_an_empty_log_does_not_pass(alone):
    assert not audit(alone.trust, alone.store, service_tiles(alone.trust)).passed


def test_two_processes_index_at_once(alone):
    signer = alone.signer("producer")
    for _ in range(5):
        signer.sign(claim())
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if opened(alone).tree_size == 5 else 2
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert len(list(opened(alone).index.leaves())) == 5


def test_forged_leaf_kind_is_refused():
    from mlseal.evidence.leaves import parse_leaf

    with pytest.raises(ForgedEvidence):
        parse_leaf("log1.x", 0, b"{}")


def test_what_was_seen_before_and_is_gone_is_missing(alone):
    """Audit and listing look at the store of now, not at what the index remembers of it."""
    gone = alone.signer("producer").sign(claim())
    alone.signer("producer").sign(claim())
    store = ("--store", str(alone.store.root))
    assert alone.call("audit", *store).returncode == 0
    alone.store.path(gone.evidence_id).unlink()
    done = alone.call("audit", *store)
    assert done.returncode == 11 and "no bundle for this leaf" in done.stdout and gone.evidence_id in done.stdout
    assert "1 unresolved" in alone.call("log", "show", *store).stdout
