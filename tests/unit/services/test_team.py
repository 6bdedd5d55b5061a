"""Over TLS, with tokens of identity providers outside: the same service for a team, used by stock clients."""

import base64
import contextlib
import hashlib
import http.client
import http.server
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import stock
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from mlseal.errors import Misuse, ServiceUnavailable, UntrustedSigner
from mlseal.evidence import logrecord
from mlseal.services import providers, tokens
from mlseal.services.people import People

CLUSTER, LOGIN, CI = "https://oidc.cluster-a.example", "https://login.hospital.example", "https://ci.example"
ACCOUNT = "system:serviceaccount:ml-gov:release"


def key_usage(*, ca):
    """What Python 3.13 asks of a chain (OpenSSL's X509_V_FLAG_X509_STRICT): a CA says that it signs certificates."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    wanted = {"key_cert_sign", "crl_sign"} if ca else {"digital_signature"}
    return x509.KeyUsage(**{name: name in wanted for name in names})


def tls_files(folder):
    """A CA and a server certificate for 127.0.0.1."""
    now = datetime.now(UTC)

    def certificate(name, key, issuer, signer, *, ca):
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(key_usage(ca=ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )  # fmt: skip
        if not ca:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = {
        "ca.pem": certificate(name("test CA"), ca_key, name("test CA"), ca_key, ca=True),
        "server.pem": certificate(name("server"), key, name("test CA"), ca_key, ca=False),
        "server.key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for filename, data in files.items():
        (folder / filename).write_bytes(data)
    return {filename: folder / filename for filename in files}


def jwk(key, kid):
    algorithm = {rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm}
    kind = next((a for k, a in algorithm.items() if isinstance(key, k)), jwt.algorithms.OKPAlgorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


def token(key, kid, algorithm="RS256", **claims):
    now = int(time.time())
    return jwt.encode(
        {"aud": "sigstore", "iat": now, "nbf": now, "exp": now + 3600, **claims}, key, algorithm, {"kid": kid}
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def idp(tmp_path):
    """Keys of an identity provider, and its JWKS file."""
    key = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(key, "k1")]}))
    return key, path


@pytest.fixture
def team(lab, tmp_path, idp):
    """An authority over TLS that believes one cluster."""
    _, jwks = idp
    files, port = tls_files(tmp_path), free_port()
    issuers = tmp_path / "issuers.json"
    issuers.write_text(
        json.dumps({"issuers": [{"issuer": CLUSTER, "audience": "sigstore", "san": "kubernetes", "jwks": str(jwks)}]})
    )
    lab.mlseal("init", "--name", "team.mlseal.example", "--state", lab.state, "--url", f"https://127.0.0.1:{port}")
    lab.start("--listen", f"127.0.0.1:{port}", "--tls-cert", str(files["server.pem"]), "--tls-key", str(files["server.key"]), "--external-issuer", str(issuers))  # fmt: skip
    lab.port, lab.ca = port, files["ca.pem"]
    return lab


def https(lab, method, path, body=None, headers=None):
    connection = http.client.HTTPSConnection(
        "127.0.0.1", lab.port, timeout=10, context=ssl.create_default_context(cafile=lab.ca)
    )
    connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})} if body else {})
    answer = connection.getresponse()
    data = answer.read()
    data = json.loads(data) if answer.headers["Content-Type"] == "application/json" else data
    connection.close()
    return answer.status, data


STOCK_SIGNER = """
import sys
from pathlib import Path
from sigstore import dsse
from sigstore.models import ClientTrustConfig
from sigstore.oidc import IdentityToken
from sigstore.sign import SigningContext
config = ClientTrustConfig.from_json(Path(sys.argv[1]).read_text())
with SigningContext.from_trust_config(config).signer(IdentityToken(sys.argv[2])) as signer:
    statement = dsse.StatementBuilder().subjects([dsse.Subject(name="m", digest={"sha256": "ab" * 32})]).predicate_type("https://x.example/v1").predicate({}).build()
    print(signer.sign_dsse(statement).to_json())
