"""One SuperLink and a SuperNode for each client, as processes of this machine that speak TLS over loopback.

Each session has a certificate authority of its own, whose key is thrown away once the server's certificate is signed.
HOME and TMPDIR of every process lie in the session's directory, which is how `mlseal.stages.workspace` finds and ends
them, whatever sessions they made of their own, and however the run ended. Telemetry, update checks and the installation
of dependencies are off.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import ipaddress
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mlseal.errors import Unchecked
from mlseal.evidence import paths
from mlseal.stages import process, workspace

_APP = """\
from mlseal.services import federated

made = federated.apps()
client = made[0]
server = made[1]
"""
_PROJECT = """\
[project]
name = "mlsealfederated"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "mlseal"
[tool.flwr.app.components]
serverapp = "federated_app:server"
clientapp = "federated_app:client"
[tool.flwr.app.config]
place = ""
"""
_LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)
"""Below the ports that the system gives to clients."""
_POLL = 0.1
_START = 120.0


@dataclass
class Federation:
    """A session in `home`, a private directory. Use as a context manager: everything is ended at its end.

    Attributes:
        authority: SHA-256 of the CA's certificate.
        nodes: client → its SuperNode.
    """

    home: Path
    authority: str = ""
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _link: subprocess.Popen[bytes] | None = None
    _port: int = 0

    def __enter__(self) -> Self:
        (self.home / "flwr").mkdir(parents=True, mode=0o700)
        self.authority = _certificates(self.home)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, settings: Mapping[str, Path], check: Callable[[], None]) -> None:
        """Start the SuperLink and, once it listens, a SuperNode for each client. Raises `Unchecked`."""
        self._port = free_port()
        tls = ["--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.pem"]
        where = ["--host", _LOOPBACK, "--port", str(self._port)]
        self._link = self._program("flower-superlink", [*tls, *where, "--disable-runtime-dependency-installation"])
        self._wait(check)
        for client, file in settings.items():
            told = f"settings={json.dumps(str(file))}"
            link = ["--root-certificates", "ca.pem", "--superlink", f"{_LOOPBACK}:{self._port}"]
            own = ["--host", _LOOPBACK, "--port", str(free_port()), "--node-config", told]
            self.nodes[client] = self._program("flower-supernode", [*link, *tls, *own])

    def submit(self, place: Path) -> None:
        """Submit the app, which writes into `place`. Raises `Unchecked` when Flower does not take it."""
        app = self.home / "app"
        app.mkdir()
        (app / "federated_app.py").write_text(_APP)
        (app / "pyproject.toml").write_text(_PROJECT)
        connection = (
            f'[superlink.here]\naddress = "{_LOOPBACK}:{self._port}"\nroot-certificates = "{self.home}/ca.pem"\n'
        )
        (self.home / "flwr" / "config.toml").write_text(f'[superlink]\ndefault = "here"\n{connection}')
        told = ["--run-config", f"place={json.dumps(str(place))}", "--format", "json"]
        done = subprocess.run(
            [_beside("flwr"), "run", str(app), "here", *told],
            env=self._environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=_START,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            if json.loads(done.stdout).get("success") is True:
                return
        raise Unchecked("Flower did not take the run", got=(done.stdout + done.stderr).strip()[-200:])

    def require_link(self) -> None:
        """Raise `Unchecked` if the SuperLink has ended. A SuperNode that ended is a client that dropped out."""
        if self._link is None or self._link.poll() is not None:
            raise Unchecked("Flower's SuperLink ended", got=self._last("flower-superlink"))

    def stop(self) -> None:
        """End every process of the session; safe to call again."""
        workspace.end_processes(self.home)
        for child in (*self.nodes.values(), *([self._link] if self._link else [])):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)

    def _wait(self, check: Callable[[], None]) -> None:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            check()
            self.require_link()
            with contextlib.suppress(OSError), socket.create_connection((_LOOPBACK, self._port), 1):
                return
            time.sleep(_POLL)
        raise Unchecked("Flower's SuperLink does not listen", got=self._last("flower-superlink"))

    def _program(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}-{len(self.nodes)}.log").open("wb") as log:
            return subprocess.Popen(
                [_beside(name), *arguments],
                env=self._environment(),
                cwd=self.home,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _environment(self) -> dict[str, str]:
        """Small, with a home of its own, and with what a client needs to ask its owner's policy."""
        passed = {n: v for n, v in os.environ.items() if n in process.PASSED_ON or _is_told(n)}
        ours = {
            "MLSEAL_CONFIG_DIR": str(paths.config_dir()),
            "MLSEAL_STATE_DIR": str(paths.state_dir()),
            "MLSEAL_DATA_DIR": str(paths.data_dir()),
            "MLSEAL_CACHE_DIR": str(paths.cache_dir()),
        }
        home = {"HOME": str(self.home), "TMPDIR": str(self.home), "FLWR_HOME": str(self.home / "flwr")}
        quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**passed, **ours, **home, **quiet, "PATH": path}

    def _last(self, name: str) -> str:
        lines = (self.home / f"{name}-0.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no output"


def _beside(name: str) -> str:
    """The program that came with this interpreter's Flower."""
    return str(Path(sys.executable).parent / name)


def free_port() -> int:
    """A port of loopback that nobody listens on now. Raises `Unchecked` when none is found."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((_LOOPBACK, port))
            return port
    raise Unchecked("no port of loopback is free", expected=f"one of {_PORTS.start} to {_PORTS.stop - 1}")


def _certificates(home: Path) -> str:
    """Write ``ca.pem``, ``server.pem`` and ``server.key``; SHA-256 of the CA's certificate."""
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mlseal federated session")])
    authority = _unsigned(name, root).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signed = authority.sign(root, hashes.SHA256())
    local = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(_LOOPBACK))])
    whose = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    server = _unsigned(name, leaf, whose).add_extension(local, critical=False).sign(root, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (home / "ca.pem").write_bytes(signed.public_bytes(pem))
    (home / "server.pem").write_bytes(server.public_bytes(pem))
    (home / "server.key").touch(mode=0o600)
    (home / "server.key").write_bytes(
        leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return hashlib.sha256(signed.public_bytes(serialization.Encoding.DER)).hexdigest()


def _unsigned(
    issuer: x509.Name, key: ec.EllipticCurvePrivateKey, subject: x509.Name | None = None
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)  # what TLS compares with is this machine's clock
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject or issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
    )


def _is_told(name: str) -> bool:
    """Whether a variable of ours goes to every node: trust, store and names do, a key and its passphrase do not."""
    return name.startswith("MLSEAL_") and not name.startswith("MLSEAL_KEY")
