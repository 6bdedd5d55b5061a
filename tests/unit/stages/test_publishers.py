"""What publishers sign elsewhere: each method takes what is right, under the stated root and identity, and nothing else."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlseal.errors import DigestMismatch, ForgedEvidence, MalformedEvidence, Misuse, Refusal, UntrustedSigner
from mlseal.evidence import oms, published, statement
from mlseal.evidence.digest import measure
from mlseal.evidence.signing import Signer, keyuri

ROLE = "monitor"  # what it logs stays unresolved here, as what a publisher logs elsewhere does
SLSA = {
    "buildDefinition": {"buildType": "https://x.example/b", "externalParameters": {}},
    "runDetails": {"builder": {"id": "https://x.example/builder"}},
}


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "release"
    (directory / "sub").mkdir(parents=True)
    (directory / "a").write_text(str(tmp_path))
    (directory / "sub" / "b").write_text("22")
    return directory


@pytest.fixture
def listed(data, tmp_path):
    """The publisher's list, in a form that it may have."""
    lines = [f"{hashlib.sha256((data / n).read_bytes()).hexdigest()}  {n}\n" for n in ("a", "sub/b")]
    file = tmp_path / "SHA256SUMS"
    file.write_text("".join(lines))
    return file


@pytest.fixture
def check(authority, perform):
    """Runs the stage under the publisher's root, pinned by its fingerprint."""

    def go(method, **given):
        told = {"issuer": authority.issuer, "san": authority.san(ROLE), "trust_root": authority.trusted_root}
        told["trust_root_fingerprint"] = authority.trust.fingerprint
        told |= given
        return perform("ingestion.source", method=method, **{k: v for k, v in told.items() if v is not None})

    return go


@pytest.fixture
def sign(authority, tmp_path):
    """Signs bytes (a message signature) or a statement, as the publisher, into a file."""

    def go(what, role=ROLE, name="bundle.json"):
        signer = authority.signer(role)
        raw = signer.sign(what).raw if isinstance(what, statement.Statement) else message(signer, what)
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return go


def message(signer, data):
    """A message-signature bundle, which our own signer never makes, by the parts that it is made of."""
    credential = signer._credentials.current()
    signature = credential.sign(data)
    digest = hashlib.sha256(data).digest()
    entry, _ = signer._remote.append(digest, signature, credential.verifier)
    stamp = signer._remote.timestamp(signature)

    def text(value):
        return base64.b64encode(value).decode()

    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                **credential.material,
                "tlogEntries": [entry],
                "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": text(stamp)}]},
            },
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": text(digest)},
                "signature": text(signature),
            },
        }
    ).encode()


def test_a_message_signature_over_a_file(authority, check, sign, data):
    bundle = sign((data / "a").read_bytes())
    said = check("sigstore-bundle", dataset=data / "a", signature=bundle).predicate
    publisher = said["publisher"]
    assert (publisher["issuer"], publisher["san"]) == (authority.issuer, authority.san(ROLE))
    assert (publisher["trustRoot"], publisher["compared"]) == (authority.trust.fingerprint, "file")
    assert publisher["signature"] == hashlib.sha256(bundle.read_bytes()).hexdigest() and publisher["signedOn"]
    assert said["method"] == "sigstore-bundle" and "source" not in said and "predicateType" not in publisher
    with pytest.raises(ForgedEvidence, match="does not verify"):
        check("sigstore-bundle", dataset=data / "sub" / "b", signature=bundle)
    with pytest.raises(UntrustedSigner, match="another identity"):
        check("sigstore-bundle", dataset=data / "a", signature=bundle, san=authority.san("producer"))
    with pytest.raises(UntrustedSigner):
        check("sigstore-bundle", dataset=data / "a", signature=bundle, issuer="https://other.example")
    with pytest.raises(Misuse, match="one file"):
        check("sigstore-bundle", dataset=data, signature=bundle)


def test_a_statement_about_a_file_must_be_a_provenance_or_the_type_asked_for(check, sign, data):
    file = data / "a"
    subjects = measure(file).subjects
    bundle = sign(statement.make(subjects, "https://slsa.dev/provenance/v1", SLSA))
    publisher = check("sigstore-bundle", dataset=file, signature=bundle).predicate["publisher"]
    assert publisher["predicateType"] == "https://slsa.dev/provenance/v1"
    with pytest.raises(DigestMismatch, match="other bytes"):
        check("sigstore-bundle", dataset=data / "sub" / "b", signature=bundle)
    bad = sign(statement.make(subjects, "https://x.example/it-is-poisoned/v1", {"bad": True}))
    with pytest.raises(MalformedEvidence, match="another type"):
        check("sigstore-bundle", dataset=file, signature=bad)
    asked = {"predicate": "https://x.example/it-is-poisoned/v1"}
    assert check("sigstore-bundle", dataset=file, signature=bad, **asked).predicate["publisher"]["predicateType"]


def test_a_publisher_is_somebody_and_no_bare_key(authority, check, data, tmp_path):
    private = keyuri._File(ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "bundle.json").write_bytes(Signer(authority.trust, key=private).sign(oms.make(measure(data))).raw)
    with pytest.raises(MalformedEvidence, match="a bare key, which names nobody"):
        check("oms-signature", dataset=data, signature=tmp_path / "bundle.json")


