"""The kernel says who calls: what other users of the machine can and cannot get."""

import json
import os
import pickle
from pathlib import Path

import pytest

from mlseal.errors import Misuse, Refusal, UntrustedSigner
from mlseal.services import keys
from mlseal.services.issuer import Grants, LocalIssuer
from mlseal.services.people import People

NAME = "lab.mlseal.local"
STRANGER = 54_321


def as_user(uid, work):
    """What `work()` returns, computed in a child process that became `uid` for good."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                outcome = work()
            except Exception as error:  # noqa: BLE001 - carried to the parent
                outcome = error
            os.write(writing, pickle.dumps(outcome))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    outcome = pickle.loads(data)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@pytest.fixture
def become():
    """Run something as another user; only root can, and a test that cannot must not look like one that passed."""
    assert os.geteuid() == 0, "needs root to become other users; the rule itself is tested below without"
    return as_user


def test_a_user_without_a_grant_gets_no_identity(shared, become):
    for role in ("producer", "gate", "reviewer/alice", "owner"):
        status, document = become(
            STRANGER, lambda role=role: shared.call("POST", "/issuer/token", {"subject": f"roles/{role}"})
        )
        assert (status, document["code"]) == (403, 403)
        assert f"mlseal trust grant --uid {STRANGER} roles/{role}" in document["message"]


def test_a_grant_gives_that_identity_and_no_other(shared, become):
    shared.mlseal("trust", "grant", "--uid", STRANGER + 1, "roles/producer", "roles/reviewer/*")

    def ask(uid, subject):
        return become(uid, lambda: shared.call("POST", "/issuer/token", {"subject": subject})[0])

    assert ask(STRANGER + 1, "roles/producer") == 200
    assert ask(STRANGER + 1, "roles/reviewer/bob") == 200
    assert ask(STRANGER + 1, "roles/reviewer") == 403
    assert ask(STRANGER + 1, "roles/gate") == 403
    assert ask(STRANGER + 2, "roles/producer") == 403
    shared.mlseal("trust", "grant", "--uid", STRANGER + 1, "--revoke")
    assert ask(STRANGER + 1, "roles/producer") == 403


def test_a_stranger_signs_with_a_token_he_was_given(shared, become):
    """Log, time and CA serve everybody; the token alone says who it is."""
    token = shared.token("roles/evaluator")
    assert become(STRANGER, lambda: shared.certificate(token)[0]) == 201
    assert become(STRANGER, lambda: shared.call("GET", "/healthz")[0]) == 200


def test_no_file_of_the_service_helps_a_stranger(shared, become):
    shared.people.pseudonym_of(f"https://{NAME}/issuer", "ana")
    files = [path for path in shared.state.rglob("*") if path.is_file()]
    keys_and_grants = [
        p
        for p in files
        if p.suffix == ".pem" or p.name in {"grants.json", "service.log", "lock", "published", "people.db"}
    ]
    assert len(keys_and_grants) >= 11
    assert shared.state / "people.db" in keys_and_grants

    def readable():
        found = []
        for path in keys_and_grants:
            try:
                path.read_bytes()
                found.append(str(path))
            except PermissionError:
                pass
        return found

    assert become(STRANGER, readable) == []

    def writes():
        done = []
        for path in (
            shared.state,
            shared.state / "logs",
            shared.state / "keys",
            shared.state / "logs" / f"log1.{NAME}",
        ):
            try:
                (path / "mine").write_text("x")
                done.append(str(path))
            except PermissionError:
                pass
        return done

    assert become(STRANGER, writes) == []
    assert become(STRANGER, (shared.state / "logs" / f"ct1.{NAME}" / "checkpoint").read_text)


def test_a_stranger_cannot_list_the_state_or_take_the_socket_away(shared, become):
    def tries():
        for action in (
            lambda: list(shared.state.iterdir()),
            lambda: os.unlink(shared.socket),
            lambda: os.rename(shared.socket, "/tmp/x"),
        ):
            try:
                action()
            except PermissionError:
                continue
            return "succeeded"
        return "refused"

    assert become(STRANGER, tries) == "refused"


@pytest.mark.parametrize(
    "body",
    [{}, {"subject": 1}, {"subject": ""}, {"subject": "roles/root"}, {"subject": "roles/gate/../owner"}, [], "x"],
    ids=str,
)
def test_requests_that_name_no_identity(shared, body):
    status, document = shared.call(
        "POST", "/issuer/token", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    assert (status, document["code"]) == (400, 400)


@pytest.fixture
def issuer(tmp_path):
    from datetime import timedelta

    from mlseal.evidence.clock import utcnow

    made = keys.generate(NAME, 1, utcnow(), utcnow() + timedelta(days=1))
    path = tmp_path / "grants.json"
    path.write_text("{}")
    path.chmod(0o600)
    return LocalIssuer(NAME, made.issuer, Grants(path), 1000, People(tmp_path))


@pytest.mark.parametrize(
    ("globs", "subject", "allowed"),
    [
        ([], "roles/producer", False),
        (["roles/producer"], "roles/producer", True),
        (["roles/producer"], "roles/producer/x", False),
        (["roles/*"], "roles/gate", True),
        (["roles/*"], "roles/reviewer/alice", False),
        (["roles/reviewer/*"], "roles/reviewer/alice", True),
        (["roles/reviewer/*"], "roles/reviewer", False),
        (["roles/reviewer/a*"], "roles/reviewer/bob", False),
        (["roles/gate", "roles/monitor"], "roles/monitor", True),
    ],
)
def test_grants_by_glob(issuer, globs, subject, allowed):
    issuer._grants.add(7, globs)
    assert issuer.token(subject, 1000)
    if allowed:
        assert issuer.token(subject, 7)
    else:
        with pytest.raises(UntrustedSigner, match="may not act as"):
            issuer.token(subject, 7)
    with pytest.raises(UntrustedSigner):
        issuer.token(subject, 0)  # not even root, unless root owns the service


@pytest.mark.parametrize("glob", ["*", "roles", "roles/", "../x", "roles/a/b/c", "roles/[a-z]", "roles/gate\n", ""])
def test_globs_that_are_refused(issuer, glob):
    with pytest.raises(Misuse):
        issuer._grants.add(7, [glob])
    assert issuer._grants.read() == {}


def test_grants_that_others_can_write_are_not_believed(issuer):
    path: Path = issuer._grants.path
    path.write_text('{"7": ["roles/gate"]}')
    path.chmod(0o666)
    with pytest.raises(Refusal, match="open to others"):
        issuer.token("roles/gate", 7)
