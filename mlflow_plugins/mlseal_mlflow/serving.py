"""A gated ``mlflow server`` as a child process: started, waited for, tried, stopped.

A server without the gate works and says OK to health checks, so one that was started here counts as started only once
it refused what it must (`require_gated`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlseal.errors import Misuse, ServiceUnavailable, Unchecked
from mlseal.services import listening

STARTING_SECONDS = 240
STOPPING_SECONDS = 20
_FILES = ("MLSEAL_TRUST", "MLSEAL_POLICY", "MLSEAL_STORE", "MLSEAL_TOKEN_FILE")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - an operator's choice, and how to reach it from here


@dataclass
class Server:
    """A server that answers at ``url``."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path | None = None

    def stop(self) -> None:
        """End the server and wait for its workers, which sign what waits; kill them if they do not end in time."""
        if self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        end = time.monotonic() + STOPPING_SECONDS
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOPPING_SECONDS)
        while _any_of(self.process.pid):  # the first process ends at once, the workers when they are done
            if time.monotonic() > end:
                os.killpg(self.process.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        self.process.wait()

    def said(self) -> str:
        """The end of the log, for an error; empty when the log is not ours."""
        return self.log.read_text(errors="replace")[-2000:] if self.log else ""


def command(
    home: Path, registry: str, *, host: str, port: int, workers: int = 2, more: Sequence[str] = ()
) -> list[str]:
    """The command of a server that keeps runs and artifacts in `home`, and models in the store `registry`."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", str(workers)),
        *("--backend-store-uri", f"sqlite:///{home}/tracking.db", "--registry-store-uri", registry),
        *("--artifacts-destination", str(home / "artifacts"), *more),
    ]


def gated(database: str) -> str:
    """The registry store URI that puts the gate in front of `database` (an SQLAlchemy URI)."""
    if database.startswith("mlseal:") or ":" not in database:
        raise Misuse(
            "not a database", got=database.rpartition("@")[2], expected="an SQLAlchemy URI such as sqlite:////FILE"
        )
    return f"mlseal:{database}"


def absolute(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of `environment` that name files, each path made absolute: a server runs in another directory."""
    found = {}
    for name in _FILES:
        if given := environment.get(name):
            parts = given.split(os.pathsep) if name == "MLSEAL_POLICY" else [given]
            found[name] = os.pathsep.join(part if "://" in part else str(Path(part).absolute()) for part in parts)
    return found


def start(
    home: Path,
    *,
    registry: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    workers: int = 2,
    more: Sequence[str] = (),
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Server:
    """Start a server and wait until its registry answers.

    Args:
        home: existing directory for what the server keeps.
        registry: registry store URI, as MLflow takes it; default: the gate before SQLite in `home`.
        host: address to listen on.
        port: 0 for a free one.
        workers: processes.
        more: further options of ``mlflow server``; a later one outweighs ours.
        prefix: words before the command, such as ``setpriv …`` to run it as another user.
        env: whole environment of the server; default: this process's.
        log: file for what the server prints; default: this process's standard error.

    Raises `ServiceUnavailable` when it ends or does not answer in time, with what it printed.
    """
    home = home.resolve()
    port = port or _free_port(host)
    argv = command(
        home, registry or gated(f"sqlite:///{home}/registry.db"), host=host, port=port, workers=workers, more=more
    )
    with _output(log) as out:
        process = subprocess.Popen(
            [*prefix, *argv],
            env=None if env is None else dict(env),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one C call
        )
    server = Server(f"http://{_EVERYWHERE.get(host, host)}:{port}", process, log)
    try:
        _await(server)
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def running(home: Path, **options: object) -> Iterator[Server]:
    """`start` for the length of a ``with``; the same options."""
    server = start(home, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()


def require_gated(server: Server) -> str:
    """What the server refused when it was tried. Raises `Unchecked` when it did not refuse or could not be tried."""
    from mlseal_mlflow import doctor

    check = doctor.refuses(server.url)
    if not check.ok:
        raise Unchecked(
            "this server was not seen to refuse what it must",
            got=check.detail,
            expected="403 from mlseal",
            remedy="see its log; behind a login, set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of a user "
            "who may create a model",
        )
    return check.detail


def _await(server: Server) -> None:
    import requests

    end = time.monotonic() + STARTING_SECONDS
    while True:
        if (status := server.process.poll()) is not None:
            raise ServiceUnavailable(f"mlflow server ended with {status}", got=server.said() or "see above")
        try:  # any answer but a failure will do: behind a login it is 401
            answer = requests.get(f"{server.url}/api/2.0/mlflow/registered-models/search", timeout=5)
            if answer.status_code < 500 and listening.by_session(
                server.process.pid, int(server.url.rpartition(":")[2])
            ):
                return
        except requests.RequestException:
            pass
        if time.monotonic() > end:
            raise ServiceUnavailable(f"mlflow server does not answer within {STARTING_SECONDS} s", got=server.said())
        time.sleep(0.2)


@contextmanager
def _output(log: Path | None) -> Iterator[IO[bytes] | int]:
    if log is None:
        yield 2
        return
    with log.open("ab") as out:
        yield out


def _any_of(group: int) -> bool:
    """Whether a process of this group still runs; those that became our own children are reaped."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Whoever started the server may be killed: then it ends too (prctl PR_SET_PDEATHSIG; Linux has it)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
