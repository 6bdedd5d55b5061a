"""Shared fixtures: an isolated home for each test, and a real trust service in a process of its own.

`home`         every test has one: HOME, XDG and configuration lie in a fresh directory, nothing of the machine leaks in
`make_home`    further people: their environments, for subprocesses
`authority`    a running trust service, one for each test module; the test's own process acts as its owner
`new_authority` a factory for tests that break, rotate, kill or starve theirs

No test reaches another machine: a connection to an address that is not local fails the test that tries.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAME = "demo.mlseal.local"
START_SECONDS = 30
# What a person's shell may hold that changes what our programs, or the tools beside them, do.
FOREIGN = (
    "MLSEAL_",
    "MLFLOW_",
    "DVC_",
    "GIT_",
    "KFP_",
    "KUBERNETES_",
    "ACTIONS_ID_TOKEN_",
    "SIGSTORE_",
    "AWS_",
    "GOOGLE_",
    "CI_JOB_",
    "XDG_",
    "PYTEST_XDIST",
    "COV_",
)
# Folders whose tests start whole tools: minutes for each module.
LONG = ("examples", "adapters", "attacks")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Home:
    """The home of one person: a directory and the environment in which their programs run."""

    path: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """A whole environment for `subprocess`, made from this process's without what could leak in."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        kept.pop("PYTHONPATH", None)
        return kept | _places(self.path) | dict(self.extra)

    def run(self, *command: str, cwd: Path | None = None, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run `mlseal COMMAND…` as this person; the caller looks at the exit code."""
        return subprocess.run(
            [sys.executable, "-m", "mlseal", *command],
            cwd=cwd or self.path,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=kwargs.pop("timeout", 120),
            stdin=subprocess.DEVNULL,
            check=False,
            **kwargs,
        )

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `run`, in this process: a fifth of the time, where a process of its own is not what is tested.

        Only for the home that is in force; an error that the program does not turn into a sentence is raised.
        """
        from click.testing import CliRunner

        from mlseal.cli import main

        assert os.environ["HOME"] == str(self.path), "call() acts in the home of this process"
        with contextlib.chdir(self.path):
            done = CliRunner().invoke(main, command, prog_name="mlseal")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)


@dataclass
class Authority:
    """A trust service made by `mlseal init` and run by `mlseal serve`, and the home of the person who owns it."""

    home: Home
    dir: Path
    state: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Environment in which this authority is the default trust."""
        return self.home.env

    @property
    def trust(self) -> Any:
        """Its root with endpoints, as `mlseal.evidence.trust.load` reads it."""
        from mlseal.evidence import trust

        return trust.load(self.dir / "trust_config.json")

    @property
    def trusted_root(self) -> Path:
        """The root for stock verifiers."""
        return self.dir / "trusted_root.json"

    @property
    def trust_config(self) -> Path:
        """The ClientTrustConfig for stock signers and for `model_signing`."""
        return self.dir / "trust_config.json"

    @property
    def issuer(self) -> str:
        """The issuer of its tokens."""
        return f"https://{NAME}/issuer"

    @property
    def store(self) -> Any:
        """The evidence directory that `mlseal init` made; shared by the tests of a module, as the log is."""
        from mlseal.evidence.store import Store

        return Store(self.dir / "evidence")

    def san(self, role: str) -> str:
        """The identity in certificates of `role`; of ``reviewer/alice``, with her pseudonym."""
        from mlseal.services.people import People

        role, _, person = role.partition("/")
        segment = "/" + People(self.state).pseudonym_of(self.issuer, person) if person else ""
        return f"https://{NAME}/roles/{role}{segment}"

    def signer(self, role: str = "producer", **kwargs: Any) -> Any:
        """A signer for `role` that publishes into `store` unless told otherwise."""
        from mlseal.evidence.signing import signer_for

        return signer_for(role, trust=self.trust, **({"store": self.store} | kwargs))

    def run(self, *command: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run `mlseal COMMAND…` as the owner."""
        return self.home.run(*command, **kwargs)

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run it as the owner in this process; see `Home.call`."""
        return self.home.call(*command)

    def start(self) -> None:
        """Start the service and wait until it accepts connections."""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlseal", "serve", "--state", str(self.state)],
            env=self.env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        from mlseal.evidence.signing.transport import socket_path

        path = socket_path(self.trust.endpoints.ca)
        end = time.monotonic() + START_SECONDS
        while not _listens(path):
            assert self.process.poll() is None, f"mlseal serve ended: {self.process.stderr.read().decode()}"
            assert time.monotonic() < end, "mlseal serve did not start listening"
            time.sleep(0.02)

    def stop(self, *, sign: int = signal.SIGTERM) -> None:
        """End the service, with `sign` (SIGKILL for a crash), and wait for its end."""
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.communicate(timeout=START_SECONDS)
            self.process = None


@pytest.hookimpl(trylast=True)  # after pytest-randomly, whose order stays inside each half
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first, so that no worker still has one when the others have nothing left to do."""
    items.sort(key=lambda item: not item.path.is_relative_to(_HERE / "examples"))
    items.sort(key=lambda item: not any(item.path.is_relative_to(_HERE / folder) for folder in LONG))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """This test's own home, in force for its process; services that the test had started on demand end with it."""
    own = Home(tmp_path / "home")
    _enter(own, monkeypatch)
    yield own
    _end_services(tmp_path)


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[[str], Home]:
    """Makes the home of another person: they share the machine, not the configuration."""
    return lambda name: _made(Home(tmp_path / f"home-{name}"))