"""


def test_stock_sigstore_python_signs_and_everybody_verifies(team, idp):
    """sigstore-python's own Fulcio, Rekor v2 and TSA clients, with a Kubernetes token, against `mlseal serve --listen`."""
    key, _ = idp
    config = team.project / ".mlseal" / "trust_config.json"
    done = subprocess.run(
        [sys.executable, "-c", STOCK_SIGNER, str(config), token(key, "k1", iss=CLUSTER, sub=ACCOUNT)],
        env={**team.env, "REQUESTS_CA_BUNDLE": str(team.ca)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    san = "https://kubernetes.io/namespaces/ml-gov/serviceaccounts/release"
    assert stock.sigstore_python(done.stdout, team.trusted_root, san, CLUSTER)
    assert stock.sigstore_js(done.stdout, team.trusted_root, san, CLUSTER)


def test_our_own_client_signs_with_a_token_file_and_the_verifier_says_so(team, idp, tmp_path):
    """`mlseal sign` and `mlseal verify` against a team's service: only trust configuration and token differ."""
    key, _ = idp
    (tmp_path / "token").write_text(token(key, "k1", iss=CLUSTER, sub=ACCOUNT))
    (tmp_path / "claim.json").write_text('{"result": "PASSED", "configuration": []}')
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    config = team.project / ".mlseal" / "trust_config.json"
    san = "https://kubernetes.io/namespaces/ml-gov/serviceaccounts/release"

    def mlseal(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "mlseal", *arguments, "--trust", str(config)], cwd=tmp_path, capture_output=True,
            text=True, check=False, timeout=60, env={**team.env, "MLSEAL_TLS_CA": str(team.ca)},
        )  # fmt: skip

    signed = mlseal(
        "sign",
        "data.csv",
        "--type",
        "test-result",
        "--predicate",
        "claim.json",
        "-o",
        "b.json",
        "--token-file",
        "token",
    )
    assert signed.returncode == 0, signed.stderr
    seen = [
        mlseal("verify", "b.json", "--subject", "data.csv", "--identity", san, "--issuer", CLUSTER, "--json")
        for _ in range(2)
    ]
    assert [done.returncode for done in seen] == [0, 0], seen[0].stderr
    assert json.loads(seen[1].stdout)["assurance"]["identity"] == "verified-token"
    assert stock.sigstore_python((tmp_path / "b.json").read_bytes(), team.trusted_root, san, CLUSTER)
    untrusted = subprocess.run(
        [sys.executable, "-m", "mlseal", "log", "pin", "--trust", str(config)], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=60, env=team.env,
    )  # fmt: skip
    assert untrusted.returncode == 11, "a server certificate of an unknown CA must stop the client"


def test_nobody_gets_a_local_token_over_the_network(team):
    status, document = https(team, "POST", "/issuer/token", json.dumps({"subject": "roles/gate"}))
    assert (status, document["code"]) == (403, 403)
    assert https(team, "GET", "/healthz")[0] == 200
    assert (
        https(team, "GET", "/issuer/.well-known/openid-configuration")[1]["issuer"]
        == "https://team.mlseal.example/issuer"
    )


def test_tokens_of_the_cluster_that_do_not_hold(team, idp):
    key, _ = idp
    other = rsa.generate_private_key(65537, 2048)

    def size():
        return int(team.call("GET", "/log/ct1.team.mlseal.example/checkpoint")[1].decode().split("\n")[1])

    before = size()
    for bad in (
        token(other, "k1", iss=CLUSTER, sub=ACCOUNT),
        token(key, "k2", iss=CLUSTER, sub=ACCOUNT),
        token(key, "k1", iss=LOGIN, sub=ACCOUNT),
        token(key, "k1", iss=CLUSTER, sub=ACCOUNT, aud="https://kubernetes.default.svc"),
        token(key, "k1", iss=CLUSTER, sub="system:serviceaccount:ml-gov:release:x"),
        token(key, "k1", iss=CLUSTER, sub="system:serviceaccount:../x:release"),
        token(key, "k1", iss=CLUSTER, sub="system:node:n1"),
        token(key, "k1", iss="https://team.mlseal.example/issuer", sub="https://team.mlseal.example/roles/gate"),
    ):
        assert team.certificate(bad)[0] == 401
    assert size() == before
    assert team.certificate(token(key, "k1", iss=CLUSTER, sub=ACCOUNT))[0] == 201


def test_plain_http_and_half_handshakes_on_the_tls_port(team):
    with socket.create_connection(("127.0.0.1", team.port), timeout=15) as plug:
        plug.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in plug.recv(100)
    with socket.create_connection(("127.0.0.1", team.port), timeout=15) as hanging:
        hanging.sendall(b"\x16\x03\x01")
        assert https(team, "GET", "/healthz")[0] == 200


def test_a_port_that_is_taken(lab, tmp_path):
    files = tls_files(tmp_path)
    lab.create()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        args = (
            "--listen",
            f"127.0.0.1:{taken.getsockname()[1]}",
            "--tls-cert",
            files["server.pem"],
            "--tls-key",
            files["server.key"],
        )
        done = lab.mlseal("serve", "--state", lab.state, *args, ok=False)
    assert done.returncode == 2
    assert "cannot listen on" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_listening_needs_all_three(lab):
    lab.init()
    for args in (
        ["--listen", "127.0.0.1:0"],
        ["--tls-cert", "x"],
        ["--listen", "nonsense", "--tls-cert", "x", "--tls-key", "y"],
    ):
        done = lab.mlseal("serve", "--state", lab.state, *args, ok=False)
        assert done.returncode == 2, done.stderr


def configured(tmp_path, *entries):
    path = tmp_path / "issuers.json"
    path.write_text(json.dumps({"issuers": list(entries)}))
    return providers.load(path, reserved="team.example", people=People(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {"issuer": "http://plain.example"}, {"issuer": 5}, {"audience": ""}, {"audience": None}, {"san": "https://x.example/fixed"},
        {"san": "people"}, {"san": "https://team.example/people/{sub}"}, {"san": "{sub}"}, {"san": "https://{sub}/x"}, {"san": "https://team.example/roles/{sub}"}, {"san": "https://a.team.example/{sub}"},
        {"jwks": "http://x.example/keys"}, {"jwks": 5}, {"maxLifetimeSeconds": 0}, {"maxLifetimeSeconds": True}, {"caFile": 1},
    ],
    ids=str,
)  # fmt: skip
def test_configuration_that_is_refused(tmp_path, change):
    entry = {"issuer": CI, "audience": "sigstore", "san": "email", "jwks": "/nowhere", **change}
    with pytest.raises(Misuse):
        configured(tmp_path, {name: value for name, value in entry.items() if value is not None})


def test_the_providers_of_the_operators_page_are_accepted(tmp_path):
    page = (Path(__file__).parents[3] / "docs/operator.md").read_text()
    entries = json.loads(page.partition("```json\n")[2].partition("```")[0])["issuers"]
    assert [issuer.mapping for issuer in configured(tmp_path, *entries)] == [entry["san"] for entry in entries]
    assert len(entries) == 3


def test_an_issuer_twice_and_files_that_are_none(tmp_path):
    entry = {"issuer": CI, "audience": "sigstore", "san": "email", "jwks": "/nowhere"}
    with pytest.raises(Misuse, match="twice"):
        configured(tmp_path, entry, entry)
    for text in ("", "[]", "{}", '{"issuers": 5}', '{"issuers": [], "issuers": []}', '{"issuers": [5]}'):
        (tmp_path / "issuers.json").write_text(text)
        with pytest.raises(Misuse):
            providers.load(tmp_path / "issuers.json", reserved="team.example", people=People(tmp_path))


def test_people_by_verified_e_mail(tmp_path, idp):
    key, jwks = idp
    verifier = tokens.TokenVerifier(
        configured(tmp_path, {"issuer": LOGIN, "audience": "mlseal", "san": "email", "jwks": str(jwks)})
    )

    def who(**claims):
        return verifier.verify(token(key, "k1", iss=LOGIN, aud="mlseal", sub="u1", **claims)).san

    assert who(email="ana@hospital.example", email_verified=True) == "ana@hospital.example"
    for bad in (
        {"email": "ana@hospital.example"},
        {"email": "ana@hospital.example", "email_verified": "true"},
        {"email": "ana@hospital.example", "email_verified": 1},
        {"email": "ana@hospital.example\n", "email_verified": True},
        {"email": "a@b", "email_verified": True},
        {"email": ["ana@hospital.example"], "email_verified": True},
        {"email_verified": True},
    ):
        with pytest.raises(UntrustedSigner):
            who(**bad)


def test_people_by_pseudonym(tmp_path, idp):
    key, jwks = idp
    common = {"audience": "sigstore", "jwks": str(jwks)}
    entries = {"issuer": LOGIN, "san": "person", **common}, {"issuer": CI, "san": "personBySubject", **common}
    verifier, people = tokens.TokenVerifier(configured(tmp_path, *entries)), People(tmp_path)

    def who(iss=LOGIN, sub="u1", **claims):
        caller = verifier.verify(token(key, "k1", iss=iss, sub=sub, email_verified=True, **claims))
        assert (caller.subject, caller.stated) == (sub, caller.san)
        return caller.san

    ana = who(email="Ana@Hospital.example")
    known = people.find("Ana@Hospital.example")
    assert ana == f"https://team.example/people/hospital.example/{known.pseudonym}"
    assert (known.issuer, known.subject, known.domain) == (LOGIN, "u1", "hospital.example")
    # Another address of the same login is the same person; the same address of another login is not.
    assert who(email="ana.b@clinic.example") == f"https://team.example/people/clinic.example/{known.pseudonym}"
    assert people.find(known.pseudonym).login == "ana.b@clinic.example"
    assert b"Ana@Hospital" not in people.path.read_bytes()
    assert who(sub="u2", email="ana.b@clinic.example").rpartition("/")[2] != known.pseudonym
    by_subject = who(CI, email="ana@hospital.example")
    assert by_subject == f"https://team.example/people/{people.find(by_subject).pseudonym}"
    assert "ana@hospital.example" not in str(people.all())
    for bad in ({}, {"email": "ana@hospital.example", "email_verified": False}, {"email": "ana"}):
        with pytest.raises(UntrustedSigner, match="e-mail"):
            verifier.verify(token(key, "k1", iss=LOGIN, sub="u3", **bad))
    assert "u3" not in {person.subject for person in people.all()}


def test_machines_keep_their_subject_in_the_certificate(tmp_path, idp):
    key, jwks = idp
    entry = {"issuer": CLUSTER, "audience": "sigstore", "san": "kubernetes", "jwks": str(jwks)}
    caller = tokens.TokenVerifier(configured(tmp_path, entry)).verify(token(key, "k1", iss=CLUSTER, sub=ACCOUNT))
    assert caller.stated == caller.subject == ACCOUNT
    assert not People(tmp_path).path.exists()


def test_a_template_makes_no_person(tmp_path, idp):
    """Who chooses a claim of a CI system must not choose the domain that a policy asks for."""
    key, jwks = idp
    entry = {"issuer": CI, "audience": "sigstore", "san": "https://ci.example/{ref}", "jwks": str(jwks)}
    verifier, pseudonym = tokens.TokenVerifier(configured(tmp_path, entry)), "p-" + "a" * 26
    for ref in (f"people/{pseudonym}", f"people/hospital.example/{pseudonym}"):
        with pytest.raises(UntrustedSigner, match="person"):
            verifier.verify(token(key, "k1", iss=CI, sub="s", ref=ref))
    near = f"people/hospital.example/{pseudonym}/x"
    assert verifier.verify(token(key, "k1", iss=CI, sub="s", ref=near)).san == f"https://ci.example/{near}"


def test_templates_cannot_be_steered(tmp_path, idp):
    key, jwks = idp
    one = {"issuer": CI, "audience": "sigstore", "san": "https://github.example/{workflow}", "jwks": str(jwks)}
    two = {"issuer": LOGIN, "audience": "sigstore", "san": "https://ci.example/{org}/{repo}", "jwks": str(jwks)}
    verifier = tokens.TokenVerifier(configured(tmp_path, one, two))

    def who(iss, **claims):
        return verifier.verify(token(key, "k1", iss=iss, sub="s", **claims)).san

    assert who(CI, workflow="org/repo/.github/workflows/x.yml@refs/heads/main").startswith(
        "https://github.example/org/repo/"
    )
    assert who(LOGIN, org="a", repo="b") == "https://ci.example/a/b"
    for iss, claims in (
        (LOGIN, {"org": "a/b", "repo": "c"}), (LOGIN, {"org": "a"}), (LOGIN, {"org": "a", "repo": 5}), (LOGIN, {"org": "a", "repo": ""}),
        (CI, {"workflow": "../x"}), (CI, {"workflow": "a//b"}), (CI, {"workflow": "a b"}), (CI, {"workflow": "a?b"}), (CI, {"workflow": "{sub}"}),
    ):  # fmt: skip
        with pytest.raises(UntrustedSigner):
            who(iss, **claims)


@pytest.mark.parametrize(("made", "algorithm"), [(lambda: ec.generate_private_key(ec.SECP384R1()), "ES384"), (ed25519.Ed25519PrivateKey.generate, "EdDSA"), (lambda: rsa.generate_private_key(65537, 2048), "PS256")])  # fmt: skip
def test_every_allowed_algorithm(tmp_path, made, algorithm):
    key = made()
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(key, "k1")]}))
    verifier = tokens.TokenVerifier(
        configured(tmp_path, {"issuer": CLUSTER, "audience": "sigstore", "san": "kubernetes", "jwks": str(path)})
    )
    assert verifier.verify(token(key, "k1", algorithm, iss=CLUSTER, sub=ACCOUNT)).issuer == CLUSTER


