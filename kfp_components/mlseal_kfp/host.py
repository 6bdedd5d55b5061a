"""Run a compiled pipeline on this machine, for development. Nothing is isolated, so nothing is enforced.

The very YAML that is released is run: each container command becomes a process of the caller, started by kfp's own
local orchestrator in a process of its own (kfp.local keeps global state). What that can and cannot say:

* *Can*: that the wiring, the arguments, the evidence and the gate work, and that a refusing gate stops what follows.
* *Cannot*: that the image named in the file ran, that steps could not reach each other's files, that limits, secrets or
  node settings were applied. Evidence made here names the host process as its builder.

Only listed images and modules run, checked for the whole file before the first process starts. Tasks have a deadline;
whatever a task leaves running is killed, also when it changed its session.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlseal.errors import Error, Misuse, Refusal, Unchecked
from mlseal.evidence import trust as trusts
from mlseal.evidence.signing import embedded
from mlseal_kfp import compiled, image
from mlseal_kfp.lint import forbidden_variable
from mlseal_kfp.step import ERROR_MARK
from mlseal_kfp.surroundings import REUSE

NOTICE = "development: not enforced (host processes, no isolation; the image named in the file is not what runs)"
_END_SECONDS = 20.0
_ARGV_LIMIT = 131_072  # MAX_ARG_STRLEN of Linux: KFP passes the whole ExecutorInput as one argument
Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Host:
    """What this machine may stand in for, and how long.

    Attributes:
        images: references that may be run as host processes, besides `image.host_reference`.
        modules: what ``python -m`` may start.
        environment: variables for every step, such as ``MLSEAL_ROLE`` or ``MLSEAL_TOKEN_FILE``.
        task_seconds: deadline of one task.
        run_seconds: deadline of the whole run.
        reuse: let every stage take evidence that exists for the same bytes and settings, once it has verified.
    """

    images: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset({"mlseal_kfp.step"})
    environment: Mapping[str, str] = field(default_factory=dict)
    task_seconds: float = 3600.0
    run_seconds: float = 6 * 3600.0
    reuse: bool = False


@dataclass(frozen=True)
class TaskRecord:
    """One task that was started: its name, exit status, seconds, and the error that it reported."""

    name: str
    stage: str
    exit_code: int
    seconds: float
    timed_out: bool = False
    error: Mapping[str, Any] | None = None
    directory: str = ""


@dataclass(frozen=True)
class HostResult:
    """What came of a run. ``ok`` means that every task ended with status 0, and no more."""

    ok: bool
    pipeline: str
    sha256: str
    tasks: tuple[TaskRecord, ...]
    outputs: Mapping[str, Any]
    log: Path
    message: str = ""
    timed_out: bool = False
    notice: str = NOTICE

    def task(self, name: str) -> TaskRecord:
        """The last record of task `name`. Raises `Misuse` if it was not started."""
        for record in reversed(self.tasks):
            if record.name == name:
                return record
        raise Misuse(f"task {name!r} was not started", got=", ".join(r.name for r in self.tasks) or "no task")

    def output(self, task: str, port: str) -> Path:
        """Where `task` put output `port`."""
        return Path(self.task(task).directory) / port

    def require(self) -> HostResult:
        """Itself if the run succeeded; otherwise the failing step's own error, `Refusal` or `Unchecked`."""
        if self.ok:
            return self
        if self.timed_out:
            raise Unchecked(
                "the run did not end in time", got=self.message, remedy="raise --run-seconds or read the log"
            )
        failed = next((record for record in reversed(self.tasks) if record.exit_code != 0), None)
        if failed is None:
            raise Unchecked("the pipeline did not come to its end", got=self.message, remedy=f"read {self.log}")
        raise _error_of(failed, self.log)


