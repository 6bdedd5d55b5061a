"""What a verifier and a signer know outlives a rotation of the trust root, and an upgrade of mlseal."""

import os
import shutil
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.errors import Error, ServiceUnavailable, SplitView, Unreadable
from mlseal.evidence import paths, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.checkpoints import PinnedCheckpoints
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.signing import Signer, keyuri
from mlseal.evidence.signing.journal import Journal
from mlseal.evidence.signing.remote import Remote
from mlseal.evidence.store import Store
from mlseal.evidence.tiles import service_tiles
from mlseal.evidence.verifying import Verifier
from mlseal.services import state
from mlseal.tlog import checkpoint

RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SHA256 = "ab" * 32


def claim():
    return statement.make(
        [Subject("model", SHA256)], RESULT, {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"}
    )


def verify(authority, bundle):
    trust = authority.trust
    return Verifier(trust, tiles=dict(service_tiles(trust))).verify(
        bundle,
        predicate_type="test-result",
        identities=[Identity(authority.issuer, authority.san("producer"))],
        subjects=[SHA256],
        revocations=NOTHING_REVOCABLE,
    )


def rotate(authority):
    before = authority.trust.fingerprint
    done = authority.run("trust", "rotate")
    assert done.returncode == 0, done.stderr
    assert authority.trust.fingerprint != before
    return before


def forked(authority, key, size):
    """A checkpoint of the first log by its own key, over a tree that never was."""
    return checkpoint.sign(key, checkpoint.Checkpoint(authority.trust.logs[0].origin, size, b"\7" * 32))


@pytest.fixture
def alone(new_authority):
    return new_authority()


def test_pins_of_a_retired_log_outlive_the_rotation(alone):
    key = state.load(alone.state).keys().log
    first = alone.signer().sign(claim())
    assert verify(alone, first).assurance.log == "unwitnessed"
    rotate(alone)
    retired = alone.trust.logs[0]
    with pytest.raises(SplitView):
        PinnedCheckpoints.of_user().require_consistent(retired, forked(alone, key, 1), None)
    with pytest.raises(SplitView):
        Verifier(alone.trust).checkpoints.require_consistent(retired, forked(alone, key, 1), None)
    assert verify(alone, first).assurance.log == "pinned"


def test_log_pin_keeps_the_pin_of_a_retired_log(alone):
    key = state.load(alone.state).keys().log
    alone.signer().sign(claim())
    assert alone.call("log", "pin").returncode == 0
    rotate(alone)
    log = alone.trust.logs[0]
    (alone.state / "logs" / log.origin / "checkpoint").write_text(forked(alone, key, 1))
    done = alone.call("log", "pin")
    assert done.returncode == 10, done.stdout
    assert "two trees" in done.stderr


def earlier(name):
    """Where versions before kept what they knew under the root with this fingerprint."""
    return paths.private(paths.state_dir() / "trust" / name)


def old_pin(directory, log, note):
    folder = paths.private(directory / "checkpoints")
    (folder / f"{log.origin}-{log.log_id[:8].hex()}").write_text(note)


def test_every_pin_of_an_earlier_version_still_counts(alone):
    key = state.load(alone.state).keys().log
    alone.signer().sign(claim())
    log = alone.trust.logs[0]
    good = service_tiles(alone.trust)[log.origin].read("checkpoint").decode()
    old_pin(earlier("0" * 32), log, good)
    pins = PinnedCheckpoints.of_user()
    assert pins.pinned(log).size == 1
    with pytest.raises(SplitView):
        pins.require_consistent(log, forked(alone, key, 1), None)
    # A second root of before that saw another tree: no history holds both, so nothing is believed until one is gone.
    old_pin(earlier("1" * 32), log, forked(alone, key, 1))
    with pytest.raises(SplitView):
        PinnedCheckpoints.of_user().require_consistent(log, good, None)
    shutil.rmtree(earlier("1" * 32))
    assert PinnedCheckpoints.of_user().require_consistent(log, good, None)
    shutil.rmtree(earlier("0" * 32))
    assert PinnedCheckpoints.of_user().require_consistent(log, good, None), "the pin was taken over"


def test_first_contact_stays_first_contact(alone):
    alone.signer().sign(claim())
    log = alone.trust.logs[0]
    good = service_tiles(alone.trust)[log.origin].read("checkpoint").decode()
    assert not PinnedCheckpoints.of_user().require_consistent(log, good, None)


def blocked(authority, tmp_path, said):
    """Sign `said` so that the log has it and the store does not."""
    file = tmp_path / "blocked"
    file.write_text("a file where the store should be")
    with pytest.raises(Unreadable):
        authority.signer(store=Store(file)).sign(said)


def unresolved(authority):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    return [leaf.evidence_id for leaf in archive.unresolved()]


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_what_was_logged_and_not_published_is_recovered_after_a_rotation(alone, tmp_path, restart):
    said = claim()
    alone.signer().sign(claim())
    blocked(alone, tmp_path, said)
    rotate(alone)
    alone.signer().sign(claim())
    if restart:
        alone.stop()
        alone.start()
    assert unresolved(alone) == [said.evidence_id]
    done = alone.call("log", "recover", "--store", str(alone.store.root))
    assert "published 1 bundle(s)" in done.stdout, done.stderr
    assert unresolved(alone) == []
    archive = Archive.open(alone.trust, alone.store)
    assert archive.refresh() == 3, "recovering appends nothing"
    verify(alone, alone.store.get(said.evidence_id))


def test_what_was_logged_is_recovered_under_the_old_root_too(alone, tmp_path):
    said = claim()
    blocked(alone, tmp_path, said)
    old = rotate(alone)
    done = alone.call("log", "recover", "--trust", old, "--store", str(alone.store.root))
    assert "published 1 bundle(s)" in done.stdout, done.stderr


def test_signing_again_after_a_rotation_publishes_the_first_signature(alone, tmp_path):
    said = claim()
    blocked(alone, tmp_path, said)
    rotate(alone)
    assert alone.signer().sign(said).evidence_id == said.evidence_id
    assert unresolved(alone) == []
    assert Archive.open(alone.trust, alone.store).refresh() == 1


def test_journal_of_an_earlier_version_is_recovered(alone, tmp_path):
    said = claim()
    blocked(alone, tmp_path, said)
    (written,) = Journal(alone.trust).files()
    old = earlier("0" * 32) / "unpublished" / written.name
    old.parent.mkdir()
    os.replace(written, old)
    assert [b.evidence_id for b in alone.signer().recover()] == [said.evidence_id]
    assert not old.exists()


def test_journal_shows_no_entry_of_another_authority(alone, new_authority, tmp_path):
    said = claim()
    blocked(alone, tmp_path, said)
    kept = paths.state_dir()
    other = new_authority()
    shutil.copytree(kept / "unpublished", paths.state_dir() / "unpublished")
    assert Journal(other.trust).files() == []
    assert Journal(other.trust).find(said.evidence_id, lambda _: True) is None
    assert len(Journal(alone.trust).files()) == 1
    assert other.signer().recover() == []


def test_spoilt_journal_file_is_reported_and_stops_nothing_else(alone, tmp_path):
    said = claim()
    blocked(alone, tmp_path, said)
    spoilt = Journal(alone.trust).files()[0].with_name("f" * 64 + ".json")
    spoilt.write_text("{")
    with pytest.raises(Error):
        alone.signer().recover()
    assert alone.store.path(said.evidence_id).is_file()
    assert spoilt.exists()


def test_log_gives_the_entry_that_it_holds_even_when_its_certificate_has_ended(tmp_path):
    """Cut off after logging, back a day later: the entry is there, and asking for it appends nothing."""
    import base64
    import hashlib
    import json
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    from mlseal.evidence.clock import utcnow
    from mlseal.services.authority import Authority
    from mlseal.services.routes import Request, dispatch

    def b64(data):
        return base64.b64encode(data).decode()

    created, now = state.create(tmp_path / "s", "lab.mlseal.local"), [utcnow()]
    service = Authority(tmp_path / "s", clock=lambda: now[0])

    def call(path, document, authorization=""):
        body = json.dumps(document).encode()
        made = dispatch(service, Request("POST", path, body, "application/json", authorization, os.getuid()))
        return made.status, json.loads(made.body)

    token = call("/issuer/token", {"subject": "roles/producer"})[1]["token"]
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    wanted = {"certificateSigningRequest": b64(csr.public_bytes(serialization.Encoding.PEM))}
    chain = call("/api/v2/signingCert", wanted, f"Bearer {token}")[1]["signedCertificateEmbeddedSct"]["chain"]
    der = x509.load_pem_x509_certificate(chain["certificates"][0].encode()).public_bytes(serialization.Encoding.DER)

    def entry(words):
        digest = hashlib.sha256(words).digest()
        signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": b64(der)}}
        signed = {"content": b64(signature), "verifier": verifier}
        return {"hashedRekordRequestV002": {"digest": b64(digest), "signature": signed}}

    path = f"/log/{created.statement_origin()}/api/v2/log/entries"
    first = entry(b"said in time")
    assert call(path, first)[0] == 201
    now[0] += timedelta(days=1)
    status, document = call(path, first)
    assert (status, document["logIndex"], document["inclusionProof"]["treeSize"]) == (409, "0", "1")
    assert call(path, entry(b"said too late"))[0] not in (201, 409)
    service.close()


def test_what_a_key_signed_is_logged_after_a_rotation_too(alone, tmp_path, monkeypatch):
    """One was logged before the rotation and not published, one was not logged: each ends with one entry."""
    private = keyuri._File(ec.generate_private_key(ec.SECP256R1()))
    real, cut = Remote.append, ServiceUnavailable("the line was cut")
    signer = Signer(alone.trust, key=private, store=alone.store)
    for before in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(Remote, "append", lambda *a, before=before, **k: (before and real(*a, **k), _raise(cut)))
            with pytest.raises(ServiceUnavailable):
                signer.sign(claim())
    rotate(alone)
    done = Signer(alone.trust, key=private, store=alone.store).recover()
    assert sorted(bundle.claimed_tree[0] for bundle in done) == [log.origin for log in alone.trust.logs]
    archive = Archive.open(alone.trust, alone.store)
    archive.refresh()
    assert archive.unresolved() == []
    assert sorted(leaf.evidence_id for leaf in archive.index.leaves()) == sorted(bundle.evidence_id for bundle in done)


def _raise(error):
    raise error
