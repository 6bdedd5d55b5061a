"""Where the main job happens: one directory, one isolated home, real commands, and the table printed at the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
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

import yaml
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

_LEAKS = ("MLSEAL_", "MLFLOW_", "DVC_", "GIT_", "KFP_", "XDG_", "PYTHONPATH")
GIST = 260


class Unexpected(SystemExit):
    """A step did not end as the story needs; the exit status is 1 and the reason is printed."""


@dataclass
class Row:
    """One line of the closing table; ``refused`` says why something was stopped, ``stages`` what a pipeline ran."""

    step: str
    proved: str
    refused: str = ""
    seconds: float = 0.0
    stages: list[tuple[str, float]] = field(default_factory=list)


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
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for what the job does not use
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
    def watching(self, title: str) -> Iterator[None]:
        """On a terminal, what runs and since when, until the block ends; elsewhere nothing moves."""
        columns = (SpinnerColumn(), TextColumn("[dim]{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as shown:
            shown.add_task(title, total=None)
            yield

    @contextmanager
    def step(self, title: str) -> Iterator[Row]:
        """One step: announced, timed, and a row of the table if it ends well."""
        number = len(self.rows) + 1
        self.console.rule(f"[bold]{number}. {title}", align="left")
        row = Row(title, "")
        self.rows.append(row)
        started = time.monotonic()
        with self.watching(title):
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
        expect: int | tuple[int, ...] = 0,
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

    def pipeline(
        self, name: str, runs: str, role: str, row: Row, expect: int | tuple[int, ...] = 0, **parameters: str
    ) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        """Run the compiled pipeline `name` signing as `role`; how it ended, and what it reported."""
        given = [part for key, value in parameters.items() for part in ("--param", f"{key}={value}")]
        file, where = self.root / "compiled" / f"{name}.yaml", self.root / "runs" / runs
        words = ["mlseal", "kfp", "run", file, "--root", where, "--role", role, "--json"]
        done = self.run(*words, *given, expect=expect)
        result = json.loads(done.stdout)
        row.stages += [(task["stage"], task["seconds"]) for task in result["tasks"]]
        return done, result

    def table(self) -> Table:
        """Every step: what it proved, what was refused and why, the seconds from its start to its end."""
        table = Table(title="What happened", show_lines=True, expand=True)
        table.add_column("step", ratio=3)
        table.add_column("what it proved", ratio=5)
        table.add_column("refused, and why", ratio=6, style="red")
        table.add_column("s, all of it", justify="right")
        for number, row in enumerate(self.rows, 1):
            table.add_row(f"{number}. {row.step}", row.proved, gist(row.refused), f"{row.seconds:.1f}")
        return table

    def stage_table(self) -> Table:
        """The stages of every pipeline run: the seconds of each, the start of its process included."""
        table = Table(title="What each stage added, in seconds")
        table.add_column("step")
        table.add_column("stages")
        for number, row in enumerate(self.rows, 1):
            if row.stages:
                told = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row.stages)
                table.add_row(f"{number}. {row.step}", told)
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
    """A real MLflow server with two workers whose registry asks the gate, tried by ``mlseal mlflow serve``; its URL."""
    words = ["mlseal", "mlflow", "serve", str(bench.root / "mlflow"), "--port", "0", "--workers", "2"]
    bench.say(f"[dim]$ {shlex.join(words).replace(str(bench.root), '…')}[/]")
    with (bench.logs / "mlflow.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=bench.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=bench.root,
        )
    try:
        told = process.stdout.readline() if process.stdout else ""  # nothing, once the server has given up
        if not told:
            raise Unexpected(f"mlflow server ended: {(bench.logs / 'mlflow.log').read_text()[-2000:]}")
        bench.say(f"[dim]{told.strip()}[/]")
        yield told.split()[1].rstrip(",")
    finally:
        process.terminate()
        process.wait(60)


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
    told = "not measurable"
    if gap:
        told = f"{gap['value']:.3f} ± {gap['halfWidth']:.3f} [{gap['ciLow']:.3f}, {gap['ciHigh']:.3f}]"

    def reached(group: dict[str, Any]) -> str:
        rate, of = group.get("truePositiveRate"), group.get("positives")
        return (
            f"{group['name']}: {'too few to say' if rate is None else f'{rate:.0%}'} of {of or 'fewer than 10'} in need"
        )

    return f"equalized odds against need {told}; reached: " + "; ".join(map(reached, measured["groups"]))


def share(rate: float | None) -> str:
    """A share as the story tells it, also when it was held back."""
    return "a share that is not told (too few people)" if rate is None else f"{rate:.1%}"


def without_network() -> tuple[str, ...]:
    """What starts a command in an empty network namespace; nothing where the machine allows none.

    Raises `Unexpected` for the latter under CI: there the job shall show it, not get round it.
    """
    alone = ("unshare", "--net", "--map-root-user")
    if shutil.which(alone[0]) and subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        return alone
    if os.environ.get("CI"):
        raise Unexpected("no empty network namespace can be made here, and CI asks for one: allow 'unshare --net'")
    return ()


def card_of(model: Path) -> dict[str, Any]:
    """The figures at the head of the model's own card, as its training computed them."""
    _, front, _ = (model / "MODEL_CARD.md").read_text().split("---\n", 2)
    return dict(yaml.safe_load(front)["figures"])


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
