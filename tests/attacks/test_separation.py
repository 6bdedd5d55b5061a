"""Producer, gate and verifier are three users of one machine, with three homes: none can act as another."""

import os
import time

import pytest

from mlseal.evidence import statement, trust
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.signing import signer_for
from mlseal.evidence.store import Store
from mlseal.evidence.tiles import service_tiles
from mlseal.evidence.verifying import Verifier
from tests.attacks.as_user import as_user, home_of

PRODUCER, GATE, VERIFIER = 42001, 42002, 42003
SUBJECT = Subject("model", "ab" * 32)
RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def claim():
    return statement.make([SUBJECT], RESULT, {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"})


def verified(bundle: Bundle, san: str, issuer: str) -> str:
    root = trust.resolve()
    result = Verifier(root, tiles=dict(service_tiles(root))).verify(
        bundle,
        predicate_type="test-result",
        identities=[Identity(issuer, san)],
        subjects=[SUBJECT.sha256],
        revocations=NOTHING_REVOCABLE,
    )
    return result.identity.san


@pytest.fixture
def users(new_authority):
    """A running authority with grants for two users, a shared store, and the public root where each can read it."""
    authority = new_authority()
    base = authority.state.parent
    warm = authority.signer("producer").sign(claim())  # imports all that the children will need
    verified(warm, authority.san("producer"), authority.issuer)
    shared = base / "store"
    shared.mkdir()
    shared.chmod(0o777)
    public = base / "public"
    public.mkdir()
    for name in ("trusted_root.json", "trust_config.json"):
        (public / name).write_bytes((authority.dir / name).read_bytes())
        (public / name).chmod(0o644)
    public.chmod(0o755)
    for uid, role in ((PRODUCER, "producer"), (GATE, "gate")):
        done = authority.run("trust", "grant", "--uid", str(uid), f"roles/{role}")
        assert done.returncode == 0, done.stderr
    homes = {uid: home_of(uid, base) for uid in (PRODUCER, GATE, VERIFIER)}
    return authority, homes, shared, public


def sign_as(role, public, shared):
    root = trust.load(public / "trust_config.json")
    return signer_for(role, trust=root, store=Store(shared)).sign(claim()).evidence_id


def test_each_user_signs_in_their_role_and_the_third_verifies(users):
    authority, homes, shared, public = users
    made = as_user(PRODUCER, homes[PRODUCER], lambda: sign_as("producer", public, shared))
    assert "value" in made, made
    decided = as_user(GATE, homes[GATE], lambda: sign_as("gate", public, shared))
    assert "value" in decided, decided

    def look():
        trust.pin(public / "trust_config.json", trust.load(public / "trust_config.json").fingerprint)
        bundle = Store(shared).get(made["value"])
        return verified(bundle, authority.san("producer"), authority.issuer)

    assert as_user(VERIFIER, homes[VERIFIER], look) == {"value": authority.san("producer")}


def test_producer_cannot_obtain_another_identity(users):
    authority, homes, shared, public = users
    for role in ("gate", "reviewer/alice", "monitor", "evaluator", "owner", "roles/gate", "../gate", "producer/x", ""):
        tried = as_user(PRODUCER, homes[PRODUCER], lambda role=role: sign_as(role, public, shared))
        assert "error" in tried, f"the producer signed as {role!r}"
        assert tried["error"] in ("UntrustedSigner", "ServiceUnavailable", "Misuse"), tried
    archive = Archive.open(authority.trust, Store(shared))
    archive.refresh()
    assert {leaf.identity.san for leaf in archive.index.leaves()} == {authority.san("producer")}  # the warm-up only


def test_user_without_a_grant_signs_nothing(users):
    authority, homes, shared, public = users
    tried = as_user(VERIFIER, homes[VERIFIER], lambda: sign_as("producer", public, shared))
    assert tried["error"] == "UntrustedSigner"
    assert "mlseal trust grant" in tried["text"]


def test_producer_cannot_read_a_key_of_the_service(users):
    authority, homes, _, _ = users

    def steal():
        seen = []
        for folder, _, files in os.walk(authority.state):
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if b"PRIVATE KEY" in open(path, "rb").read():
                        seen.append(path)
                except OSError:
                    continue
        for number in ("1", "2"):
            for name in ("ca", "log", "issuer", "tsa", "ct", "issuance"):
                try:
                    seen.append(open(authority.state / "keys" / number / f"{name}.pem", "rb").read()[:10].decode())
                except OSError:
                    continue
        try:
            seen.append(open(f"/proc/{authority.process.pid}/mem", "rb").read(1).hex())
        except OSError:
            pass
        return seen

    assert (
        (authority.state / "keys" / "1" / "ca.pem").read_bytes().startswith(b"-----BEGIN")
    )  # there is something to steal
    assert as_user(PRODUCER, homes[PRODUCER], steal) == {"value": []}


def test_producer_cannot_stop_or_replace_the_service(users):
    authority, homes, shared, public = users

    def attack():
        from mlseal.evidence.signing.transport import socket_path

        path = socket_path(trust.load(public / "trust_config.json").endpoints.ca)
        for attempt in (
            lambda: os.kill(authority.process.pid, 9),
            lambda: os.unlink(path),
            lambda: os.rename(path, path + "x"),
        ):
            try:
                attempt()
            except OSError:
                continue
            return "done"
        return "refused"

    assert as_user(PRODUCER, homes[PRODUCER], attack) == {"value": "refused"}
    assert authority.process.poll() is None
    assert "value" in as_user(PRODUCER, homes[PRODUCER], lambda: sign_as("producer", public, shared))


def test_token_of_the_gate_in_the_gates_home_is_out_of_reach(users):
    authority, homes, shared, public = users
    token = homes[GATE] / "token"

    def keep():
        from mlseal.evidence.signing.tokens import from_embedded

        root = trust.load(public / "trust_config.json")
        token.write_text(from_embedded(root, root.endpoints.issuer, "gate", 10))
        token.chmod(0o600)
        return True

    assert as_user(GATE, homes[GATE], keep) == {"value": True}
    tried = as_user(
        PRODUCER,
        homes[PRODUCER],
        lambda: (
            signer_for("gate", trust=trust.load(public / "trust_config.json"), token_file=token)
            .sign(claim())
            .evidence_id
        ),
    )
    assert tried["error"] == "Unreadable", tried