@pytest.fixture
def authority(_module_authority: Authority, home: Home, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """The module's trust service; inside the test this process is its owner (HOME and pinned trust are theirs)."""
    _enter(_module_authority.home, monkeypatch)
    return _module_authority


@pytest.fixture
def new_authority(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Authority]]:
    """Makes trust services for this test alone; ``start=False`` leaves the process out."""
    made: list[Authority] = []

    def make(*, start: bool = True, enter: bool = True) -> Authority:
        made.append(_new_authority())
        if enter:
            _enter(made[-1].home, monkeypatch)
        if start:
            made[-1].start()
        return made[-1]

    yield make
    for one in made:
        _remove(one)


@pytest.fixture(scope="module")
def _module_authority() -> Iterator[Authority]:
    one = _new_authority()
    try:
        one.start()
        yield one
    finally:
        _remove(one)


def _new_authority() -> Authority:
    # Under the machine's own temporary directory: a unix socket's path has room for some hundred bytes.
    base = Path(tempfile.mkdtemp(prefix="mls-", dir="/tmp"))
    base.chmod(0o711)
    owner = _made(Home(base / "h"))
    one = Authority(owner, base / "project" / ".mlseal", base / "s")
    one.dir.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        _enter(owner, patch)
        done = owner.call("init", str(one.dir), "--name", NAME, "--state", str(one.state))
    assert done.returncode == 0, f"mlseal init: {done.stderr}"
    return one


def _remove(one: Authority) -> None:
    one.stop()
    _end_services(one.state.parent)
    shutil.rmtree(one.state.parent, ignore_errors=True)


def _end_services(below: Path) -> None:
    """End the services that were started on demand for a state directory under `below`: they outlive their caller."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # ended meanwhile, or another user's
                continue
            if "serve" in words and any(word.startswith(f"{below}/") for word in words):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(entry.name), signal.SIGTERM)


def _places(path: Path) -> dict[str, str]:
    return {
        "HOME": str(path),
        "XDG_CONFIG_HOME": str(path / ".config"),
        "XDG_STATE_HOME": str(path / ".local/state"),
        "XDG_DATA_HOME": str(path / ".local/share"),
        "XDG_CACHE_HOME": str(path / ".cache"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A Person",
        "GIT_AUTHOR_EMAIL": "person@example.org",
        "GIT_COMMITTER_NAME": "A Person",
        "GIT_COMMITTER_EMAIL": "person@example.org",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


def _made(one: Home) -> Home:
    one.path.mkdir(parents=True, mode=0o700, exist_ok=True)
    return one


def _enter(one: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    _made(one)
    for key in [key for key in os.environ if key.startswith(FOREIGN) and not key.startswith("PYTEST_")]:
        monkeypatch.delenv(key)
    for key, value in (_places(one.path) | dict(one.extra)).items():
        monkeypatch.setenv(key, value)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _offline(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(address := arguments[1], tuple):
        host = str(address[0])
        try:
            local = ipaddress.ip_address(host).is_loopback or host in ("0.0.0.0", "::")
        except ValueError:
            local = host in ("localhost", socket.gethostname())
        if not local:
            raise AssertionError(f"a test tried to reach {host}: tests are offline")


sys.addaudithook(_offline)
