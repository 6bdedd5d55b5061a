"""The process in which one pipeline runs on the host: kfp's local orchestrator with our way of starting tasks.

Two attributes of ``kfp.local`` are replaced for the life of this process, which is why it is a process of its own, and
why other versions of kfp than `TESTED` are refused: the task handler (kfp's own rewrites every ``python3`` in arguments
and data, and refuses container components), and the maker of run ids (eight digits; here a UUID, as on a back end).

Protocol: line 1 of stdin is the request; the end of stdin means that the caller is gone. stdout carries one JSON event
a line (``start``, ``end``, ``done``); everything else goes to the log file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO
from uuid import uuid4

from mlseal.errors import Unchecked
from mlseal.stages.training.run import BUILDER_VARIABLE
from mlseal_kfp import processes
from mlseal_kfp.host import error_in
from mlseal_kfp.surroundings import HOST_PROCESS

TESTED = ("2.17.0", "2.17.3")
"""Versions of kfp whose ``kfp.local`` this was tried with; their Python files are the same."""


class Events:
    """Events to the caller; safe from several threads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def emit(self, event: str, **values: Any) -> None:
        """Write one event."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(json.dumps({"event": event, **values}, default=str) + "\n")
            self._stream.flush()


class HostTask:
    """One task as a host process; the interface that kfp's dispatcher expects of a task handler."""

    def __init__(
        self,
        request: Mapping[str, Any],
        events: Events,
        *,
        full_command: Sequence[str],
        env_vars: Mapping[str, str] | None,
    ) -> None:
        self._command = [sys.executable, "-P", *full_command[1:]]  # -P: the current directory is no place for modules
        self._stage = full_command[3] if len(full_command) > 3 else full_command[2]
        self._directory = _task_directory(full_command)
        # A host process is no container, whatever the caller's shell or the file says.
        self._environment = {
            k: v
            for k, v in {**os.environ, **(env_vars or {}), **request["environment"]}.items()
            if k != BUILDER_VARIABLE
        } | {HOST_PROCESS: "1"}
        self._seconds = float(request["taskSeconds"])
        self._events = events
        self._expired = threading.Event()
        self._error: Mapping[str, Any] | None = None

    def run(self) -> Any:
        """Run to the end or the deadline; kfp's Status."""
        from kfp.local import status

        name = self._directory.name if self._directory else self._stage
        self._events.emit("start", task=name, stage=self._stage)
        started = time.monotonic()
        code = self._execute()
        self._events.emit(
            "end",
            task=name,
            stage=self._stage,
            exit=code,
            seconds=round(time.monotonic() - started, 3),
            timedOut=self._expired.is_set(),
            error=self._error,
            directory=self._directory,
        )
        return status.Status.SUCCESS if code == 0 else status.Status.FAILURE

    def _execute(self) -> int:
        try:
            process = _LIVE.start(self._command, self._environment)
        except OSError as error:  # E2BIG: the ExecutorInput is one argument
            self._error = {
                "message": f"cannot start task {self._stage!r}",
                "got": error.strerror,
                "remedy": "collect fewer artifacts, or pass a manifest",
            }
            return Unchecked.exit_code
        timer = threading.Timer(self._seconds, self._expire, [process])
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self._error = error_in(line) or self._error
                sys.stderr.write(line)
            return process.wait()
        finally:
            timer.cancel()
            _LIVE.end(process)

    def _expire(self, process: subprocess.Popen[str]) -> None:
        """End the task and what it started: a grandchild that holds the pipe open would keep the reader waiting."""
        self._expired.set()
        _LIVE.end(process)


class Live:
    """The tasks that run now; what is below this process and not below one of them was left behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: set[int] = set()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a task in a session of its own. Raises `OSError`."""
        with self._lock:
            process = subprocess.Popen(
                list(command),
                env=dict(environment),
                text=True,
                errors="replace",
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self._pids.add(process.pid)
            return process

    def end(self, process: subprocess.Popen[str]) -> None:
        """Kill the task, what is below it, and what it abandoned."""
        with self._lock:
            if process.returncode is None:
                processes.kill_tree(process.pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
            self._pids.discard(process.pid)
            processes.kill_orphans({*self._pids, process.pid})

    def end_all(self) -> None:
        """Kill every task and everything below this process."""
        processes.kill_orphans(())


_LIVE = Live()


def main() -> int:
    """Read the request, run the pipeline, report. The exit status says nothing that the events do not."""
    request = json.loads(sys.stdin.readline())
    events = Events(os.fdopen(os.dup(1), "w"))
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    processes.adopt_orphans()
    threading.Thread(target=_end_with_caller, daemon=True).start()
    try:
        installed = version("kfp")
    except PackageNotFoundError:
        events.emit(
            "done", ok=False, kind="unsupported", message="kfp is not installed", remedy="pip install 'mlseal[kfp]'"
        )
        return 1
    if installed not in TESTED:
        events.emit(
            "done",
            ok=False,
            kind="unsupported",
            message="the host runner was not tested with this kfp",
            got=installed,
            expected=" or ".join(TESTED),
            remedy=f"pip install kfp=={TESTED[0]}",
        )
        return 1
    try:
        outputs = _run(request, events)
    except Exception as error:  # noqa: BLE001 - whatever kfp raises is reported, with its class, and stops the run
        events.emit("done", ok=False, kind="failed", message=_plain_text(error))
        return 1
    events.emit("done", ok=True, outputs=outputs)
    return 0


def _without_client() -> None:
    """Let ``import kfp`` pass without its REST client, which nothing here calls.

    The client brings the whole of kubernetes: three quarters of what starting the runner costs (kfp 2.17.0).
    """
    stand_in = ModuleType("kfp.client")
    stand_in.Client = None  # type: ignore[attr-defined]  # kfp imports this one name
    sys.modules.setdefault("kfp.client", stand_in)


def _run(request: Mapping[str, Any], events: Events) -> dict[str, Any]:
    _without_client()
    from kfp import components, local
    from kfp.local import placeholder_utils, subprocess_task_handler

    def handler(*, full_command: list[str], env_vars: dict[str, str] | None = None, **_: Any) -> HostTask:
        return HostTask(request, events, full_command=full_command, env_vars=env_vars)

    subprocess_task_handler.SubprocessTaskHandler = handler
    placeholder_utils.make_random_id = lambda: str(uuid4())
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=request["root"], raise_on_error=True)
    result = components.load_component_from_text(request["pipeline"])(**request["parameters"])
    return {name: _plain(value) for name, value in result.outputs.items()}


def _plain_text(error: Exception) -> str:
    """kfp's message without its terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")[:500]


def _plain(value: Any) -> Any:
    """An output as JSON: an artifact by its path."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value.path if hasattr(value, "uri") else value


def _task_directory(command: Sequence[str]) -> Path | None:
    """The task's own directory, read from the ExecutorInput in its arguments."""
    for argument in command:
        if argument.startswith("{"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return Path(json.loads(argument)["outputs"]["outputFile"]).parent
    return None


def _end_with_caller() -> None:
    """Stop everything when the caller's end of stdin closes."""
    sys.stdin.read()
    _LIVE.end_all()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
