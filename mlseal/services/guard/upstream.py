"""The model's own server behind the guard: started here, on the bytes that were verified, on loopback.

1. The model was measured; exactly those files are copied to a private directory (mode 0700) and the copy is measured
   again. What serves is the copy, so nobody can swap the model between the judgement and the load.
2. The server gets this copy, a free port on loopback, a small environment and a home of its own.
3. It counts as started once ``/ping`` answers and the port is its own; it ends when the guard does.
4. Once it has ended nothing answers for it: whoever takes its port then is asked nothing (`Upstream.require`).

An upstream that somebody else started can be named instead. Then nothing ties the verified bytes to what answers, and
`Upstream.bound` says so to whoever asks for the posture.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mlseal.errors import Misuse, ServiceUnavailable
from mlseal.evidence.digest import Measured, measure
from mlseal.services import listening
from mlseal.stages import workspace
from mlseal.stages.base import copy, require_same
from mlseal.stages.process import PASSED_ON

STARTING_SECONDS = 240.0
_STOPPING_SECONDS = 10.0
COMMAND = ("mlflow", "models", "serve", "--env-manager", "local", "-m", "{model}", "-h", "127.0.0.1", "-p", "{port}")
"""What starts a server for an MLflow model; ``{model}`` and ``{port}`` are filled in."""


@dataclass(frozen=True)
class Upstream:
    """A model server.

    Attributes:
        url: where it answers.
        server: its process, if it was started here; only then it is tied to the verified bytes.
    """

    url: str
    server: subprocess.Popen[bytes] | None = None

    @property
    def bound(self) -> bool:
        """Whether it was started here, on the private copy of the verified bytes."""
        return self.server is not None

    def require(self) -> None:
        """Raise `ServiceUnavailable` when the server that was started here has ended."""
        if self.server is not None and (status := self.server.poll()) is not None:
            raise ServiceUnavailable(
                "the model's server has ended", got=f"status {status}", remedy="start the guard again"
            )


@contextmanager
def serving(measured: Measured, command: Sequence[str] = COMMAND, log: Path | None = None) -> Iterator[Upstream]:
    """A server for the model, started as `command` says; see the module for the steps.

    Raises `Misuse` if the command does not mention ``{model}`` and ``{port}``, `ServiceUnavailable` if the server ends
    or does not answer within four minutes, with the end of what it printed.
    """
    if not all(any(part in word for word in command) for part in ("{model}", "{port}")):
        raise Misuse("the server's command must take the model and the port", expected="{model} and {port} in it")
    workspace.sweep()  # of a guard that was killed
    with workspace.workspace([]) as place:
        model = place / "model" / measured.name
        copy(measured, model)
        require_same("model", measured.sha256, measure(model, name=measured.name).sha256)  # (1)
        port = _free_port()
        printed = log or place / "server.log"
        with printed.open("ab") as out:
            child = _start([w.replace("{model}", str(model)).replace("{port}", str(port)) for w in command], place, out)
        try:
            url = f"http://127.0.0.1:{port}"
            _await(child, url, printed)  # (3)
            yield Upstream(url, child)
        finally:
            _stop(child)


def _start(argv: list[str], place: Path, out: IO[bytes]) -> subprocess.Popen[bytes]:
    home = place / "home"
    home.mkdir(mode=0o700)
    env = {name: value for name, value in os.environ.items() if name in PASSED_ON}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    program = shutil.which(argv[0], path=env["PATH"])
    if program is None:
        raise Misuse(f"there is no program {argv[0]!r}", expected="the command of a model server after --")
    env |= {"HOME": str(home), "TMPDIR": str(home)}  # (2)
    return subprocess.Popen(
        [program, *argv[1:]],
        env=env,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - one C call
    )


def _await(child: subprocess.Popen[bytes], url: str, printed: Path) -> None:
    import httpx

    end = time.monotonic() + STARTING_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            if (status := child.poll()) is not None:
                raise ServiceUnavailable(f"the model server ended with {status}", got=_said(printed))
            with suppress(httpx.HTTPError):
                answers = client.get(f"{url}/ping").status_code == httpx.codes.OK
                if answers and listening.by_session(child.pid, int(url.rpartition(":")[2])):
                    return
            if time.monotonic() > end:
                raise ServiceUnavailable("the model server does not answer", got=_said(printed), expected="/ping")
            time.sleep(0.1)


def _said(printed: Path) -> str:
    lines = [line for line in printed.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing printed"


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the server and everything in its session."""
    for sign, wait in ((signal.SIGTERM, _STOPPING_SECONDS), (signal.SIGKILL, None)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            child.wait(wait)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Whoever started the server may be killed: then it ends too (prctl PR_SET_PDEATHSIG; Linux has it)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