def test_keys_that_must_not_be_used(tmp_path, idp):
    """Symmetric keys, private keys, keys for encryption and short RSA keys in a JWKS are as good as absent."""
    key, path = idp
    good = jwk(key, "k1")
    short = rsa.generate_private_key(65537, 1024)
    sets = [
        [{"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "k1"}], [{**good, "use": "enc"}], [{**good, "d": "AQAB"}],
        [{"kty": "RSA"}], [5, "x"], [],
    ]  # fmt: skip
    for keys in sets:
        path.write_text(json.dumps({"keys": keys}))
        verifier = tokens.TokenVerifier(
            configured(tmp_path, {"issuer": CLUSTER, "audience": "sigstore", "san": "kubernetes", "jwks": str(path)})
        )
        with pytest.raises(UntrustedSigner):
            verifier.verify(token(key, "k1", iss=CLUSTER, sub=ACCOUNT))
    path.write_text(json.dumps({"keys": [jwk(short, "k1")]}))
    verifier = tokens.TokenVerifier(
        configured(tmp_path, {"issuer": CLUSTER, "audience": "sigstore", "san": "kubernetes", "jwks": str(path)})
    )
    with pytest.raises(UntrustedSigner), pytest.warns(match="key"):
        verifier.verify(token(short, "k1", iss=CLUSTER, sub=ACCOUNT))


class _Provider(http.server.BaseHTTPRequestHandler):
    """Discovery and keys over TLS; `pages` maps a path to status and body."""

    pages = {}
    asked = []

    def do_GET(self):
        self.asked.append((self.path, self.headers.get("Authorization")))
        status, body = self.pages.get(self.path, (404, b"{}"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def online(tmp_path):
    """A provider over TLS: its base URL, its pages, what it was asked, and the CA file."""
    files = tls_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["server.pem"], files["server.key"])
    handler = type("Handler", (_Provider,), {"pages": {}, "asked": []})
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{httpd.server_port}", handler.pages, handler.asked, files["ca.pem"]
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_discovery_over_tls_with_a_bearer_token(tmp_path, idp, online):
    key, jwks = idp
    base, pages, asked, ca = online
    bearer = tmp_path / "sa-token"
    bearer.write_text("in-cluster\n")
    pages["/.well-known/openid-configuration"] = 200, json.dumps({"issuer": base, "jwks_uri": f"{base}/keys"}).encode()
    pages["/keys"] = 200, jwks.read_bytes()
    entry = {"issuer": base, "audience": "sigstore", "san": "kubernetes", "caFile": str(ca), "tokenFile": str(bearer)}
    verifier = tokens.TokenVerifier(configured(tmp_path, entry))
    for _ in range(3):
        assert verifier.verify(token(key, "k1", iss=base, sub=ACCOUNT)).subject == ACCOUNT
    assert asked == [("/.well-known/openid-configuration", "Bearer in-cluster"), ("/keys", "Bearer in-cluster")]
    with pytest.raises(UntrustedSigner):
        verifier.verify(token(key, "unknown", iss=base, sub=ACCOUNT))
    assert len(asked) == 2, "an unknown key id must not make the service ask at every token"


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"/keys": (500, b"")},
        {"/keys": (302, b"/elsewhere")},
        {"/keys": (200, b"not json")},
        {"/keys": (200, b'{"keys": 5}')},
        {"/keys": (200, b"x" * 300_000)},
    ],
    ids=["404", "500", "redirect", "garbage", "no keys", "huge"],
)
def test_providers_that_fail_are_unavailable_not_trusted(tmp_path, idp, online, pages):
    key, _ = idp
    base, served, _, ca = online
    served.update(pages)
    entry = {"issuer": base, "audience": "sigstore", "san": "kubernetes", "caFile": str(ca), "jwks": f"{base}/keys"}
    verifier = tokens.TokenVerifier(configured(tmp_path, entry))
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            verifier.verify(token(key, "k1", iss=base, sub=ACCOUNT))


