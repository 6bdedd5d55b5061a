"""A marked person signs, here and through an outside login; the mark is in nothing that stays. Then nobody knows her.

What is searched is everything that the authority, its owner's home and the project hold, with what lies in base64
inside of it: certificates are in log entries, entries in tiles.
"""

import base64
import json
import re
import time

import jwt
import pytest
import stock
from cryptography.hazmat.primitives.asymmetric import ec

from mlseal.evidence.identity import EmailDomain, Identity, RoleMember
from mlseal.evidence.strict import certificate_identity

NAME = "lab.mlseal.local"
ISSUER, LOGIN, PLAIN = f"https://{NAME}/issuer", "https://login.hospital.example", "https://plain.hospital.example"
MARK = b"canary"
ADDRESS, SUBJECT = "canary@hospital.example", "canary-0817"


def layers(data, depth=5):
    """`data`, and whatever lies in base64 in it, and in that."""
    yield data
    for run in re.findall(rb"[A-Za-z0-9+/_-]{16,}={0,2}", data) if depth else ():
        text = run.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        if len(text) % 4 != 1:
            yield from layers(base64.b64decode(text + b"=" * (-len(text) % 4)), depth - 1)


def marked(*roots, without=()):
    """Files below `roots` that hold the mark."""
    files = [file for root in roots for file in root.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(files) > 20
    return sorted(
        file.name
        for file in files
        if file.name not in without
        and any(MARK in layer.lower() for layer in layers(str(file).encode() + b"\n" + file.read_bytes()))
    )


@pytest.fixture
def idp(tmp_path):
    """Mints tokens of two logins, one configured as it should be, one that publishes addresses; their file."""
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": "k1", "use": "sig"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    common = {"audience": "sigstore", "jwks": str(tmp_path / "jwks.json")}
    issuers = [{"issuer": LOGIN, "san": "person", **common}, {"issuer": PLAIN, "san": "email", **common}]
    (tmp_path / "issuers.json").write_text(json.dumps({"issuers": issuers}))

    def mint(issuer=LOGIN, **claims):
        now = int(time.time())
        known = {"iss": issuer, "sub": SUBJECT, "aud": "sigstore", "iat": now, "exp": now + 600, "email": ADDRESS}
        return jwt.encode({**known, "email_verified": True, **claims}, key, "ES256", {"kid": "k1"})

    return mint, tmp_path / "issuers.json"


@pytest.fixture
def hospital(lab, idp):
    """An authority that knows local people and those of a login; a model, and evidence to read."""
    lab.init()
    lab.start("--external-issuer", str(idp[1]))
    (lab.project / "model.bin").write_bytes(b"weights")
    lab.read = json.loads(lab.mlseal("revoke", "--snapshot", "--json").stdout)["snapshot"]
    return lab


def approve(lab, *args):
    """The bundle of an approval, as our own client makes it."""
    lab.mlseal("approve", "model.bin", "--evidence", lab.read, "-o", "approval.json", *args)
    return (lab.project / "approval.json").read_bytes()


def identity_in(bundle):
    from cryptography import x509

    raw = json.loads(bundle)["verificationMaterial"]["certificate"]["rawBytes"]
    return certificate_identity(x509.load_der_x509_certificate(base64.b64decode(raw)))


def test_the_search_finds_what_is_folded():
    inner = json.dumps({"certificate": base64.b64encode(b"\x30\x82the canary sings").decode()}).encode()
    for wrap in (base64.b64encode, base64.urlsafe_b64encode, lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")):
        assert any(MARK in layer for layer in layers(b'\x00\x00{"body":"' + wrap(inner) + b'"}'))
    assert not any(MARK in layer for layer in layers(base64.b64encode(inner[:20])))


def test_a_person_signs_and_nothing_that_stays_says_who(hospital, idp, tmp_path):
    mint, _ = idp
    local = approve(hospital, "--role", "reviewer/canary-alice")
    (tmp_path / "token").write_text(mint())
    outside = approve(hospital, "--token-file", str(tmp_path / "token"))
    # Refusals go into the service's own log file; it is told to nobody, and it is no place for names either.
    assert hospital.certificate(mint(email="canary.other@hospital.example", email_verified=False))[0] == 401
    assert hospital.call("POST", "/issuer/token", {"subject": "roles/reviewer/canary/alice"})[0] == 400
    assert "verified e-mail" in (hospital.state / "service.log").read_text()
    hospital.mlseal("trust", "people", "name", "canary-alice", "Canary Persona")

    people = {person.issuer: person for person in hospital.people.all()}
    here = Identity(ISSUER, f"https://{NAME}/roles/reviewer/{people[ISSUER].pseudonym}")
    there = Identity(LOGIN, f"https://{NAME}/people/hospital.example/{people[LOGIN].pseudonym}")
    assert identity_in(local) == here and RoleMember(ISSUER, "reviewer").matches(here)
    assert identity_in(outside) == there
    assert EmailDomain(LOGIN, "hospital.example").matches(there)
    assert (hospital.size("log"), hospital.size("ct")) == (3, 3)
    assert marked(hospital.root) == ["people.db"]
    for bundle in (local, outside):
        assert not any(MARK in layer.lower() for layer in layers(bundle))
    for bundle, who in ((local, here), (outside, there)):
        assert stock.sigstore_python(bundle, hospital.trusted_root, who.san, who.issuer)
        assert stock.sigstore_js(bundle, hospital.trusted_root, who.san, who.issuer)

    hospital.mlseal("trust", "grant", "--uid", "7", "roles/reviewer/canary-alice")
    assert marked(hospital.root) == ["grants.json", "people.db"]
    for who in ("Canary Persona", ADDRESS):
        hospital.mlseal("trust", "people", "erase", who, "--yes")
    assert marked(hospital.root) == []
    assert not any(p.pseudonym.encode() in (hospital.state / "people.db").read_bytes() for p in people.values())
    # The history still verifies, for us and for others, and she is somebody new.
    hospital.mlseal("audit")
    assert stock.sigstore_python(local, hospital.trusted_root, here.san, here.issuer)
    assert identity_in(approve(hospital, "--role", "reviewer/canary-alice")) != here
    assert identity_in(approve(hospital, "--token-file", str(tmp_path / "token"))) != there


def test_an_authority_that_publishes_addresses_is_found_out(hospital, idp):
    """The mapping ``email`` does what Fulcio does: the address is in the bundle and in both logs, for ever."""
    mint, _ = idp
    bundle = hospital.bundle(9, token=mint(PLAIN))
    assert any(MARK in layer for layer in layers(bundle.encode()))
    certificates, statements = hospital.state / "logs" / f"ct1.{NAME}", hospital.state / "logs" / f"log1.{NAME}"
    for log in (certificates, statements):
        found = [f for f in log.rglob("*") if f.is_file() and any(MARK in layer for layer in layers(f.read_bytes()))]
        assert found, log
    assert stock.sigstore_python(bundle, hospital.trusted_root, ADDRESS, PLAIN)
    with pytest.raises(AssertionError):
        assert marked(hospital.root) == ["people.db"]
