"""The trust service as a process: exactly one for each authority, started when needed, gone when idle.

Life of the process, in this order:

1. STATE must belong to this user and be writable by nobody else.
2. The lock on ``STATE/lock``. Whoever does not get it waits until the other one's socket accepts, and is done.
3. Keys and logs are opened; a log that does not fit its own checkpoint stops everything here.
4. The socket is bound under another name and renamed into place: a socket file that exists either accepts, or was left
   by a process that died and is replaced.
5. Requests, until a signal, until nobody asked anything for the idle time, or until STATE is gone.
6. The socket file is removed first, what is under way is finished, logs are closed, the lock is released.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path

from mlseal.errors import Misuse, ServiceUnavailable, Unreadable
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.signing.embedded import environment
from mlseal.services import files, providers, routes
from mlseal.services import state as states
from mlseal.services.authority import Authority
from mlseal.services.people import People
from mlseal.services.server import MAX_CONNECTIONS, Server
from mlseal.services.state import State

IDLE_SECONDS = 600
_START_SECONDS, _DRAIN_SECONDS, _LOG_BYTES = 20.0, 5.0, 1_000_000
_logger = logging.getLogger("mlseal.services")
_started: list[subprocess.Popen[bytes]] = []  # kept, so that they can be waited for


def serve(
    directory: Path,
    *,
    idle: float | None = None,
    listen: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    issuers: Path | None = None,
    clock: Clock = utcnow,
) -> bool:
    """Run the service of the authority in `directory` until it is told to stop; False if another process runs it.

    Args:
        directory: STATE.
        idle: seconds without a request after which to end; None means never.
        listen: ``host:port`` to serve over TLS as well, with `certificate` and `key` (PEM files).
        issuers: configuration of external identity providers.
        clock: the time.

    Raises as `mlseal.services.state.load` and the logs do, `Misuse` for arguments that do not fit together.
    """
    if (listen is None) != (certificate is None) or (certificate is None) != (key is None):
        raise Misuse("listening needs a certificate and its key", expected="--listen, --tls-cert and --tls-key")
    state = states.load(directory)
    states.require_own(state.directory)  # (1)
    with _lock(state) as held:  # (2)
        if not held:
            return False
        _log_to(state.directory / "service.log")
        _limit_resources()
        os.umask(0o022)
        people = People(state.directory, clock=clock)
        external = providers.load(issuers, reserved=state.name, people=people) if issuers else ()
        tls = _tls(certificate, key) if certificate and key else None
        authority = Authority(state.directory, providers=external, clock=clock)  # (3)
        try:
            _run(state, authority, idle, listen, tls)
        finally:
            authority.close()
    return True


def start(directory: Path, *, idle: float = IDLE_SECONDS, deadline: float = _START_SECONDS) -> int | None:
    """Have the service of `directory` running in a process of its own; returns its pid, None if it ran already.

    Raises `ServiceUnavailable` if it does not accept within `deadline` seconds.
    """
    state = states.load(directory)
    if accepts(state.socket):
        return None
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlseal", "serve", "--state", str(state.directory), "--idle", str(idle)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env=environment(),
    )
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        if accepts(state.socket):
            if process.poll() is not None:
                return None
            _started.append(process)
            return process.pid
        if process.poll() not in (None, 0):
            break
        time.sleep(0.02)
    raise ServiceUnavailable(
        "the trust service did not start",
        got=f"exit status {process.poll()}",
        remedy=f"run 'mlseal serve --state {state.directory}' to see why",
    )


def accepts(path: Path) -> bool:
    """Whether somebody listens on the unix socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _run(
    state: State, authority: Authority, idle: float | None, listen: str | None, tls: ssl.SSLContext | None
) -> None:
    dispatch = partial(routes.dispatch, authority)
    stop = _stop_signal()
    servers = [Server(_network(listen), dispatch, tls=tls)] if listen else []
    servers.append(Server(_bound(state), dispatch))  # (4)
    try:
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True, name="accept").start()
        _logger.info("serving %s on %s", state.name, state.socket)
        _wait(state, servers, idle, stop)  # (5)
    finally:
        _unbind(state)  # (6)
        _drain(servers)
        _logger.info("stopped")


def _wait(state: State, servers: Sequence[Server], idle: float | None, stop: threading.Event) -> None:
    pause = 1.0 if idle is None else min(1.0, idle / 4)
    while not stop.wait(pause):
        last = max(server.last_used for server in servers)
        if idle is not None and not any(server.busy for server in servers) and time.monotonic() - last > idle:
            return
        if not (state.directory / "authority.json").exists():
            return


def _stop_signal() -> threading.Event:
    """Set by the signals that end the service; from now on none of them kills it half-way."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _drain(servers: Sequence[Server]) -> None:
    for server in servers:
        server.shutdown()
        server.server_close()
    time.sleep(0.05)  # for requests of connections that were taken in last
    end = time.monotonic() + _DRAIN_SECONDS
    while any(server.busy for server in servers) and time.monotonic() < end:
        time.sleep(0.01)


def _bound(state: State) -> socket.socket:
    directory = states.socket_directory(state)
    fresh = directory / f"{state.socket.name}.new"
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(fresh))
        fresh.chmod(0o666)  # everybody may ask; who gets what is decided by the kernel's word for who asks
        listener.listen(256)
        fresh.replace(state.socket)
    except OSError as error:
        listener.close()
        raise Unreadable(f"cannot listen on {state.socket}", got=error.strerror) from error
    return listener


def _unbind(state: State) -> None:
    state.socket.unlink(missing_ok=True)
    if state.socket.parent != state.directory:
        with suppress(OSError):
            state.socket.parent.rmdir()


def _network(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise Misuse("not an address to listen on", got=listen[:100], expected="host:port")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=256)
    except (OSError, OverflowError) as error:
        raise Misuse(f"cannot listen on {listen}", got=str(error)) from error


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise Misuse("the TLS certificate and key cannot be used", got=str(error)[:120]) from error
    return context


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold every key
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


@contextmanager
def _lock(state: State) -> Iterator[bool]:
    """Hold the lock of the authority (True), or wait until whoever holds it accepts connections (False)."""
    with files.private_lock(state.directory / "lock") as file:
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if accepts(state.socket):
                    yield False
                    return
                if time.monotonic() > end:
                    raise ServiceUnavailable(
                        "another process holds this authority and does not answer",
                        got=str(state.directory / "lock"),
                        remedy="end that process, then start again",
                    ) from None
                time.sleep(0.02)
            else:
                yield True
                return


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log file that only its owner reads, also after it was rolled over."""

    def _open(self) -> TextIOWrapper:
        opened = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return TextIOWrapper(os.fdopen(opened, "ab"), encoding="utf-8", errors="backslashreplace", write_through=True)


def _log_to(path: Path) -> None:
    handler = _PrivateLog(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
