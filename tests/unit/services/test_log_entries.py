"""What gets into the log of signatures, and what comes back."""

import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlseal.errors import Misuse
from mlseal.services import entries
from mlseal.tlog import checkpoint, proofs

NAME = "lab.mlseal.local"


def signed(shared, text, subject="roles/producer"):
    certificate, key = shared.leaf(shared.token(subject))
    digest = hashlib.sha256(text).digest()
    return shared.entry_request(digest, key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))), certificate)


def test_entry_is_proven_by_a_checkpoint_of_the_trusted_log(shared):
    status, entry = shared.append(signed(shared, b"proven"))
    assert status == 201
    key = base64.b64decode(json.loads(shared.trusted_root.read_text())["tlogs"][0]["publicKey"]["rawBytes"])[-32:]
    proof = entry["inclusionProof"]
    note = checkpoint.open_note(proof["checkpoint"]["envelope"], f"log1.{NAME}", key)
    assert (str(note.size), base64.b64encode(note.root).decode()) == (proof["treeSize"], proof["rootHash"])
    leaf = proofs.leaf_hash(base64.b64decode(entry["canonicalizedBody"]))
    path = tuple(base64.b64decode(h) for h in proof["hashes"])
    proofs.verify_inclusion(int(entry["logIndex"]), note.size, leaf, path, note.root)


def test_the_same_statement_again_gives_the_entry_that_exists(shared):
    first = signed(shared, b"twice")
    status, entry = shared.append(first)
    assert status == 201
    size = shared.size("log")
    for again in (first, signed(shared, b"twice", "roles/evaluator")):
        status, existing = shared.append(again)
        assert status == 409
        assert existing["canonicalizedBody"] == entry["canonicalizedBody"]
        assert existing["logIndex"] == entry["logIndex"]
    assert shared.size("log") == size


def test_strangers_cannot_append(shared):
    """A key of one's own, a certificate of one's own, our CA's name over it: none of them may fill the log."""
    before = shared.size("log")
    ours, _ = shared.leaf(shared.token())
    key, digest = ec.generate_private_key(ec.SECP256R1()), hashlib.sha256(b"stranger").digest()
    signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    for issuer in (x509.Name([]), ours.issuer):
        own = (
            x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(issuer).public_key(key.public_key())
            .serial_number(5).not_valid_before(ours.not_valid_before_utc).not_valid_after(ours.not_valid_after_utc).sign(key, hashes.SHA256())
        )  # fmt: skip
        status, document = shared.append(shared.entry_request(digest, signature, own))
        assert status == 403, document
    assert shared.size("log") == before


def test_signature_must_be_the_certificates(shared):
    before = shared.size("log")
    request = signed(shared, b"right")
    request["hashedRekordRequestV002"]["digest"] = base64.b64encode(hashlib.sha256(b"wrong").digest()).decode()
    status, document = shared.append(request)
    assert status == 403, document
    assert shared.size("log") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.clear(),
        lambda r: r.update(extra=1),
        lambda r: r.update(hashedRekordRequestV002=[]),
        lambda r: r["hashedRekordRequestV002"].pop("digest"),
        lambda r: r["hashedRekordRequestV002"].update(digest="AAAA"),
        lambda r: r["hashedRekordRequestV002"].update(digest="not base64!"),
        lambda r: r["hashedRekordRequestV002"].update(digest=7),
        lambda r: r["hashedRekordRequestV002"]["signature"].update(content=""),
        lambda r: r["hashedRekordRequestV002"]["signature"]["verifier"].update(keyDetails="PKIX_ED25519"),
        lambda r: r["hashedRekordRequestV002"]["signature"]["verifier"].update(publicKey={}),
        lambda r: r["hashedRekordRequestV002"]["signature"]["verifier"]["x509Certificate"].update(rawBytes="AAAA"),
    ],
)
def test_requests_of_another_shape(shared, change):
    before = shared.size("log")
    request = signed(shared, b"shape")
    change(request)
    status, document = shared.append(request)
    assert status in (400, 403), document
    assert set(document) == {"code", "message"}
    assert shared.size("log") == before


def test_dsse_entries_of_old_clients_are_refused(shared):
    assert shared.append({"dsseRequestV002": {"envelope": {}, "verifiers": []}})[0] == 400


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["hashedRekordRequestV002", "digest", "signature", "content", "verifier", "keyDetails", "x509Certificate", "rawBytes"]), inner, max_size=4), max_leaves=8)  # fmt: skip


@given(JSON)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_refused_by_one_kind_of_error(value):
    with pytest.raises(Misuse):
        entries.parse_request(value)


def test_an_expired_certificate_does_not_append(shared):
    """A short-lived key that leaks after its time is worth nothing."""
    from datetime import timedelta

    from mlseal.errors import StaleEvidence
    from mlseal.evidence.clock import utcnow

    certificate, key = shared.leaf(shared.token())
    ca = x509.load_pem_x509_certificates((shared.state / "keys/1/ca_chain.pem").read_bytes())[0]
    digest = hashlib.sha256(b"late").digest()
    request = shared.entry_request(digest, key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))), certificate)
    for late in (timedelta(minutes=16), timedelta(days=30), timedelta(minutes=-6)):
        log = entries.StatementLog(None, bytes(32), [ca], None, clock=lambda late=late: utcnow() + late)
        with pytest.raises(StaleEvidence):
            log.append(request)


def test_tiles_are_read_and_nothing_else(shared):
    shared.append(signed(shared, b"tile"))
    for prefix in ("", "/api/v2"):
        assert shared.call("GET", f"/log/log1.{NAME}{prefix}/checkpoint")[0] == 200
    size = shared.size("log")
    assert shared.call("GET", f"/log/log1.{NAME}/tile/entries/000.p/{size}")[0] == 200
    for path in (
        "tile/0/../../../../keys/1/ca.pem",
        "..%2f..%2fkeys",
        "journal",
        "identities.sqlite",
        "lock",
        "tile/0/001",
        "",
        "tile/99/000",
    ):
        assert shared.call("GET", f"/log/log1.{NAME}/{path}")[0] == 404, path
    assert shared.call("GET", "/log/log9.elsewhere.example/checkpoint")[0] == 404
    assert shared.call("GET", "/log/../keys/1/ca.pem")[0] == 404
    assert shared.call("POST", f"/log/log1.{NAME}/checkpoint", {})[0] == 405
    assert shared.append(signed(shared, b"x"), origin=f"ct1.{NAME}")[0] == 410


def test_public_facts_are_enough_to_monitor_both_logs(shared):
    status, facts = shared.call("GET", "/authority")
    assert status == 200
    assert facts["fingerprint"] == shared.call("GET", "/healthz")[1]["fingerprint"]
    for log in facts["logs"]:
        note = shared.call("GET", f"/log/{log['origin']}/checkpoint")[1].decode()
        assert checkpoint.open_note(note, log["origin"], bytes.fromhex(log["key"])).size >= 0
