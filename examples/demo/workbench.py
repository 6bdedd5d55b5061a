"""Where the main job happens: one directory, one isolated home, real commands, and the table printed at the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_LEAKS = ("MLSEAL_", "MLFLOW_", "DVC_", "GIT_", "KFP_", "XDG_", "PYTHONPATH")
SERVER_SECONDS = 240
GIST = 260


class Unexpected(SystemExit):
    """A step did not end as the story needs; the exit status is 1 and the reason is printed."""


@dataclass
class Row:
    """One line of the closing table; ``refused`` says why something was stopped."""

    step: str
    proved: str
    refused: str = ""
    seconds: float = 0.0


@dataclass
class Workbench:
    """The directory `root` with everything that the job makes, and the environment that its commands run in."""

    root: Path
    console: Console
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.logs = self.root / "logs"
        self.store = self.root / "project" / ".mlseal" / "evidence"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(_LEAKS)} | {
            "HOME": str(self.root / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "MLSEAL_STORE": str(self.store),
            "MLSEAL_POLICY": str(self.root / "policies"),
            "GIT_AUTHOR_NAME": "Data Engineer",
            "GIT_AUTHOR_EMAIL": "data@example.org",
            "GIT_COMMITTER_NAME": "Data Engineer",
            "GIT_COMMITTER_EMAIL": "data@example.org",
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_TERMINAL_PROMPT": "0",
            "MLFLOW_LOGGING_LEVEL": "ERROR",
            "PYTHONWARNINGS": "ignore",
            "NO_PROXY": "*",
        }
        (self.root / "home").mkdir(parents=True)
        self.logs.mkdir()

    @property
    def project(self) -> Path:
        """The git and DVC repository of the person who runs the job."""
        return self.root / "project"

    def say(self, text: str) -> None:
        """One line of the story."""
        self.console.print(text)

    @contextmanager
    def step(self, title: str) -> Iterator[Row]:
        """One step: announced, timed, and a row of the table if it ends well."""
        number = len(self.rows) + 1
        self.console.rule(f"[bold]{number}. {title}", align="left")
        row = Row(title, "")
        self.rows.append(row)
        started = time.monotonic()
        yield row
        row.seconds = time.monotonic() - started
        if row.proved:
            self.say(f"[green]proved[/]   {row.proved}")
        if row.refused:
            self.say(f"[red]refused[/]  {row.refused}")

    def run(
        self,
        *command: str | Path,
        cwd: Path | None = None,
        expect: int = 0,
        python: Path | None = None,
        quiet: bool = False,
        prefix: Sequence[str] = (),
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the reader would type it; stop the job unless it ends with `expect` or one of them.

        ``mlseal``, ``dvc`` and ``python`` are run with this interpreter, so that nothing depends on PATH.
        """
        words = [str(part) for part in command]
        if not quiet:
            shown = [w.replace(str(self.root), "…") for w in words]
            self.say(f"[dim]$ {shlex.join(shown)}[/]")
        interpreter = str(python or sys.executable)
        argv = {
            "mlseal": [interpreter, "-m", "mlseal"],
            "dvc": [interpreter, "-m", "dvc"],
            "python": [interpreter],
        }.get(words[0], [words[0]]) + words[1:]
        done = subprocess.run(
            [*prefix, *argv],
            cwd=cwd or self.project,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        with (self.logs / "commands.log").open("a") as log:
            log.write(f"$ {shlex.join(words)}\n{done.stdout}{done.stderr}[exit {done.returncode}]\n\n")
        if done.returncode not in (expect if isinstance(expect, tuple) else (expect,)):
            text = (done.stderr or done.stdout).strip()[-3000:]
            raise Unexpected(f"{shlex.join(words[:3])} ended with {done.returncode}, expected {expect}:\n{text}")
        return done

    def table(self) -> Table:
        """Every step: what it proved, what was refused and why, the seconds that it took."""
        table = Table(title="What happened", show_lines=True, expand=True)
        table.add_column("step", ratio=3)
        table.add_column("what it proved", ratio=5)
        table.add_column("refused, and why", ratio=6, style="red")
        table.add_column("s", justify="right")
        for number, row in enumerate(self.rows, 1):
            table.add_row(f"{number}. {row.step}", row.proved, gist(row.refused), f"{row.seconds:.1f}")
        return table


def gist(refusal: str) -> str:
    """A refusal for the table: its first reasons, without the remedy that was printed in full above."""
    told = refusal.split("; remedy:", maxsplit=1)[0]
    for prefix in ("failed to pull data from the cloud - ", "mlseal: "):
        told = told.removeprefix(prefix)
    return told if len(told) <= GIST else told[: GIST - 1].rsplit(" ", 1)[0] + " …"


def reason(text: str) -> str:
    """The sentence of a refusal in a command's output, without the program's prefix."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    chosen = next(
        (line for line in reversed(lines) if "remedy" in line or "refus" in line.lower()), lines[-1] if lines else ""
    )
    for prefix in ("mlseal: ", "ERROR: ", "Error: "):
        chosen = chosen.removeprefix(prefix)
    return chosen


def answer(
    url: str, method: str, body: dict[str, Any] | None = None, timeout: float = 120
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one REST call to MLflow; a refusal is an answer, not an exception."""
    request = urllib.request.Request(
        url,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


@contextmanager
def mlflow_server(bench: Workbench) -> Iterator[str]:
    """A real ``mlflow server`` with two workers whose registry asks the gate; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home = bench.root / "mlflow"
    home.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "2",
        "--backend-store-uri",
        f"sqlite:///{home}/tracking.db",
        "--registry-store-uri",
        f"mlseal:sqlite:///{home}/registry.db",
        "--artifacts-destination",
        str(home / "artifacts"),
    ]
    bench.say("[dim]$ mlflow server --registry-store-uri mlseal:sqlite:///…/registry.db --workers 2 …[/]")
    with (bench.logs / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            command, env=bench.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process, bench.logs / "mlflow.log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Unexpected(f"mlflow server ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise Unexpected(f"mlflow server did not answer within {SERVER_SECONDS} s, see {log}")


def fresh(root: Path) -> Path:
    """`root`, empty: what an earlier run left there is removed, anything else is not touched."""
    marker = root / ".mlseal-demo"
    if root.exists() and any(root.iterdir()):
        if not marker.exists():
            raise Unexpected(f"{root} holds something else; choose another --work")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return root


def in_words(measured: dict[str, Any]) -> str:
    """A fairness finding in one line; counts and rates that were suppressed are called so."""
    gap = next((m for m in measured["metrics"] if m["name"] == "equalizedOddsDifference"), None)
    told = f"{gap['value']:.3f} [{gap['ciLow']:.3f}, {gap['ciHigh']:.3f}]" if gap else "not measurable"

    def reached(group: dict[str, Any]) -> str:
        rate, of = group.get("truePositiveRate"), group.get("positives")
        return (
            f"{group['name']}: {'too few to say' if rate is None else f'{rate:.0%}'} of {of or 'fewer than 10'} in need"
        )

    return f"equalized odds against need {told}; reached: " + "; ".join(map(reached, measured["groups"]))


class Canary:
    """A pickle that writes a file when it is loaded: if the file exists, hostile code ran."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (open, (self.path, "w"))


def private_python(bench: Workbench) -> Path:
    """An environment of this job's own over the present one, so that the DVC autoload is installed nowhere else."""
    directory = bench.root / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    site = next((directory / "lib").glob("python*/site-packages"))
    parents = [p for p in sys.path if p.endswith("site-packages")]
    (site / "parent.pth").write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in parents))
    return directory / "bin" / "python"