def test_a_provider_behind_another_certificate_is_not_asked(tmp_path, idp, online):
    key, jwks = idp
    base, pages, asked, _ = online
    pages["/keys"] = 200, jwks.read_bytes()
    verifier = tokens.TokenVerifier(
        configured(tmp_path, {"issuer": base, "audience": "sigstore", "san": "kubernetes", "jwks": f"{base}/keys"})
    )
    with pytest.raises(ServiceUnavailable):
        verifier.verify(token(key, "k1", iss=base, sub=ACCOUNT))
    assert asked == []


def test_discovery_of_somebody_else(tmp_path, idp, online):
    key, _ = idp
    base, pages, _, ca = online
    for document in (
        {"issuer": "https://other.example", "jwks_uri": f"{base}/keys"},
        {"issuer": base, "jwks_uri": "http://x/keys"},
        [],
    ):
        pages["/.well-known/openid-configuration"] = 200, json.dumps(document).encode()
        verifier = tokens.TokenVerifier(
            configured(tmp_path, {"issuer": base, "audience": "sigstore", "san": "kubernetes", "caFile": str(ca)})
        )
        with pytest.raises(ServiceUnavailable):
            verifier.verify(token(key, "k1", iss=base, sub=ACCOUNT))


def test_the_log_of_a_team_takes_entries_of_listed_keys_only(team, tmp_path):
    """Over the network a key is nobody, until the owner lists it; what it logged stays when it is struck off."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = "sha256:" + hashlib.sha256(spki).hexdigest()
    path = "/log/log1.team.mlseal.example/api/v2/log/entries"

    def request(text, sign=key, raw=spki, details="PKIX_ECDSA_P256_SHA_256", **more):
        named = {"keyDetails": details, "publicKey": {"rawBytes": base64.b64encode(raw).decode()}, **more}
        signature = base64.b64encode(sign.sign(text, ec.ECDSA(hashes.SHA256()))).decode()
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        inner = {"digest": digest, "signature": {"content": signature, "verifier": named}}
        return json.dumps({"hashedRekordRequestV002": inner})

    def asks(text, sign=key):
        """The header in which the holder of a key asks for the entry of `text`."""
        asked = sign.sign(logrecord.asked(hashlib.sha256(text).digest()), ec.ECDSA(hashes.SHA256()))
        return {"Authorization": f"Mlseal-Key {base64.b64encode(asked).decode()}"}

    def allow(*args):
        return json.loads(team.mlseal("key", "allow", *args, "--state", team.state, "--json").stdout)["keys"]

    status, document = https(team, "POST", path, request(b"one"), asks(b"one"))
    assert status == 403
    assert "takes no entries by this key" in document["message"]
    assert allow() == []
    assert allow(fingerprint) == [fingerprint]
    size = https(team, "GET", "/log/log1.team.mlseal.example/checkpoint")[1]
    foreign = {
        "nothing": {},
        "a token": {"Authorization": "Bearer x"},
        "no signature": {"Authorization": "Mlseal-Key AA=="},
    }
    foreign |= {"no base64": {"Authorization": "Mlseal-Key !"}, "another entry's": asks(b"two")}
    foreign |= {"somebody else's": asks(b"one", ec.generate_private_key(ec.SECP256R1()))}
    foreign |= {"the public signature": {"Authorization": f"Mlseal-Key {json.loads(request(b'one'))['hashedRekordRequestV002']['signature']['content']}"}}  # fmt: skip
    for what, header in foreign.items():  # a signature that the key made elsewhere is public: anybody may bring it
        status, document = https(team, "POST", path, request(b"one"), header)
        assert (status, "did not ask" in document["message"]) == (403, True), (what, document)
    assert https(team, "GET", "/log/log1.team.mlseal.example/checkpoint")[1] == size
    status, document = https(team, "POST", path, request(b"one"), asks(b"one"))
    assert status == 201
    assert https(team, "POST", path, request(b"one"), asks(b"one"))[0] == 409
    other, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    for refused, body in (
        (403, request(b"two", raw=other.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))),
        (403, request(b"two", sign=other)),
        (400, request(b"two", sign=p384, raw=p384.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))),
        (400, request(b"two", raw=b"")),
        (400, request(b"two", raw=spki + b"x")),
        (400, request(b"two", details="PKIX_ED25519")),
        (400, request(b"two", x509Certificate={"rawBytes": "AA=="})),
    ):  # fmt: skip
        assert https(team, "POST", path, body, asks(b"two"))[0] == refused, body
    (tmp_path / "data.csv").write_text("1")
    (tmp_path / "claim.json").write_text('{"result": "PASSED", "configuration": []}')
    (tmp_path / "key.pem").touch(0o600)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "mlseal", "sign", "data.csv", "--type", "test-result", "--predicate", "claim.json", "--key",
         f"file2:{tmp_path / 'key.pem'}", "--trust", str(team.project / ".mlseal" / "trust_config.json")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env={**team.env, "MLSEAL_TLS_CA": str(team.ca)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert allow("--revoke", fingerprint) == []
    assert https(team, "POST", path, request(b"two"), asks(b"two"))[0] == 403
    again, known = https(team, "POST", path, request(b"one"))
    assert (again, known["logIndex"]) == (409, document["logIndex"])
    assert team.mlseal("key", "allow", "sha256:x", "--state", team.state, ok=False).returncode == 2
    assert team.mlseal("key", "allow", "--revoke", fingerprint, "--state", team.state, ok=False).returncode == 2
