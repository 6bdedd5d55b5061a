"""Starts and ends `tests.adapters.opa.server`, a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.adapters.opa.engine import engine

SERVER = Path(__file__).with_name("server.py")


@dataclass(frozen=True)
class Rego:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Within, connections are taken in and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(rego: Path | Sequence[Path], *arguments: str, bundle: str | None = "gate=r1") -> Iterator[Rego]:
    """A server with these modules, as long as the block lasts."""
    modules = [rego] if isinstance(rego, Path) else list(rego)
    command = [sys.executable, str(SERVER), *(part for file in modules for part in ("--rego", str(file))), *arguments]
    command += ["--bundle", bundle] if bundle else []
    environment = {**os.environ, "PYTHONPATH": str(engine())}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as made:
        try:
            url = made.stdout.readline().strip() if made.stdout else ""
            assert url, "the server did not start"
            yield Rego(url, made)
        finally:
            made.kill()
