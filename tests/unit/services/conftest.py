"""A real authority in a real process on a real socket, and a client that knows HTTP and nothing of mlseal."""

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

REPOSITORY = Path(__file__).parents[3]
NAME = "lab.mlseal.local"
ISSUER = f"https://{NAME}/issuer"


def b64(data):
    return base64.b64encode(data).decode()


def pae(payload):
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path, timeout=15):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass
class Lab:
    """One authority: where it lies, how to talk to it."""

    root: Path
    state: Path
    project: Path
    env: dict
    process: subprocess.Popen | None = None

    @property
    def socket(self):
        return self.record["socket"]

    @property
    def record(self):
        return json.loads((self.state / "authority.json").read_text())

    @property
    def trusted_root(self):
        return self.project / ".mlseal" / "trusted_root.json"

    def mlseal(self, *args, ok=True, **kwargs):
        done = subprocess.run(
            [sys.executable, "-m", "mlseal", *map(str, args)],
            env=self.env,
            cwd=self.project,
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            **kwargs,
        )
        assert not ok or done.returncode == 0, done.stderr
        return done

    def init(self, **kwargs):
        return self.mlseal("init", "--name", NAME, "--state", self.state, **kwargs)

    def create(self):
        """The authority alone, without the files and pins that `init` makes; in this process, so in no time."""
        from mlseal.services import state

        state.create(self.state, NAME)

    def install(self):
        """All that `init` leaves, made in this process; tests of `init` itself start it as people do."""
        from mlseal.services import setup

        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("MLSEAL_", "XDG_"))]:
                patch.delenv(name)
            patch.setenv("HOME", self.env["HOME"])
            setup.initialise(self.project / ".mlseal", name=NAME, state=self.state)

    def start(self, *args):
        self.stop()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlseal", "serve", "--state", str(self.state), *args],
            env=self.env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.wait_until_up()
        return self.process

    def wait_until_up(self):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if self.call("GET", "/healthz")[0] == 200:
                    return
            except OSError:
                pass
            if self.process and self.process.poll() not in (None, 0):
                raise AssertionError(self.process.stderr.read().decode())
            time.sleep(0.02)
        raise AssertionError("the service did not come up")

    def stop(self, how=signal.SIGTERM):
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(20)
            self.process.stdout.close()
            self.process.stderr.close()
            self.process = None

    def connection(self):
        return UnixHTTP(self.socket)

    def call(self, method, path, body=None, headers=None, connection=None):
        own = connection or self.connection()
        try:
            if isinstance(body, dict):
                body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
            own.request(method, path, body, headers or {})
            answer = own.getresponse()
            data = answer.read()
        finally:
            if connection is None:
                own.close()
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(data) if kind == "application/json" else data

    def token(self, subject="roles/producer"):
        status, document = self.call("POST", "/issuer/token", {"subject": subject})
        assert status == 200, document
        return document["token"]

    def certificate(self, token, key=None):
        """(status, document, key) of a certificate request with `token`."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        body = {"certificateSigningRequest": b64(csr.public_bytes(serialization.Encoding.PEM))}
        return *self.call("POST", "/api/v2/signingCert", body, {"Authorization": f"Bearer {token}"}), key

    def leaf(self, token):
        """Certificate and key for `token`, which must be good."""
        status, document, key = self.certificate(token)
        assert status == 201, document
        pem = document["signedCertificateEmbeddedSct"]["chain"]["certificates"][0]
        return x509.load_pem_x509_certificate(pem.encode()), key

    def entry_request(self, digest, signature, certificate):
        rawbytes = b64(certificate.public_bytes(serialization.Encoding.DER))
        verifier = {"keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": rawbytes}}
        return {
            "hashedRekordRequestV002": {
                "digest": b64(digest),
                "signature": {"content": b64(signature), "verifier": verifier},
            }
        }

    def newest(self):
        return len(self.record["generations"])

    def append(self, request, origin=None, **kwargs):
        return self.call("POST", f"/log/{origin or f'log{self.newest()}.{NAME}'}/api/v2/log/entries", request, **kwargs)

    def timestamp(self, signature):
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

        query = TimestampRequestBuilder().hash_algorithm(HashAlgorithm.SHA256).data(signature).nonce(nonce=True).build()
        status, data = self.call(
            "POST", "/api/v1/timestamp", query.as_bytes(), {"Content-Type": "application/timestamp-query"}
        )
        assert status == 201, data
        return data

    @property
    def people(self):
        from mlseal.services.people import People

        return People(self.state)

    def san(self, role, person):
        """The identity of a local person in certificates, by pseudonym."""
        return f"https://{NAME}/roles/{role}/{self.people.find(person).pseudonym}"

    def bundle(self, number=1, subject="roles/producer", token=None):
        """A Sigstore bundle put together from the service's answers, as JSON text."""
        certificate, key = self.leaf(token or self.token(subject))
        payload = json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
                "subject": [{"name": "model", "digest": {"sha256": f"{number:064x}"}}],
                "predicate": {"result": "PASSED"},
            }
        ).encode()
        signature = key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))
        stamp = self.timestamp(signature)
        status, entry = self.append(self.entry_request(hashlib.sha256(pae(payload)).digest(), signature, certificate))
        assert status == 201, entry
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
                    "tlogEntries": [entry],
                    "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": b64(stamp)}]},
                },
                "dsseEnvelope": {
                    "payload": b64(payload),
                    "payloadType": "application/vnd.in-toto+json",
                    "signatures": [{"sig": b64(signature)}],
                },
            }
        )

    def size(self, kind="ct", number=None):
        """Entries in the issuance log (ct) or the statement log (log), read from the service."""
        status, note = self.call("GET", f"/log/{kind}{number or self.newest()}.{NAME}/checkpoint")
        assert status == 200
        return int(note.decode().split("\n")[1])


def make_lab(root):
    project = root / "project"
    project.mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLSEAL_", "XDG_"))}
    env |= {"HOME": str(root / "home"), "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    (root / "home").mkdir()
    return Lab(root, root / "state", project, env)


@pytest.fixture
def lab(tmp_path):
    """A place for an authority; nothing made yet."""
    made = make_lab(tmp_path / "lab")
    yield made
    made.stop()


@pytest.fixture
def service(lab):
    """An authority of its own, running."""
    lab.install()
    lab.start()
    return lab


@pytest.fixture(scope="module")
def shared():
    """One running authority for the tests of a module that do not change it."""
    with tempfile.TemporaryDirectory(prefix="mlseal-") as folder:
        made = make_lab(Path(folder) / "lab")
        os.chmod(folder, 0o755)
        made.install()
        made.start()
        yield made
        made.stop()
