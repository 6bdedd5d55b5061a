"""Keys that sign: how they are opened, what they make, what a crash leaves, who sees it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mlseal.errors import Error, MalformedEvidence, Misuse, NotInitialised, ServiceUnavailable, Unreadable
from mlseal.evidence import publickey, statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.audit import audit
from mlseal.evidence.digest import Subject
from mlseal.evidence.signing import Signer, embedded, keyuri, signer_for
from mlseal.evidence.signing.remote import Remote
from mlseal.evidence.store import Store
from mlseal.evidence.tiles import service_tiles
from mlseal.policy import fetching
from mlseal.services import process
from tests.stock import model_signing_key, sigstore_js_keys

SUBJECT = Subject("model", "ab" * 32)


def claim():
    return statement.make(
        [SUBJECT],
        "https://in-toto.io/attestation/test-result/v0.1",
        {"result": "PASSED", "configuration": [], "url": f"urn:{time.time_ns()}"},
    )


def written(private, path, secret=b""):
    how = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
    path.chmod(0o600)
    return f"file2:{path}"


@pytest.fixture
def key(tmp_path):
    private = ec.generate_private_key(ec.SECP256R1())
    return private.public_key(), written(private, tmp_path / "key.pem")


def identities(authority, store=None):
    archive = Archive.open(authority.trust, store or authority.store)
    archive.refresh()
    return [(leaf.evidence_id, leaf.identity.san) for leaf in archive.index.leaves()]


def test_what_a_key_signed_is_indexed_audited_and_shown(authority, key):
    public, uri = key
    bundle = signer_for("producer", trust=authority.trust, store=authority.store, key=uri).sign(claim())
    assert sigstore_js_keys([(bundle.raw, publickey.pem(public))], authority.trusted_root) == [None]
    assert (bundle.evidence_id, publickey.fingerprint(public)) in identities(authority)
    report = audit(authority.trust, authority.store, dict(service_tiles(authority.trust)))
    assert not [
        f for f in report.findings if bundle.evidence_id in str(f.error)
    ]  # other tests keep their evidence apart
    assert bundle.evidence_id in {verified.evidence_id for verified in report.verified}
    shown = authority.call("log", "show", "--json")
    assert publickey.fingerprint(public) in shown.stdout


def test_signing_the_same_words_twice_is_two_pieces_of_evidence(authority, key):
    """A certificate bounds the time of a signature; a key states it, so each signature has words of its own."""
    made, signer = claim(), signer_for("producer", trust=authority.trust, key=key[1], store=authority.store)
    first, second = signer.sign(made), signer.sign(made)
    assert first.evidence_id != second.evidence_id != made.evidence_id
    assert statement.signed_at(first.statement) < statement.signed_at(second.statement)
    assert statement.signed_at(made) is None
    assert first.statement.subjects == made.subjects
    assert first.statement.predicate == made.predicate


def test_a_crash_between_log_and_store_loses_nothing_and_signs_nothing_twice(authority, key, tmp_path, monkeypatch):
    store, made, real = Store(tmp_path / "evidence"), claim(), Remote.append
    signer = signer_for("producer", trust=authority.trust, store=store, key=key[1])

    def cut_off(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise ServiceUnavailable("the line was cut")

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "append", cut_off)
        with pytest.raises(ServiceUnavailable):
            signer.sign(made)
    before = identities(authority)
    assert list(store.ids()) == []
    stranger = written(ec.generate_private_key(ec.SECP256R1()), tmp_path / "other.pem")
    assert signer_for("p", trust=authority.trust, key=stranger).sign(made).evidence_id not in dict(before)
    published = signer.sign(made)  # as the same key: the signature made then
    assert published.evidence_id == before[-1][0]
    assert list(store.ids()) == [published.evidence_id]
    assert signer.recover() == []


def test_recovering_needs_no_key(authority, key, tmp_path, monkeypatch):
    store = Store(tmp_path / "evidence")
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", lambda *_: (_ for _ in ()).throw(Unreadable("the disk is full")))
        with pytest.raises(Unreadable):
            signer_for("producer", trust=authority.trust, store=store, key=key[1]).sign(claim())
    done = authority.call("log", "recover", "--store", str(store.root), "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["published"]) == sorted(store.ids())
    assert len(list(store.ids())) == 1


def test_an_entry_of_another_authority_is_left_alone(authority, new_authority, key, tmp_path, monkeypatch):
    other = new_authority(enter=False)
    monkeypatch.setattr(Remote, "append", lambda *_, **__: (_ for _ in ()).throw(ServiceUnavailable("down")))
    with pytest.raises(ServiceUnavailable):
        signer_for("producer", trust=other.trust, key=key[1]).sign(claim())
    monkeypatch.undo()
    assert signer_for("producer", trust=authority.trust, key=key[1]).recover() == []


def test_an_oms_signature_by_a_key_passes_the_stock_model_signing(authority, key, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    signature, pem = tmp_path / "model.sig", tmp_path / "key.pub"
    done = authority.call(
        "sign", str(model), "--type", "oms-signature", "--key", key[1], "-o", str(signature), "--json"
    )
    assert done.returncode == 0, done.stderr
    pem.write_bytes(publickey.pem(key[0]))
    model_signing_key(model, signature, pem)
    checked = authority.call(
        "verify", str(signature), "--subject", str(model), "--key", publickey.fingerprint(key[0]), "--json"
    )
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["identity"] == publickey.fingerprint(key[0])
    wrong = authority.call("verify", str(signature), "--subject", str(model), "--key", "sha256:" + "0" * 64)
    assert wrong.returncode == 10
    (model / "weights.bin").write_bytes(b"changed")
    known = authority.call("verify", str(signature), "--subject", str(model), "--key", publickey.fingerprint(key[0]))
    assert known.returncode == 10


def test_a_key_decides_nothing_on_the_command_line(authority, key, tmp_path):
    (tmp_path / "m").write_text("m")
    (tmp_path / "c.json").write_text('{"roles": {"trainer": [{"issuer": "https://x.example", "san": "y"}]}, "expires": "2036-01-01T00:00:00Z", "notProven": ["x"], "nonce": "%s"}' % ("0" * 32))  # fmt: skip
    done = authority.call(
        "sign", str(tmp_path / "m"), "--type", "ownership", "--predicate", str(tmp_path / "c.json"), "--key", key[1]
    )
    assert done.returncode == 10, done.stderr
    assert "a key is no person and decides nothing" in done.stderr


def test_the_environment_may_name_the_key(authority, key, tmp_path, monkeypatch):
    (tmp_path / "m").write_text(str(tmp_path))
    monkeypatch.setenv("MLSEAL_KEY", key[1])
    done = authority.call("sign", str(tmp_path / "m"), "--type", "test-result", "--predicate", str(result(tmp_path)), "-o", str(tmp_path / "b"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "b").read_bytes())["verificationMaterial"]["publicKey"]["hint"]
        == publickey.hints(key[0])[0]
    )


def result(folder):
    (folder / "claim.json").write_text('{"result": "PASSED", "configuration": []}')
    return folder / "claim.json"


def test_a_key_or_a_token_but_not_both(authority, key, tmp_path):
    with pytest.raises(Misuse, match="without a token"):
        signer_for("producer", trust=authority.trust, key=key[1], token_file=tmp_path / "token")
    for more in ({}, {"token": lambda: "t", "key": keyuri.open_key(key[1])}):
        with pytest.raises(Misuse, match="token or with a key"):
            Signer(authority.trust, **more)


@pytest.mark.parametrize(
    "uri", ["key.pem", "file:key.pem", "env:KEY", "gnupg:1", "hv:x", "awskms:", ":x", "", "AWSKMS:x", "hsm:not-hex"]
)
def test_what_is_no_uri_of_a_key_we_know(uri):
    with pytest.raises(Misuse):
        keyuri.open_key(uri)


@pytest.mark.parametrize(
    "private",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)],
    ids=["p384", "ed25519", "rsa"],
)  # fmt: skip
def test_other_kinds_of_key_sign_nothing(private, tmp_path):
    with pytest.raises(MalformedEvidence, match="this kind of key signs no evidence"):
        keyuri.open_key(written(private, tmp_path / "key.pem"))
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(MalformedEvidence, match="this kind of key signs no evidence"):
        publickey.from_pem(pem)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_a_key_that_others_can_read_or_change_is_not_used(tmp_path, mode):
    uri = written(ec.generate_private_key(ec.SECP256R1()), tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    with pytest.raises(Unreadable, match="others can read or change"):
        keyuri.open_key(uri)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_that_at_most_its_group_reads_is_used(tmp_path, mode):
    uri = written(ec.generate_private_key(ec.SECP256R1()), tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(mode)
    assert keyuri.open_key(uri)


def test_files_that_hold_no_key(tmp_path):
    for name, content in (("empty", b""), ("text", b"hello"), ("public", publickey.pem(ec.generate_private_key(ec.SECP256R1()).public_key()))):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
        with pytest.raises(Unreadable, match="holds no private key"):
            keyuri.open_key(f"file2:{tmp_path / name}")
    with pytest.raises(Unreadable, match="cannot read the key"):
        keyuri.open_key(f"file2:{tmp_path / 'absent'}")
    for bad in (b"", b"hello", (tmp_path / "public").read_bytes()[:60]):
        with pytest.raises(MalformedEvidence, match="no public key"):
            publickey.from_pem(bad)
        with pytest.raises(MalformedEvidence, match="no public key"):
            publickey.from_der(bad)


def test_an_encrypted_key_opens_by_its_passphrase_only(tmp_path, monkeypatch):
    private = ec.generate_private_key(ec.SECP256R1())
    uri = written(private, tmp_path / "key.pem", b"correct horse")
    with pytest.raises(NotInitialised, match="never an argument"):
        keyuri.open_key(uri)
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE", "wrong horse")
    with pytest.raises(Unreadable, match="does not open the key"):
        keyuri.open_key(uri)
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE", "correct horse")
    assert keyuri.open_key(uri).public == private.public_key()
    monkeypatch.delenv("MLSEAL_KEY_PASSPHRASE")
    (tmp_path / "secret").write_text("correct horse\n")
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE_FILE", str(tmp_path / "secret"))
    assert keyuri.open_key(uri).public == private.public_key()
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE_FILE", str(tmp_path / "absent"))
    with pytest.raises(Unreadable, match="cannot read the passphrase"):
        keyuri.open_key(uri)


def test_a_service_that_hangs_or_fails_is_left_behind():
    with pytest.raises(ServiceUnavailable, match="gave no answer"):
        keyuri._answer(lambda: time.sleep(5), "awskms", 0.05)
    with pytest.raises(ServiceUnavailable, match="cannot use the key"):
        keyuri._answer(lambda: 1 / 0, "awskms", 5)
    with pytest.raises(Misuse):
        keyuri._answer(lambda: keyuri.open_key("x"), "awskms", 5)


def test_a_missing_client_library_is_one_sentence():
    from securesystemslib.exceptions import UnsupportedAlgorithmError, UnsupportedLibraryError

    assert "pip install 'mlseal[kms]'" in str(keyuri._told(UnsupportedLibraryError("boto3"), "awskms"))
    assert isinstance(keyuri._told(UnsupportedAlgorithmError("rsa"), "awskms"), MalformedEvidence)


def test_new_key_is_encrypted_private_and_never_overwritten(home, monkeypatch):
    file = home.path / "keys" / "release.pem"
    assert home.call("key", "new", str(file)).returncode == 2
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE", "short")
    assert home.call("key", "new", str(file)).returncode == 2
    assert not file.exists()
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE", "correct horse")
    done = home.call("key", "new", str(file), "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    assert b"ENCRYPTED PRIVATE KEY" in before
    again = home.call("key", "new", str(file))
    assert again.returncode == 2
    assert "exists" in again.stderr
    assert file.read_bytes() == before
    pem = home.path / "release.pub"
    shown = json.loads(home.call("key", "show", made["uri"], "-o", str(pem), "--json").stdout)
    assert shown["fingerprint"] == made["fingerprint"]
    assert shown["by"] == f'by: [{{key: "{made["fingerprint"]}"}}]'
    assert shown["publicKey"] == pem.read_text()
    assert json.loads(home.call("key", "show", str(pem), "--json").stdout) == shown
    for folder in (".git", ".dvc"):
        (home.path / folder / "x").mkdir(parents=True)
        inside = home.call("key", "new", str(home.path / "sub" / "k.pem"))
        assert inside.returncode == 2
        assert "working tree" in inside.stderr
        (home.path / folder / "x").rmdir()
        (home.path / folder).rmdir()


def test_error_words_hold_no_secret(tmp_path, monkeypatch):
    uri = written(ec.generate_private_key(ec.SECP256R1()), tmp_path / "key.pem", b"correct horse")
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE", "wrong horse battery")
    with pytest.raises(Error) as caught:
        keyuri.open_key(uri)
    assert "battery" not in str(caught.value)


def test_nothing_that_is_started_inherits_the_passphrase(new_authority, tmp_path, monkeypatch):
    """Neither the service, which outlives whoever started it, nor git, which runs what its configuration names."""
    other, idle = new_authority(start=False), new_authority(start=False)
    monkeypatch.setenv("MLSEAL_KEY_PASSPHRASE", "correct horse")
    monkeypatch.setenv("MLSEAL_KEY", "file2:/a")
    embedded.ensure_running(idle.trust)
    started = [environ_of(pid) for pid in running(idle.state)]
    assert started
    assert all(b"MLSEAL_KEY" not in environ for environ in started)
    assert all(b"PATH=" in environ for environ in started)

    pid = process.start(other.state)
    assert b"PATH=" in environ_of(pid)
    assert b"MLSEAL_KEY" not in environ_of(pid)

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\nexit 1\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(ServiceUnavailable):
        fetching.fetch(f"git+file:///nowhere@{'0' * 40}#p.yaml")
    assert "PATH=" in (tmp_path / "seen").read_text()
    assert "MLSEAL_KEY" not in (tmp_path / "seen").read_text()
    os.kill(pid, signal.SIGTERM)
    process._started[-1].wait(20)


def environ_of(pid):
    return Path(f"/proc/{pid}/environ").read_bytes()


def running(state):
    """The processes that serve this authority."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and str(state).encode() in words:
            yield int(entry.name)
