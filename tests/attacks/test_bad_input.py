"""What bad input gets: one sentence, the right exit code, no traceback, nothing half-written, and never "allowed".

One input of each kind goes to a process of its own, as for people (`run`); the others are called in this one (`call`),
where an error that is no sentence is raised.
"""

import json
import shutil

import pytest

from mlseal.evidence import statement
from mlseal.evidence.digest import measure

RESULT = "https://in-toto.io/attestation/test-result/v0.1"


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "weights.bin").write_bytes(b"w" * 100)
    return directory


@pytest.fixture
def bundle(authority, model, tmp_path):
    said = statement.make(
        measure(model).subjects, RESULT, {"result": "PASSED", "configuration": [], "url": str(tmp_path)}
    )
    made = authority.signer("producer").sign(said)
    made.write(tmp_path / "good.json")
    return tmp_path / "good.json"


def who(authority):
    return ["--identity", authority.san("producer"), "--issuer", authority.issuer]


def one_sentence(done, code):
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "llowed" not in done.stdout


def test_control_the_good_bundle_verifies(authority, bundle, model):
    assert authority.run("verify", str(bundle), "--subject", str(model), *who(authority)).returncode == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, 11),
        (b"", 11),
        (b"{", 10),
        (b"[]", 10),
        (b"\xff\xfe", 10),
        (b"{}", 10),
        (b'{"mediaType":"x"}', 10),
        (b"[" * 99999, 10),
        (b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}', 10),
    ],
)
def test_bundles_that_are_none(authority, model, tmp_path, content, code):
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    one_sentence(authority.call("verify", str(path), "--subject", str(model), *who(authority)), code)


def test_bundle_cut_short(authority, bundle, model):
    bundle.write_bytes(bundle.read_bytes()[:-700])
    one_sentence(authority.run("verify", str(bundle), "--subject", str(model), *who(authority)), 10)


@pytest.mark.parametrize("kind", ["missing", "empty-directory", "empty-file", "zero-byte-model"])
def test_subjects_that_are_none(authority, bundle, tmp_path, kind):
    path = tmp_path / "subject"
    if kind == "empty-directory":
        path.mkdir()
    elif kind == "empty-file":
        path.write_bytes(b"")
    elif kind == "zero-byte-model":
        path.mkdir()
        (path / "model.pkl").write_bytes(b"")
    one_sentence(authority.call("verify", str(bundle), "--subject", str(path), *who(authority)), 11)
    one_sentence(authority.call("gate", str(path), "--policy", str(authority.dir / "policy.yaml")), 11)


def test_without_a_subject_the_bytes_are_unchecked(authority, bundle):
    done = authority.call("verify", str(bundle), *who(authority))
    one_sentence(done, 11)
    assert "bytes not checked" in done.stderr


def test_without_an_expected_signer_nothing_is_verified(authority, bundle, model, tmp_path):
    one_sentence(
        authority.call("verify", str(bundle), "--subject", str(model), "--policy", str(tmp_path / "none.yaml")), 11
    )
    one_sentence(authority.call("verify", str(bundle), "--subject", str(model), "--identity", "x"), 2)


@pytest.mark.parametrize("change", ["typo", "duplicate", "empty", "binary", "missing", "huge", "anchor"])
def test_policies_that_are_none(authority, model, tmp_path, change):
    text = (authority.dir / "policy.yaml").read_text()
    path = tmp_path / "policy.yaml"
    contents = {
        "typo": text.replace("require:", "requires:"),
        "duplicate": text + "\npolicy: other/1\n",
        "empty": "",
        "huge": text + "#" * 300_000,
        "anchor": text.replace("policy: starter/1", "policy: &a starter/1"),
    }
    if change == "binary":
        path.write_bytes(b"\x00\xff" * 10)
    elif change != "missing":
        path.write_text(contents[change])
    one_sentence(authority.call("gate", str(model), "--policy", str(path)), 11 if change == "missing" else 2)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"not json", b'{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}'],
)
def test_trust_roots_that_are_none(authority, bundle, model, tmp_path, content):
    path = tmp_path / "root.json"
    if content is not None:
        path.write_bytes(content)
    done = authority.call("verify", str(bundle), "--subject", str(model), *who(authority), "--trust", str(path))
    one_sentence(done, 11 if content is None else 10)


def test_expired_trust_root(authority, bundle, model, tmp_path):
    root = json.loads(authority.trusted_root.read_text())

    def end(value):
        if isinstance(value, dict):
            return {k: ("2026-01-01T00:00:00Z" if k == "end" else end(v)) for k, v in value.items()}
        return [end(v) for v in value] if isinstance(value, list) else value

    (tmp_path / "old.json").write_text(json.dumps(end(root)))
    done = authority.run(
        "verify", str(bundle), "--subject", str(model), *who(authority), "--trust", str(tmp_path / "old.json")
    )
    one_sentence(done, 11)
    assert "expired" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["verify"],
        ["gate"],
        ["run", "no.such.stage"],
        ["sign", "x", "--type", "nonsense"],
        ["revoke"],
        ["revoke", "ab"],
        ["log", "nothing"],
    ],
)
def test_commands_that_are_none(authority, arguments):
    done = authority.call(*arguments)
    assert done.returncode in (2, 10, 11)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "claim",
    [
        b"",
        b"{",
        b"[]",
        b'["a"]',
        b'{"result":"MAYBE","configuration":[]}',
        b'{"result":"PASSED"}',
        b'{"result":"PASSED","result":"FAILED","configuration":[]}',
        b'{"result":NaN,"configuration":[]}',
    ],
)
def test_claims_that_are_none_are_not_signed(authority, model, tmp_path, claim):
    from mlseal.evidence.archive import Archive

    before = Archive.open(authority.trust, authority.store).refresh()
    (tmp_path / "claim.json").write_bytes(claim)
    done = authority.call(
        "sign",
        str(model),
        "--type",
        "test-result",
        "--predicate",
        str(tmp_path / "claim.json"),
        "-o",
        str(tmp_path / "out.json"),
        "--store",
        str(authority.store.root),
    )
    one_sentence(done, 2)
    assert not (tmp_path / "out.json").exists()
    assert Archive.open(authority.trust, authority.store).refresh() == before


def test_output_that_cannot_be_written(authority, model, tmp_path):
    (tmp_path / "claim.json").write_text('{"result":"PASSED","configuration":[]}')
    (tmp_path / "file").write_text("x")
    done = authority.run(
        "sign",
        str(model),
        "--type",
        "test-result",
        "--predicate",
        str(tmp_path / "claim.json"),
        "-o",
        str(tmp_path / "file" / "out.json"),
        "--store",
        str(authority.store.root),
    )
    one_sentence(done, 11)


def test_json_errors_are_json(authority, tmp_path):
    done = authority.run("verify", str(tmp_path / "none"), "--json", *who(authority))
    told = json.loads((done.stderr or done.stdout).strip().splitlines()[-1])
    assert told["exitCode"] == done.returncode == 11


def test_audit_of_damaged_stores(authority, bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(authority.dir, copy)
    for file in (copy / "evidence").rglob("*.json"):
        file.write_bytes(b"{")
    done = authority.run("audit", str(copy))
    assert done.returncode == 11
    assert "Traceback" not in done.stderr
