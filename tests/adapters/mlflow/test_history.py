"""`mlseal mlflow history`: what stood then and why, offline, from signed verdicts; what they cannot say is said."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from mlseal_mlflow import history
from mlseal_mlflow.identity import gates

from mlseal.errors import Misuse
from mlseal.evidence.clock import rfc3339, utcnow


def version(desk, name, *, proven):
    files = desk.pyfunc()
    desk.other.create_model_version(name, desk.put(files, proven=proven))
    return desk.measured(files).sha256


def after(desk, moment):
    """Wait until the clock is past `moment`: verdicts are told apart by seconds."""
    end = time.monotonic() + 30
    while utcnow() <= moment + timedelta(seconds=1):
        assert time.monotonic() < end
        time.sleep(0.05)


def now(desk, name):
    archive = desk.archive()
    return history.read(archive, gates(archive.trust), name, "default", utcnow() + timedelta(seconds=5))


def verdicts_settled(desk, name, number):
    """Refusals are signed a moment later."""
    end = time.monotonic() + 30
    while now(desk, name).refused < number:
        assert time.monotonic() < end
        time.sleep(0.1)


def asked(desk, *arguments):
    done = desk.authority.run("mlflow", "history", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_what_stood_then_and_why(desk, tmp_path):
    name = desk.fresh()
    desk.store.create_registered_model(name)
    first, second = version(desk, name, proven=True), version(desk, name, proven=True)
    version(desk, name, proven=False)
    desk.store.set_registered_model_alias(name, "champion", "1")
    (then,) = now(desk, name).standing
    after(desk, then.since)
    desk.store.set_registered_model_alias(name, "champion", "2")
    desk.store.transition_model_version_stage(name, "1", "Production", False)
    desk.refused(lambda: desk.store.set_registered_model_alias(name, "champion", "3"))
    verdicts_settled(desk, name, 1)
    stood = {(e.what, e.value): (e.version, e.sha256) for e in now(desk, name).standing}
    assert stood == {("alias", "champion"): ("2", second), ("stage", "production"): ("1", first)}
    assert (now(desk, name).refused, now(desk, name).withheld) == (1, 0)

    assert desk.authority.call("log", "export", str(tmp_path / "log")).returncode == 0
    desk.authority.stop()  # nobody to ask any more
    offline = ("--tiles", str(tmp_path / "log"), "--trust", str(desk.authority.trusted_root))
    offline += ("--store", str(desk.authority.store.root))
    code, said = asked(desk, name, "--at", rfc3339(then.since), "--json", *offline)
    assert code == 0, said
    found = json.loads(said)
    (event,) = found["standing"]
    assert (event["alias"], event["version"], event["sha256"]) == ("champion", "1", first)
    assert event["policies"] == [{"name": "tests/1", "sha256": event["policies"][0]["sha256"]}]
    assert any(one["predicateType"].endswith("test-result/v0.1") for one in event["restsOn"])
    assert (event["requester"], event["revokedByThen"], found["refusedUntilThen"]) == (
        {"source": "unauthenticated"},
        [],
        0,
    )
    assert len(found["notKnown"]) == 4
    code, said = asked(desk, name, *offline)
    assert code == 0, said
    assert f"alias champion: version 2, sha256 {second}" in said
    assert "not known from evidence:" in said
    code, said = asked(desk, name, "--at", "2020-01-01", *offline)
    assert (code, "no verdict let anything of this model through" in said) == (0, True), said
    code, said = asked(desk, name, "--workspace", "elsewhere", *offline)
    assert (code, "no verdict let anything of this model through" in said) == (0, True), said


def test_a_rename_and_a_revocation_are_told(desk):
    name, target = desk.fresh(), desk.fresh("risk-{}-prod")
    desk.store.create_registered_model(name)
    files = desk.pyfunc()
    proof = desk.prove(files)
    desk.other.create_model_version(name, desk.put(files, proven=False))
    desk.store.set_registered_model_alias(name, "champion", "1")
    desk.store.rename_registered_model(name, target)
    assert [model for model, _ in now(desk, name).renamed_to] == [target]
    stood = {(event.what, event.value) for event in now(desk, target).standing}
    assert stood == {("alias", "champion"), ("rename", name)}
    assert {event.revoked for event in now(desk, target).standing} == {()}
    desk.revoke(proof.evidence_id)
    assert {event.revoked for event in now(desk, target).standing} == {(proof.evidence_id,)}


def test_a_verdict_that_nobody_shows_is_not_passed_over(desk):
    name = desk.fresh()
    desk.store.create_registered_model(name)
    version(desk, name, proven=True)
    desk.store.set_registered_model_alias(name, "champion", "1")
    (event,) = now(desk, name).standing
    desk.authority.store.path(event.evidence_id).unlink()
    code, said = asked(desk, name, "--store", str(desk.authority.store.root))
    assert code == 11, said


def test_only_the_gates_verdicts_count(desk):
    """Somebody else says in the gate's words that a model was let through."""
    name = desk.fresh()
    desk.store.create_registered_model(name)
    version(desk, name, proven=True)
    desk.store.set_registered_model_alias(name, "champion", "1")
    archive = desk.archive()
    archive.refresh()
    (real,) = archive.of_type(["slsa-vsa"])
    forged = json.loads(json.dumps(real.statement.predicate))
    forged["mlseal"]["action"] |= {"version": "666", "alias": "other"}
    from mlseal.evidence import statement

    said = statement.make(real.statement.subjects, real.statement.predicate_type, forged)
    desk.authority.signer("producer").sign(said)
    assert [(event.value, event.version) for event in now(desk, name).standing] == [("champion", "1")]


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-11-27T12:00:00", ""])
def test_no_moment(text):
    with pytest.raises(Misuse, match="no moment"):
        history.moment(text)


def test_a_day_is_its_end():
    assert rfc3339(history.moment("2026-11-27")) == "2026-11-27T23:59:59Z"
    assert rfc3339(history.moment("2026-11-27T12:00:00+02:00")) == "2026-11-27T10:00:00Z"