def run(
    file: Path, parameters: Mapping[str, Any], root: Path, host: Host | None = None, *, progress: Progress | None = None
) -> HostResult:
    """Run the compiled pipeline in `file` with `parameters`; artifacts go below `root`.

    Guarantees: an image or command that is not listed, a condition, or a variable that a pipeline may not set refuses
    before anything starts; no process of the run outlives the call.

    Raises:
        Misuse: the file or a parameter cannot be run here (the message says why).
        DigestMismatch: the file was compiled for other code than is installed.
        Unchecked: the installed kfp is not one that this runner was tested with.

    A step that fails is not an exception here: see `HostResult.require`.
    """
    host = host or Host()
    pipeline = compiled.read(file)
    require_runnable(pipeline, host)
    values = typed_parameters(pipeline, parameters)
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    log = root / f"{pipeline.name}-{uuid4().hex[:12]}.log"
    request = {
        "pipeline": pipeline.to_yaml(),  # what was checked is what runs, whatever happens to the file
        "parameters": values,
        "root": os.fspath(root),
        "log": os.fspath(log),
        "environment": dict(host.environment) | ({REUSE: "1"} if host.reuse else {}),
        "taskSeconds": host.task_seconds,
    }
    _start_service()
    events, expired = _converse(request, host, progress)
    records = tuple(_record(event) for event in events if event.get("event") == "end")
    done = next((event for event in events if event.get("event") == "done"), None)
    if done is not None and done.get("kind") == "unsupported":
        raise Unchecked(
            str(done.get("message")), got=done.get("got"), expected=done.get("expected"), remedy=done.get("remedy")
        )
    last = {record.directory: record.exit_code for record in records}  # a retry runs in the same directory
    ok = done is not None and done.get("ok") is True and not expired and not any(last.values())
    message = str((done or {}).get("message", ""))
    if done is None:
        message = f"killed after {host.run_seconds:g} s" if expired else "its own process died"
    outputs = (done or {}).get("outputs") or {}
    return HostResult(ok, pipeline.name, pipeline.sha256, records, outputs, log, message, expired)


def require_runnable(pipeline: compiled.Compiled, host: Host) -> None:
    """Raise unless everything in `pipeline` may be started here: images, commands, variables, no conditions."""
    accepted = host.images | {image.host_reference()}
    for executor in pipeline.executors.values():
        if executor.container is None:
            continue
        image.require_here(executor.image)
        if executor.image not in accepted:
            raise Misuse(
                f"{executor.label} names an image that this host does not stand in for",
                got=executor.image,
                expected=" or ".join(sorted(accepted)),
                remedy="compile for this host with 'mlseal kfp compile --host', or pass --stand-in IMAGE",
            )
        argv = executor.argv
        if argv[:2] not in (("python", "-m"), ("python3", "-m")) or len(argv) < 3 or argv[2] not in host.modules:
            raise Misuse(
                f"{executor.label} starts a command that is not allowed on this host",
                got=" ".join(argv)[:120],
                expected="python -m " + " or ".join(sorted(host.modules)),
                remedy="pass --allow-module NAME",
            )
        for name in executor.environment:
            if forbidden_variable(name):
                raise Misuse(
                    f"{executor.label} sets {name}", expected="a variable that changes neither trust nor interpreter"
                )
    for task in pipeline.tasks():
        if (task.spec.get("triggerPolicy") or {}).get("condition"):
            raise Misuse(
                f"task {task.where!r} stands under a condition, which kfp.local evaluates with eval on spliced text",
                expected="a pipeline whose way is decided by enforce",
                remedy="gate with decide and enforce, or run it on a cluster",
            )


