"""What the CA is shown and must not believe. Every case asserts that nothing was issued, not only the status."""

import base64
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

NAME = "lab.mlseal.local"
ISSUER = f"https://{NAME}/issuer"
SAN = f"https://{NAME}/roles/gate"


@dataclass(frozen=True)
class Now:
    """A moment so many seconds from when the token is made."""

    offset: int


def claims(**changes):
    now = int(time.time())
    made = {"iss": ISSUER, "sub": SAN, "aud": "sigstore", "iat": now, "nbf": now, "exp": now + 300, **changes}
    return {
        name: now + value.offset if isinstance(value, Now) else value
        for name, value in made.items()
        if value is not None
    }


@pytest.fixture
def real(shared):
    """The issuer's own key and key id, as only the service (and root) can read them."""
    pem = (shared.state / "keys" / "1" / "issuer.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    return key, shared.call("GET", "/issuer/keys")[1]["keys"][0]["kid"]


def raw_token(header, payload, signature=b""):
    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return f"{part(header)}.{part(payload)}.{part(signature)}"


def refused(shared, token, status=401):
    before = shared.size("ct")
    got, document, _ = shared.certificate(token)
    assert (got, document["code"]) == (status, status), document
    assert set(document) == {"code", "message"}
    assert "\n" not in document["message"]
    assert shared.size("ct") == before
    return document["message"]


def test_the_real_thing_is_accepted_and_logged(shared, real):
    key, kid = real
    before = shared.size("ct")
    assert shared.certificate(jwt.encode(claims(), key, "ES256", {"kid": kid}))[0] == 201
    assert shared.size("ct") == before + 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exp": Now(-1)}, "expired"),
        ({"exp": Now(-200)}, "expired"),
        ({"aud": "other"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": {"sigstore": 1}}, "audience"),
        ({"aud": "sigstore "}, "audience"),
        ({"iat": Now(900), "exp": Now(1000)}, "future"),
        ({"nbf": Now(900), "exp": Now(400)}, "future"),
        ({"exp": Now(86_400)}, "too long"),
        ({"exp": None}, "'exp'"),
        ({"iat": None}, "'iat'"),
        ({"exp": "tomorrow"}, "'exp'"),
        ({"exp": True}, "'exp'"),
        ({"exp": 10**400}, "'exp'"),
        ({"exp": float("1e300")}, "'exp'"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": "https://elsewhere.example/roles/gate"}, "identity"),
        ({"sub": f"https://{NAME}/roles/root"}, "identity"),
        ({"sub": f"https://{NAME}/roles/gate/../owner"}, "identity"),
        ({"sub": f"https://{NAME}/roles/gate\n"}, "subject"),
        ({"iss": f"https://{NAME}/issuer/"}, "issuer"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ["https://evil.example", ISSUER]}, "issuer"),
    ],
    ids=str,
)
def test_claims_that_do_not_hold(shared, real, changes, says):
    assert says in refused(shared, by_hand(changes, real))


def by_hand(changes, real):
    """PyJWT refuses to make some of these; an attacker does not."""
    key, kid = real
    return jwt.PyJWS().encode(json.dumps(claims(**changes)).encode(), key, "ES256", {"kid": kid})


@pytest.mark.parametrize("changes", [{}, {"nbf": None}, {"iat": Now(240)}, {"aud": ["x", "sigstore"]}], ids=str)
def test_claims_that_hold(shared, real, changes):
    assert shared.certificate(by_hand(changes, real))[0] == 201


def test_a_forged_signature(shared, real):
    _, kid = real
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert "not signed by its issuer" in refused(shared, jwt.encode(claims(), stranger, "ES256", {"kid": kid}))
    assert "not signed by its issuer" in refused(shared, jwt.encode(claims(), stranger, "ES256", {"kid": "other"}))
    assert "not signed by its issuer" in refused(shared, jwt.encode(claims(), stranger, "ES256"))


def test_another_key_of_the_same_authority(shared, real):
    """The CA key signs certificates, not tokens; a mixed-up key must not open the door."""
    _, kid = real
    ca = serialization.load_pem_private_key((shared.state / "keys" / "1" / "ca.pem").read_bytes(), None)
    refused(shared, jwt.encode(claims(), ca, "ES256", {"kid": kid}))


def test_no_algorithm(shared, real):
    _, kid = real
    for name in ("none", "None", "NONE", "nOnE"):
        header = json.dumps({"alg": name, "typ": "JWT", "kid": kid}).encode()
        assert "algorithm" in refused(shared, raw_token(header, json.dumps(claims()).encode()))


def test_algorithm_confusion(shared, real):
    """HMAC with the public key as secret, the classic; and other algorithms than the key's."""
    key, kid = real
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    import hmac

    body = raw_token(json.dumps({"alg": "HS256", "kid": kid}).encode(), json.dumps(claims()).encode()).rsplit(".", 1)[0]
    mac = base64.urlsafe_b64encode(hmac.digest(public, body.encode(), "sha256")).rstrip(b"=").decode()
    assert "algorithm" in refused(shared, f"{body}.{mac}")
    other = rsa.generate_private_key(65537, 2048)
    refused(shared, jwt.encode(claims(), other, "RS256", {"kid": kid}))
    refused(shared, jwt.encode(claims(), ec.generate_private_key(ec.SECP384R1()), "ES384", {"kid": kid}))


def test_keys_that_the_token_brings_along(shared):
    stranger = ec.generate_private_key(ec.SECP256R1())
    numbers = stranger.public_key().public_numbers()
    own = {
        "kty": "EC",
        "crv": "P-256",
        "x": base64.urlsafe_b64encode(numbers.x.to_bytes(32, "big")).decode().rstrip("="),
        "y": base64.urlsafe_b64encode(numbers.y.to_bytes(32, "big")).decode().rstrip("="),
    }
    refused(shared, jwt.encode(claims(), stranger, "ES256", {"jwk": own}))
    refused(shared, jwt.encode(claims(), stranger, "ES256", {"jku": "https://evil.example/keys", "kid": "x"}))


def test_critical_headers_and_duplicate_members(shared, real):
    key, kid = real
    good = json.dumps(claims()).encode()
    refused(shared, jwt.PyJWS().encode(good, key, "ES256", {"kid": kid, "crit": ["b64"], "b64": True}))
    twice = good[:-1] + b', "sub": "https://lab.mlseal.local/roles/owner"}'
    assert "identity token" in refused(shared, jwt.PyJWS().encode(twice, key, "ES256", {"kid": kid}))


def test_a_token_changed_by_one_character(shared):
    head, body, signature = shared.token().split(".")
    swapped = body[:-2] + ("A" if body[-2] != "A" else "B") + body[-1]
    refused(shared, f"{head}.{swapped}.{signature}")
    refused(shared, f"{head}.{body}.")
    refused(shared, f"{head}.{body}")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "....", "é.é.é", "a" * 20_000, "e30.e30.e30", "W10.W10.W10"])
