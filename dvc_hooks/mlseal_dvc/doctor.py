"""``mlseal dvc doctor``: is what should protect this repository really in force, for the ``dvc`` that is typed?"""

from __future__ import annotations

import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Error
from mlseal.evidence import trust as trust_roots
from mlseal_dvc import commands, contract, frameworks, gitstate, prepush, reports, session, setup
from mlseal_dvc.governing import CONFIG_KEY, MARKER, REQUIRED, Governance

_LONG = "'''exec'"


@dataclass(frozen=True)
class Finding:
    """One check; ``remedy`` is empty when it is in order. ``required`` ones decide the exit code."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    required: bool = True


def examine(directory: Path) -> list[Finding]:
    """Every check that can be made from `directory`; a check that fails to run is a finding, not an exception."""
    findings: list[Finding] = []
    for check in (
        *(_dvc, _autoload, _command, _hook, _framework, _ci, _required, _marker, _names),
        *(_trust, _policy, _shared_cache, _md5_check),
    ):
        try:
            findings += list(check(directory))
        except Error as error:
            findings.append(Finding(check.__name__.strip("_"), False, error.message, error.remedy or ""))
    return findings


def _dvc(_: Path) -> Iterator[Finding]:
    problem = contract.broken()
    yield Finding(
        "dvc", problem is None, problem or contract.supported(), "" if problem is None else "install a supported DVC"
    )


def _autoload(_: Path) -> Iterator[Finding]:
    version = setup.installed()
    ok = version is not None and setup.loaded()
    detail = f"{version or 'not installed'} in {sys.prefix}"
    yield Finding(
        "autoload", ok, detail, "" if ok else "mlseal dvc install, or use 'mlseal dvc push|pull'", required=False
    )


def _command(_: Path) -> Iterator[Finding]:
    """The ``dvc`` on the path must be run by an interpreter that has the autoload; asked of that interpreter."""
    found = shutil.which("dvc")
    if found is None:
        yield Finding("command", True, "no dvc on the path", required=False)
        return
    python = interpreter_of(Path(found))
    if python is None:
        yield Finding(
            "command",
            False,
            f"{found} is no Python script: a frozen build (deb, rpm, brew, exe), which can load nothing",
            "use 'mlseal dvc push|pull' or 'python -m dvc' of this environment",
        )
        return
    loads = setup.loaded(python)
    remedy = "use 'python -m dvc' of this environment, or install mlseal and its autoload in that one"
    detail = f"{found} runs {python}, {'with' if loads else 'without'} the autoload"
    yield Finding("command", loads, detail, "" if loads else remedy)


def interpreter_of(script: Path) -> str | None:
    """The Python that runs a console script; None for anything else.

    Its first line names it, or, where that would be too long or hold a blank, the line after (``'''exec' python``).
    """
    with script.open("rb") as file:
        first, second = (file.readline(4096).decode(errors="replace").strip() for _ in range(2))
    words = first[2:].split() if first.startswith("#!") else []
    if words and Path(words[0]).name in ("sh", "bash", "dash") and second.startswith(_LONG):
        words = shlex.split(second.removeprefix(_LONG))
    elif words and Path(words[0]).name == "env":
        words = [found for word in words[1:2] if (found := shutil.which(word))]
    return words[0] if words and "python" in Path(words[0]).name else None


def _hook(directory: Path) -> Iterator[Finding]:
    state = prepush.state(gitstate.root_of(directory))
    detail = f"{state.place or 'absent in ' + str(state.directory)}" + (", after an earlier hook" * state.chained)
    problem = (
        "its interpreter is gone"
        if state.interpreter_missing
        else "git does not run it, for it is not executable"
        if state.ours and not state.executable
        else ""
    )
    detail += f", {problem}" if problem else ""
    detail += f" ({state.foreign})" if state.foreign else ""
    yield Finding("pre-push", state.in_force, detail, "" if state.in_force else "mlseal dvc install")


def _framework(directory: Path) -> Iterator[Finding]:
    found = frameworks.isolated(gitstate.root_of(directory))
    for each in found:
        yield Finding("pre-commit program", False, str(each), frameworks.REMEDY)
    if not found:
        yield Finding("pre-commit program", True, "no hook of it runs DVC without mlseal")


def _ci(directory: Path) -> Iterator[Finding]:
    files = reports.named_in(gitstate.root_of(directory))
    detail = f"checked by {', '.join(files)}" if files else "no CI file of this tree runs the check"
    remedy = "see docs/dvc.md, and make the job required at the forge"
    yield Finding("CI", bool(files), detail, "" if files else remedy, required=False)


def _names(directory: Path) -> Iterator[Finding]:
    governance = Governance(commands.open_repo(directory), session.current())
    yield Finding(
        "names", True, f"evidence writes names {governance.names or 'plain'} unless the remote says otherwise"
    )


def _required(directory: Path) -> Iterator[Finding]:
    value = gitstate.run(gitstate.root_of(directory), "config", "--local", "--get", CONFIG_KEY, check=False)
    ok = value == REQUIRED
    yield Finding(
        "this clone", ok, f"git config {CONFIG_KEY} = {value}", "" if ok else "mlseal dvc install", required=False
    )


def _marker(directory: Path) -> Iterator[Finding]:
    repo = commands.open_repo(directory)
    path = Path(repo.root_dir) / ".dvc" / MARKER
    ok = path.exists()
    yield Finding(
        "marker", ok, f"{path} {'present' if ok else 'absent'}", "" if ok else "mlseal dvc install", required=False
    )


def _trust(_: Path) -> Iterator[Finding]:
    root = trust_roots.resolve(session.current().trust)
    yield Finding("trust root", True, f"{root.fingerprint} from {root.source}")


def _policy(directory: Path) -> Iterator[Finding]:
    governance = Governance(commands.open_repo(directory), session.current())
    for action in ("push", "pull"):
        ok = governance.signers_known(action)
        remedy = "" if ok else "write a policy for tool: dvc (docs/dvc.md), or pass --identity and --issuer"
        yield Finding(
            f"who may sign ({action})", ok, "named" if ok else "nobody is named", remedy, required=action == "pull"
        )


def _shared_cache(directory: Path) -> Iterator[Finding]:
    """DVC keeps indexes of directories in a place that other local users can write by default."""
    repo = commands.open_repo(directory)
    path = Path(repo.site_cache_dir).parent
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o700
    ok = not mode & stat.S_IWOTH
    remedy = "" if ok else f"dvc config core.site_cache_dir {Path.home() / '.cache' / 'dvc-site'}"
    yield Finding("private index", ok, f"{path} has mode {mode:o}", remedy, required=False)


def _md5_check(directory: Path) -> Iterator[Finding]:
    repo = commands.open_repo(directory)
    remotes: dict[str, Any] = repo.config["remote"]
    loose = [name for name, config in remotes.items() if not config.get("verify")]
    remedy = "" if not loose else f"dvc remote modify {loose[0]} verify true (a second, weaker net)"
    detail = f"remotes without verify: {', '.join(loose)}" if loose else "all remotes"
    yield Finding("DVC's own check", not loose, detail, remedy, required=False)


def report(findings: list[Finding], say: Callable[[str], None]) -> None:
    """One line for each finding."""
    for finding in findings:
        mark = "ok  " if finding.ok else ("FAIL" if finding.required else "note")
        say(f"{mark} {finding.name}: {finding.detail}" + (f" → {finding.remedy}" if finding.remedy else ""))
