"""A key that never leaves AWS KMS, whose service moto plays on loopback: it makes real keys and real signatures.

One thing moto 5.2 says that it does not do: with ``MessageType: DIGEST`` the message is the digest already, and is not to
be hashed again. `kms` mends that; `hashing_twice` is moto as it comes, a service whose signatures do not verify.
"""

from __future__ import annotations

import re
import shlex
import socket
import time
from pathlib import Path

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key
from moto.kms.exceptions import ValidationException
from moto.kms.utils import ECDSAPrivateKey
from moto.server import ThreadedMotoServer

from mlseal.errors import ForgedEvidence, MalformedEvidence, Misuse, ServiceUnavailable
from mlseal.evidence import planning, publickey, statement
from mlseal.evidence.digest import Subject
from mlseal.evidence.predicates import budget_reservation, slsa_vsa
from mlseal.evidence.signing import keyuri, signer_for
from mlseal.stages import runner
from tests.stock import sigstore_js_keys

PAGE = Path(__file__).resolve().parents[3] / "docs/keys.md"


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def kms(hashing_twice, monkeypatch):
    def sign(self, message, signing_algorithm):
        assert (len(message), signing_algorithm) == (32, "ECDSA_SHA_256")
        return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    monkeypatch.setattr(ECDSAPrivateKey, "sign", sign)
    return hashing_twice


@pytest.fixture
def hashing_twice(endpoint, authority, monkeypatch):  # after the authority, whose environment holds nothing of AWS
    for name, value in (
        ("AWS_ENDPOINT_URL_KMS", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    return boto3.client("kms")


def made(kms, spec="ECC_NIST_P256"):
    return kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]


def test_the_commands_of_the_page_sign_with_a_key_that_stays_in_the_kms(kms, authority):
    key = made(kms)
    kms.create_alias(AliasName="alias/release", TargetKeyId=key)
    (block,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) if "aws kms" in text]
    (authority.home.path / "model").mkdir()
    (authority.home.path / "model" / "weights.bin").write_bytes(b"weights")
    commands = [shlex.split(line) for line in block.splitlines() if line.startswith("mlseal ")]
    assert [command[1] for command in commands] == ["key", "sign"]
    for command in commands:
        done = authority.call(*command[1:])
        assert done.returncode == 0, done.stderr
    pem = (authority.home.path / "release.pub").read_bytes()
    assert publickey.from_pem(pem) == load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    raw = (authority.home.path / "model.sig").read_bytes()
    assert sigstore_js_keys([(raw, pem)], authority.trusted_root) == [None]
    fingerprint = publickey.fingerprint(publickey.from_pem(pem))
    checked = authority.call("verify", "model.sig", "--subject", "model", "--key", fingerprint)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("spec", ["ECC_NIST_P384", "RSA_2048"])
def test_other_kinds_of_key_are_refused_before_anything_is_signed(kms, spec):
    with pytest.raises(MalformedEvidence, match="this kind of key signs no evidence"):
        keyuri.open_key(f"awskms:{made(kms, spec)}")


def test_a_key_that_is_not_there_or_cannot_sign_is_one_sentence(kms, monkeypatch):
    with pytest.raises(ServiceUnavailable, match="awskms cannot use the key"):
        keyuri.open_key("awskms:alias/nobody")
    key = made(kms)
    opened = keyuri.open_key(f"awskms:{key}")
    assert opened.sign(b"x")

    def disabled(*_):
        raise ValidationException("the key is disabled")

    monkeypatch.setattr(ECDSAPrivateKey, "sign", disabled)
    with pytest.raises(ServiceUnavailable, match="awskms cannot use the key"):
        opened.sign(b"x")


def test_a_signature_that_does_not_verify_is_not_shown_to_the_log(hashing_twice):
    with pytest.raises(ForgedEvidence, match="does not verify under its key"):
        keyuri.open_key(f"awskms:{made(hashing_twice)}").sign(b"x")


def test_a_kms_that_does_not_answer_ends_at_the_deadline(kms, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ServiceUnavailable, match="gave no answer"):
            keyuri.open_key("awskms:alias/release", deadline=0.5)


def test_services_whose_client_is_not_here_are_one_sentence(monkeypatch):
    from mlseal.errors import MissingExtra

    monkeypatch.delenv("PYKCS11LIB", raising=False)
    for uri in ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "hsm:2"):
        with pytest.raises(MissingExtra, match="needs a client library"):
            keyuri.open_key(uri)
    with pytest.raises(Misuse, match="named by its number"):
        keyuri.open_key("hsm:two")


def test_a_stage_runs_with_a_key_and_no_budget_is_reserved_for_a_verdict_that_a_key_may_not_sign(kms, authority, tmp_path):  # fmt: skip
    report = tmp_path / "report.json"
    report.write_text(
        '{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "z", "version": "2"}}, "results": []}]}'
    )
    (tmp_path / "service.py").write_text(f"x = {time.time_ns()}")
    uri = f"awskms:{made(kms)}"
    done = authority.call(
        "import", str(report), "--format", "sarif", "--about", str(tmp_path / "service.py"), "--key", uri, "--json"
    )
    assert done.returncode == 0, done.stderr
    signer = signer_for("producer", trust=authority.trust, store=authority.store, key=uri)
    about = [Subject("data", "ab" * 32)]
    cleared = planning.Cleared(
        verdict=statement.make(about, slsa_vsa.URI, {}), reservation=statement.make(about, budget_reservation.URI, {})
    )
    asking = runner._Asking(lambda *_: cleared, lambda: None, signer, authority.store, "care", "r1")
    before = sorted(authority.store.ids())
    stage = runner.registry.load("testing.report")
    with pytest.raises(Exception, match="decides nothing"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "plan_of", lambda *_, **__: None)
        asking.clear(stage, None, {"report": None})
    assert sorted(authority.store.ids()) == before