def test_what_is_no_token(shared, token):
    before = shared.size("ct")
    status, document, _ = shared.certificate(token) if token.isascii() else (401, {"code": 401}, None)
    assert status == 401, document
    assert shared.size("ct") == before


def test_key_without_proof(shared):
    """A CSR whose signature is by another key, and keys of other kinds."""
    token, before = shared.token(), shared.size("ct")
    mine, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    good = builder.sign(mine, hashes.SHA256())
    info = good.tbs_certrequest_bytes
    stolen = builder.sign(theirs, hashes.SHA256()).tbs_certrequest_bytes
    spliced = good.public_bytes(serialization.Encoding.DER).replace(info, stolen)
    pem = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(spliced) + b"-----END CERTIFICATE REQUEST-----\n"
    )
    others = [
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))
    ]
    for csr in (pem, *others, b"garbage", b""):
        body = {"certificateSigningRequest": base64.b64encode(csr).decode()}
        status, document = shared.call("POST", "/api/v2/signingCert", body, {"Authorization": f"Bearer {token}"})
        assert status == 400, document
    for body in (
        {},
        {"publicKeyRequest": 1},
        {"certificateSigningRequest": 5},
        {"publicKeyRequest": {"publicKey": {"content": "x"}}},
    ):
        status, document = shared.call("POST", "/api/v2/signingCert", body, {"Authorization": f"Bearer {token}"})
        assert status == 400, document
    assert shared.size("ct") == before


def test_proof_of_possession_form(shared):
    """The other form of Fulcio's v2 request, with the token in the body."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def body(proof):
        request = {
            "publicKey": {"algorithm": "ECDSA", "content": public.decode()},
            "proofOfPossession": base64.b64encode(proof).decode(),
        }
        return {"credentials": {"oidcIdentityToken": shared.token("roles/gate")}, "publicKeyRequest": request}

    assert shared.call("POST", "/api/v2/signingCert", body(key.sign(SAN.encode(), ec.ECDSA(hashes.SHA256()))))[0] == 201
    before = shared.size("ct")
    assert shared.call("POST", "/api/v2/signingCert", body(key.sign(b"other", ec.ECDSA(hashes.SHA256()))))[0] == 400
    assert shared.size("ct") == before


def test_no_token_at_all(shared):
    status, document = shared.call("POST", "/api/v2/signingCert", {"certificateSigningRequest": ""})
    assert (status, document["code"]) == (401, 401)


def test_no_token_makes_a_certificate_that_passes_for_a_bare_key():
    from mlseal.errors import Misuse
    from mlseal.services.certificates import CertificateAuthority
    from mlseal.services.tokens import Caller

    key = ec.generate_private_key(ec.SECP256R1())
    root = x509.Name([])
    now = datetime.now(UTC)
    ca = x509.CertificateBuilder().subject_name(root).issuer_name(root).public_key(key.public_key()).serial_number(1)
    ca = ca.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    san = "sha256:" + "a" * 64
    with pytest.raises(Misuse, match="stands for bare keys"):
        CertificateAuthority(key, [ca], key, None).issue(Caller("urn:mlseal:key", san, san, san), key.public_key())