def test_an_oms_signature_lists_exactly_these_files(check, sign, data):
    bundle = sign(oms.make(measure(data)), name="model.sig")
    assert check("oms-signature", dataset=data, signature=bundle).predicate["publisher"]["compared"] == "manifest"
    (data / "sub" / "b").rename(data / "sub" / "c")  # the root digest stays, the names do not
    with pytest.raises(DigestMismatch, match="not those of the model signature"):
        check("oms-signature", dataset=data, signature=bundle)
    (data / "sub" / "c").rename(data / "sub" / "b")
    (data / "extra").write_text("x")
    with pytest.raises(DigestMismatch, match="extra"):
        check("oms-signature", dataset=data, signature=bundle)
    with pytest.raises(Misuse, match="directory"):
        check("oms-signature", dataset=data / "a", signature=bundle)


def test_sums_under_a_bundle(check, sign, data, listed):
    bundle = sign(listed.read_bytes())
    publisher = check("sha256sums-bundle", dataset=data, signature=bundle, sums=listed).predicate["publisher"]
    assert publisher["sums"] == hashlib.sha256(listed.read_bytes()).hexdigest() and publisher["compared"] == "sums"
    (data / "extra").write_text("x")
    with pytest.raises(DigestMismatch, match="not listed: 'extra'"):
        check("sha256sums-bundle", dataset=data, signature=bundle, sums=listed)
    # The attacker changes a file and its line; the list is then not what was signed.
    (data / "extra").unlink()
    (data / "a").write_text("poison")
    swapped = hashlib.sha256(b"poison").hexdigest() + listed.read_text()[64:]
    listed.write_text(swapped)
    with pytest.raises(ForgedEvidence):
        check("sha256sums-bundle", dataset=data, signature=bundle, sums=listed)


def test_another_root_does_not_verify_and_its_fingerprint_must_be_stated(check, sign, data, new_authority, tmp_path):
    bundle = sign((data / "a").read_bytes())
    other = new_authority(start=False, enter=False)
    theirs = {"trust_root": other.trusted_root, "trust_root_fingerprint": other.trust.fingerprint}
    with pytest.raises(ForgedEvidence):
        check("sigstore-bundle", dataset=data / "a", signature=bundle, **theirs)
    with pytest.raises(DigestMismatch, match="trust root is not the one announced"):
        check("sigstore-bundle", dataset=data / "a", signature=bundle, trust_root=other.trusted_root)
    with pytest.raises(Misuse, match="needs --trust-root-fingerprint"):
        check("sigstore-bundle", dataset=data / "a", signature=bundle, trust_root_fingerprint=None)
    (tmp_path / "no-root").write_text("{}")
    with pytest.raises(MalformedEvidence, match="no trust root"):
        check("sigstore-bundle", dataset=data / "a", signature=bundle, trust_root=tmp_path / "no-root")


def test_the_public_root_is_one_that_can_be_pinned():
    from importlib import resources

    from mlseal.evidence import canonical, trust

    store = resources.files("sigstore") / "_store"
    files = [folder / "trusted_root.json" for folder in store.iterdir() if folder.is_dir()]
    roots = [file.read_bytes() for file in files if file.is_file()]
    assert roots
    for data in roots:
        expected = trust.fingerprint(canonical.parse(data, what="root"))
        assert published.root_of(data, expected).fingerprint == expected


def test_a_spoilt_bundle_is_refused(check, sign, data, tmp_path):
    bundle = sign((data / "a").read_bytes())
    for spoilt in (
        b"",
        b"{}",
        b"x",
        bundle.read_bytes()[:-30],
        bundle.read_bytes().replace(b'"mediaType"', b'"mediaType":"x","mediaType"', 1),
    ):
        (tmp_path / "spoilt").write_bytes(spoilt or b" ")
        with pytest.raises(Refusal):
            check("sigstore-bundle", dataset=data / "a", signature=tmp_path / "spoilt")


def test_sums_under_a_pinned_key(check, data, listed, tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "sums.sig").write_bytes(key.sign(listed.read_bytes()))
    told = {
        "dataset": data,
        "sums": listed,
        "signature": tmp_path / "sums.sig",
        "public_key": tmp_path / "key.pem",
        "public_key_fingerprint": "sha256:" + hashlib.sha256(der).hexdigest(),
        "trust_root": None,
        "trust_root_fingerprint": None,
    }
    said = check("sha256sums-key", **told).predicate
    assert said["publisher"]["key"] == told["public_key_fingerprint"] and "trustRoot" not in said["publisher"]
    assert said["assurance"] == {"identity": "pinned-key", "log": "none", "time": "none"}
    other = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "sums.sig").write_bytes(other.sign(listed.read_bytes()))
    with pytest.raises(ForgedEvidence, match="pinned key"):
        check("sha256sums-key", **told)
    with pytest.raises(Misuse, match="needs --public-key-fingerprint"):
        check("sha256sums-key", **told | {"public_key_fingerprint": None})
    with pytest.raises(Misuse, match="needs --sums"):
        check("sha256sums-key", **told | {"sums": None})


def test_what_nobody_signed_is_stated_as_such(check, data):
    alone = {"trust_root": None, "trust_root_fingerprint": None, "issuer": None, "san": None}
    said = check("none", dataset=data, source_name="uci-adult", **alone).predicate
    assert said["unsigned"] == {"name": "uci-adult", "sha256": measure(data).sha256}
    assert said["strength"] == "declared" and "source" not in said and "publisher" not in said
    for name in ("", " x", "uci-\N{CYRILLIC SMALL LETTER A}dult", "x" * 201):
        with pytest.raises(Misuse, match="needs the name"):
            check("none", dataset=data, source_name=name, **alone)


def test_an_unknown_method_and_a_signature_without_one_are_misuse(check, data, listed):
    with pytest.raises(Misuse, match="unknown method"):
        check("trust-me", dataset=data)
    with pytest.raises(Misuse, match="needs its --method"):
        check("evidence", dataset=data, signature=listed)
