"""``mlseal dvc …``: install the protection, use it explicitly, check it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlseal.cli.group import WholeSentences
from mlseal.errors import Error, Misuse, NoEvidence, Unchecked
from mlseal_dvc import cli_checks, gateway_cli, halt, session
from mlseal_dvc.options import AS_JSON, say, who

if TYPE_CHECKING:
    from mlseal_dvc.prepush import State

_NAMES = click.Choice(["plain", "committed"])
_PASS_ON = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


@click.group(cls=WholeSentences)
def dvc() -> None:
    """Sign what DVC pushes, verify what it pulls."""


for _command in (
    cli_checks.status,
    cli_checks.doctor,
    cli_checks.verify,
    cli_checks.evidence,
    gateway_cli.gateway,
):
    dvc.add_command(_command)


@dvc.command()
@click.option("--autoload/--no-autoload", default=True, help="Let plain 'dvc' of this environment sign and verify.")
@click.option("--hook/--no-hook", default=True, help="Install the verifying git pre-push hook.")
@click.option("--dvc-hooks", is_flag=True, help="Install DVC's own hooks first, as 'dvc install' does; they run first.")
@click.option("--global", "shared", is_flag=True, help="Write the hook although core.hooksPath is shared with others.")
@click.option(
    "--marker/--no-marker", default=True, help="Write .dvc/mlseal.json, for others to be protected once committed."
)
@click.option(
    "--names", type=_NAMES, help="How evidence writes names of files; committed: as salted commitments (docs/dvc.md)."
)
@AS_JSON
def install(
    autoload: bool, hook: bool, dvc_hooks: bool, shared: bool, marker: bool, names: str | None, as_json: bool
) -> None:
    """Protect this repository.

    Installs the autoload wheel into this Python environment, the pre-push hook into this repository's hooks directory
    (an existing hook keeps running, first), and marks this clone as protected in its git configuration.

    Example: mlseal dvc install --dvc-hooks
    """
    from mlseal_dvc import commands, frameworks, gitstate, governing, prepush, setup, wrapping

    wrapping.require_dvc()
    root = gitstate.root_of(Path.cwd())
    done: dict[str, object] = {}
    repo = commands.open_repo(Path.cwd())
    if hook:
        prepush.require_writable(root, shared=shared)  # before anything else is changed
    if autoload:
        setup.install()
        done["autoload"] = sys.prefix
    if hook:
        state = _install_hook(repo, root, dvc_hooks, shared)
        done["hook"] = str(state.place)
        done["earlierHookRunsFirst"] = state.chained
    gitstate.run(root, "config", "--local", governing.CONFIG_KEY, governing.REQUIRED)
    if names is not None:
        done["names"] = governing.ask_for_names(root, names)
    if marker:
        done["marker"] = str(governing.mark(Path(repo.root_dir), names))
    notes = [f"{each}; {frameworks.REMEDY}" for each in frameworks.isolated(root)]
    lines = [f"{name}: {value}" for name, value in done.items()] + [f"note: {note}" for note in notes]
    if marker:
        lines.append("commit the marker, so that clones are protected too: git add .dvc/mlseal.json")
    say(as_json, {"installed": done, "notes": notes}, *lines)


@dvc.command()
@click.option("--autoload/--no-autoload", default=True, help="Remove the autoload from this environment too.")
@AS_JSON
def uninstall(autoload: bool, as_json: bool) -> None:
    """Take autoload, hook and the protection of this clone out again. A committed marker is left to you.

    The hook that was there before comes back as it was.

    Example: mlseal dvc uninstall --no-autoload
    """
    from mlseal_dvc import gitstate, governing, prepush, setup

    root = gitstate.root_of(Path.cwd())
    done = {"hook": prepush.uninstall(root)}
    if autoload:
        done["autoload"] = setup.uninstall()
    gitstate.run(root, "config", "--local", "--unset-all", governing.CONFIG_KEY, check=False)
    say(
        as_json,
        {"removed": done},
        *(f"{name}: {'removed' if gone else 'was not there'}" for name, gone in done.items()),
    )


@dvc.command(context_settings=_PASS_ON)
@click.option("--token-file", help="File with the identity token to sign with.")
@click.option("--role", default="producer", show_default=True, help="Role asked of the embedded issuer.")
@click.option("--names", type=_NAMES, help="How this push writes names of files, whatever was set up.")
@click.option("--purpose", help="Why the data are handed on, as their owner's data policy writes it ($MLSEAL_PURPOSE).")
@who
@AS_JSON
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def push(
    arguments: tuple[str, ...],
    token_file: str | None,
    role: str,
    names: str | None,
    purpose: str | None,
    as_json: bool,
) -> None:
    """Sign and push, as 'dvc push ARGUMENTS' does with the autoload.

    Example: mlseal dvc push -r storage data/train.dvc
    """
    session.current().token_file, session.current().role, session.current().names = token_file, role, names
    session.current().purpose = purpose
    _run_dvc("push", arguments, as_json)


@dvc.command(context_settings=_PASS_ON)
@who
@AS_JSON
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pull(arguments: tuple[str, ...], as_json: bool) -> None:
    """Pull, verifying before anything is placed in the workspace, as 'dvc pull ARGUMENTS' does with the autoload.

    Example: mlseal dvc pull --identity https://team.example/roles/producer --issuer https://team.example/issuer
    """
    _run_dvc("pull", arguments, as_json)


@dvc.command()
@click.argument("targets", nargs=-1)
@click.option("-r", "--remote", help="Remote that the data will be pushed to.")
@click.option("--token-file", help="File with the identity token to sign with.")
@click.option("--role", default="producer", show_default=True, help="Role asked of the embedded issuer.")
@click.option("--again", is_flag=True, help="Sign although valid evidence exists (fresh time, same bytes).")
@click.option("--names", type=_NAMES, help="How these statements write names of files, whatever was set up.")
@who
@AS_JSON
def sign(
    targets: tuple[str, ...],
    remote: str | None,
    token_file: str | None,
    role: str,
    again: bool,
    names: str | None,
    as_json: bool,
) -> None:
    """Sign outputs without pushing data. The evidence goes up with the next push.

    Example: mlseal dvc sign data/train.dvc --again
    """
    from mlseal_dvc import commands, sealing, wrapping
    from mlseal_dvc.desk import Desk

    wrapping.require_dvc()
    session.current().token_file, session.current().role, session.current().names = token_file, role, names
    repo = commands.open_repo(Path.cwd())
    call = {"targets": list(targets) or None, "remote": remote}
    with halt.told_by_dvc():
        sealed = sealing.seal(Desk(repo, remote), call, upload=False, again=again)
    lines = [f"signed {path}" for path in sealed.signed] + [f"already signed {path}" for path in sealed.kept]
    lines += [f"not in the cache: {path}" for path in sealed.passed_over]
    say(as_json, {"signed": sealed.signed, "kept": sealed.kept, "notInCache": sealed.passed_over}, *lines)


@dvc.command("forget-names")
@click.option("-r", "--remote", help="Remote whose salt is erased.")
@AS_JSON
def forget_names(remote: str | None, as_json: bool) -> None:
    """Erase the salt of committed names on the remote and here: what is signed can no longer be linked to names.

    Verifying evidence that exists then answers "not checkable" (11); the next push signs anew under a new salt. Copies
    of the salt that others keep, and older versions in a versioned bucket, are not reached.
    """
    from mlseal_dvc import commands, wrapping
    from mlseal_dvc import names as naming

    wrapping.require_dvc()
    place = commands.place(commands.open_repo(Path.cwd()), remote)
    erased = naming.forget(place)
    say(as_json, {"remote": str(place), "erasedHere": erased}, f"forgotten: {place} ({erased} copies here)")


@dvc.group()
def hook() -> None:
    """Run as a git hook; called by what 'mlseal dvc install' wrote, and by hook managers."""


@hook.command("pre-push")
@click.argument("remote")
@click.argument("url", required=False)
def pre_push(remote: str, url: str | None) -> None:
    """Verify the outputs of the commits that git is about to push; git gives them on standard input."""
    del url
    from mlseal_dvc import commits

    lines = sys.stdin.read()
    _check(lambda root: commits.of_push(root, remote, lines))


@hook.command("pre-commit")
def pre_commit() -> None:
    """Verify the outputs of the push that the pre-commit program tells of in the environment: of its first ref only."""
    from mlseal_dvc import commits

    told = {name: value for name, value in os.environ.items() if name.startswith("PRE_COMMIT_")}
    _check(lambda root: commits.of_framework(root, told))


def _check(revisions: Callable[[Path], list[str]]) -> None:
    """Verify what those commits track, and say on standard error how many outputs that were."""
    from mlseal_dvc import commits, frameworks, gitstate, wrapping

    wrapping.require_dvc()
    session.use(session.Session())
    # git runs hooks with its own variables set; left in place they would redirect DVC's calls of git.
    for name in [name for name in os.environ if name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")]:
        del os.environ[name]
    root = gitstate.root_of(Path.cwd())
    try:
        with halt.told_by_dvc():
            count = commits.check_push(root, revisions(root))
    except NoEvidence as error:
        around = frameworks.isolated(root)
        if not around:
            raise
        raise NoEvidence(
            error.message, got=str(around[0]), expected=error.expected, remedy=frameworks.REMEDY
        ) from error
    click.echo(f"mlseal: verified the provenance of {count} outputs before this push", err=True)


def _install_hook(repo: Any, root: Path, dvc_hooks: bool, shared: bool) -> State:
    """Our hook; with `dvc_hooks` DVC's before it, for which ours steps aside, since DVC joins nobody's."""
    from dvc.exceptions import DvcException

    from mlseal_dvc import prepush

    if dvc_hooks:
        own = root / ".git" / "hooks"
        if prepush.directory_of(root) != own.resolve() or not (root / ".git").is_dir():
            raise Misuse(
                "DVC writes its hooks to .git/hooks, where git does not look for them here",
                got=str(prepush.directory_of(root)),
                remedy="install without --dvc-hooks, and add 'dvc git-hook pre-push \"$@\"' to your own hook",
            )
        prepush.uninstall(root)
        try:
            repo.install()
        except DvcException as error:
            raise Misuse(f"DVC says: {error}", remedy="move that hook away, or install without --dvc-hooks") from error
        finally:
            prepush.install(root, shared=shared)
    return prepush.install(root, shared=shared)


def _run_dvc(command: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """Run DVC's own command in this process with the wrapper on; its failure becomes ours, with the right code."""
    from mlseal_dvc import commands, wrapping

    wrapping.require_dvc()
    if "--cd" not in arguments:  # DVC goes elsewhere then
        commands.root_of(Path.cwd())
    wrapping.activate()
    from dvc.cli import main

    code = main([command, *arguments])
    current = session.current()
    if code != 0:
        raise current.stopped or _dvc_failed(command, code)
    if as_json:
        click.echo(json.dumps({"ok": True, "command": command, "messages": current.messages}))


def _dvc_failed(command: str, code: int) -> Error:
    return Unchecked(f"dvc {command} failed", got=f"exit code {code}", remedy="see DVC's message above")