def typed_parameters(pipeline: compiled.Compiled, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with text turned into the types that the pipeline declares.

    Raises `Misuse` for an unknown or missing parameter, a value of another type, one that holds ``{{`` (kfp.local would
    expand it) or all values together being longer than one argument may be.
    """
    declared = ((pipeline.pipeline.get("root") or {}).get("inputDefinitions") or {}).get("parameters") or {}
    if unknown := sorted(set(given) - set(declared)):
        raise Misuse(f"the pipeline has no parameter {unknown[0]!r}", expected=", ".join(sorted(declared)) or "none")
    missing = [
        name
        for name, spec in declared.items()
        if name not in given and "defaultValue" not in spec and not spec.get("isOptional")
    ]
    if missing:
        raise Misuse(f"parameter {missing[0]!r} is missing", remedy=f"pass --param {missing[0]}=VALUE")
    values = {name: _typed(name, value, str(declared[name].get("parameterType", ""))) for name, value in given.items()}
    text = json.dumps(values)
    if "{{" in text:
        raise Misuse("a parameter holds '{{', which kfp.local would expand", remedy="pass the value through a file")
    if len(text) > _ARGV_LIMIT // 2:
        raise Misuse(
            "the parameters are too long for one argument",
            got=f"{len(text)} characters",
            expected=f"at most {_ARGV_LIMIT // 2}",
            remedy="pass a path or a manifest",
        )
    return values


def _typed(name: str, value: Any, kind: str) -> Any:
    if not isinstance(value, str) or kind == "STRING":
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    wanted: dict[str, tuple[type, ...]] = {
        "NUMBER_INTEGER": (int,),
        "NUMBER_DOUBLE": (int, float),
        "BOOLEAN": (bool,),
        "LIST": (list,),
        "STRUCT": (dict,),
    }
    fits = isinstance(parsed, wanted.get(kind, ())) and (kind == "BOOLEAN" or not isinstance(parsed, bool))
    if not fits:
        raise Misuse(f"parameter {name!r} has the wrong type", got=value[:80], expected=kind.lower().replace("_", " "))
    return parsed


def _converse(
    request: Mapping[str, Any], host: Host, progress: Progress | None
) -> tuple[list[Mapping[str, Any]], bool]:
    """Start the run's own process, hand it the request; its events, and whether the deadline passed.

    No process is left behind: the end of the child's stdin is the order to kill whatever it started and to end, and it
    comes also when this process is killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlseal_kfp.hostprocess"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    order = process.stdin
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        order.close()

    deadline = threading.Timer(host.run_seconds, expire)
    deadline.daemon = True
    events: list[Mapping[str, Any]] = []
    try:
        order.write(json.dumps(request) + "\n")
        order.flush()
        deadline.start()
        for line in process.stdout:
            events.append(json.loads(line))
            if progress is not None:
                progress(events[-1])
    except BrokenPipeError:
        pass  # it died before it could read; there is no event, and so no success
    finally:
        deadline.cancel()
        with contextlib.suppress(OSError):
            order.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
    return events, expired.is_set()


def _start_service() -> None:
    """Have the embedded authority running before the first step, so that it is no step's child."""
    with contextlib.suppress(Error):
        embedded.ensure_running(trusts.resolve())


def _record(event: Mapping[str, Any]) -> TaskRecord:
    return TaskRecord(
        name=str(event["task"]),
        stage=str(event["stage"]),
        exit_code=int(event["exit"]),
        seconds=float(event["seconds"]),
        timed_out=bool(event["timedOut"]),
        error=event.get("error"),
        directory=str(event.get("directory", "")),
    )


def _error_of(record: TaskRecord, log: Path) -> Error:
    """The error of a failed task as the step itself reported it."""
    if record.timed_out:
        return Unchecked(
            f"task {record.name!r} did not end in time",
            got=f"{record.seconds:.1f} s, then killed",
            remedy="raise --task-seconds or look at the log",
        )
    detail = record.error or {}
    kind: type[Error] = {Refusal.exit_code: Refusal, Misuse.exit_code: Misuse}.get(record.exit_code, Unchecked)
    return kind(
        str(detail.get("message") or f"task {record.name!r} failed"),
        got=detail.get("got") or f"exit status {record.exit_code}",
        expected=detail.get("expected"),
        remedy=detail.get("remedy") or f"read {log}",
    )


def error_in(line: str) -> Mapping[str, Any] | None:
    """The error that a step reported on this line of its output, if it did."""
    if not line.startswith(ERROR_MARK):
        return None
    try:
        value = json.loads(line.removeprefix(ERROR_MARK))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
