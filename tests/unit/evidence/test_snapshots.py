"""A snapshot counts as fresh only if its sizes can be true, over one log and over several."""

import secrets
import time
from datetime import timedelta

import pytest

from mlseal.errors import StaleEvidence
from mlseal.evidence import snapshots, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.clock import rfc3339, utcnow
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.naming import PLAIN
from mlseal.evidence.predicates import revocation_snapshot
from mlseal.evidence.revoking import revoke, snapshot

RESULT = "https://in-toto.io/attestation/test-result/v0.1"
HOUR = timedelta(hours=1)


@pytest.fixture
def alone(new_authority):
    return new_authority()


def sign(authority, role="producer"):
    said = {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"}
    return authority.signer(role).sign(statement.make([Subject("model", "ab" * 32)], RESULT, said))


def state(authority, origin, size, logs=None, revoked=()):
    """Have the monitor sign a snapshot with these sizes, true or not."""
    claim = {
        "origin": origin,
        "treeSize": size,
        "issuedAt": rfc3339(utcnow()),
        "validUntil": rfc3339(utcnow() + HOUR),
        "revoked": [{"evidenceId": one, "reason": "withdrawn"} for one in revoked],
        "nonce": secrets.token_hex(16),
    }
    if logs is not None:
        claim["logs"] = [{"origin": name, "treeSize": n} for name, n in logs]
    about = Subject("revocations", secrets.token_hex(32))
    return authority.signer("monitor").sign(statement.make([about], revocation_snapshot.URI, claim, names=PLAIN))


def known(authority):
    archive = Archive.open(authority.trust, authority.store)
    archive.refresh()
    return archive.revocations([Identity(authority.issuer, authority.san("monitor"))])


def origins(authority):
    return [log.origin for log in authority.trust.logs]


@pytest.mark.parametrize(
    ("origin", "size", "logs", "why"),
    [
        ("log1.elsewhere.example", 1, None, "not one of the trust root"),
        (None, 1, [("log1.elsewhere.example", 1)], "not one of the trust root"),
        (None, 99, None, "claims 99 entries"),
        (None, 1, [(None, 99)], "claims 99 entries"),
        (None, 2, [(None, 2)], "can have seen 1"),  # its own entry
        (None, 1, [(None, 1), (None, 1)], "twice"),
    ],
)
def test_sizes_that_cannot_be_true_do_not_count_as_fresh(alone, origin, size, logs, why):
    revoked = sign(alone)
    (own,) = origins(alone)
    named = None if logs is None else [(name or own, n) for name, n in logs]
    state(alone, origin or own, size, named, revoked=[revoked.evidence_id])
    found = known(alone)
    with pytest.raises(StaleEvidence, match=why):
        found.require_fresh(HOUR, utcnow())
    assert found.of(revoked.evidence_id), "what it lists counts all the same"


def test_a_true_snapshot_before_a_false_one_still_counts(alone):
    sign(alone)
    archive = Archive.open(alone.trust, alone.store)
    good = snapshot(archive, alone.signer("monitor"), valid_for=HOUR)
    state(alone, "log1.elsewhere.example", 1)
    found = known(alone)
    found.require_fresh(HOUR, utcnow())
    archive.refresh()
    assert found.snapshot_time == archive._signed_at(archive.index.leaf(good.evidence_id))
    with pytest.raises(StaleEvidence, match="elsewhere"):
        found.require_fresh(timedelta(0), utcnow() + timedelta(minutes=20))


@pytest.mark.parametrize("form", ["sum", "logs"])
def test_snapshot_of_an_old_view_does_not_count_once_what_it_left_out_is_older(alone, monkeypatch, form):
    sign(alone)
    (own,) = origins(alone)
    state(alone, own, 0, [(own, 0)] if form == "logs" else None)
    known(alone).require_fresh(HOUR, utcnow())  # a second older: the log may have grown while it was signed
    monkeypatch.setattr(snapshots, "SKEW", -HOUR)  # as if the entry had been there for an hour
    with pytest.raises(StaleEvidence, match="leaves out entry 0"):
        known(alone).require_fresh(HOUR, utcnow())


def test_sizes_are_stated_for_each_log_and_outlive_rotations(alone, monkeypatch):
    sign(alone)
    assert alone.run("trust", "rotate").returncode == 0
    withdrawn = sign(alone)
    archive = Archive.open(alone.trust, alone.store)
    archive.refresh()
    revoke(archive, alone.signer("monitor"), withdrawn.evidence_id, reason="withdrawn")
    made = snapshot(archive, alone.signer("monitor"), valid_for=HOUR).statement.predicate
    first, second = origins(alone)
    assert made["logs"] == [{"origin": first, "treeSize": 1}, {"origin": second, "treeSize": 2}]
    assert (made["origin"], made["treeSize"]) == (second, 2)
    monkeypatch.setattr(snapshots, "SKEW", -HOUR)  # nothing was left out, however strict
    known(alone).require_fresh(HOUR, utcnow())


@pytest.mark.parametrize("when", ["before the rotation", "after it"])
def test_snapshots_of_before_that_state_the_sum_still_count(alone, monkeypatch, when):
    sign(alone)
    if when == "before the rotation":
        state(alone, origins(alone)[0], 1)
    assert alone.run("trust", "rotate").returncode == 0
    if when == "after it":
        sign(alone)
        state(alone, origins(alone)[1], 2)
        monkeypatch.setattr(snapshots, "SKEW", -HOUR)
    known(alone).require_fresh(HOUR, utcnow())
