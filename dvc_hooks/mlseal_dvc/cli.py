"""``mlseal dvc …``: install the protection, use it explicitly, check it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from mlseal.errors import Error, Misuse, Unchecked
from mlseal_dvc import halt, session

_F = TypeVar("_F", bound=Callable[..., Any])
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_NAMES = click.Choice(["plain", "committed"])
_PASS_ON = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


def _who(command: _F) -> _F:
    """Options that say who is trusted and who signs; they become the session."""

    @click.option("--identity", "san", help="Expected signer (SAN), with --issuer; replaces the policy.")
    @click.option("--issuer", help="Issuer of the expected signer's token.")
    @click.option("--policy", help="Policy to use instead of $MLSEAL_POLICY or the user's.")
    @click.option("--trust", help="Trust root: file, directory or pinned fingerprint.")
    @wraps(command)
    def with_session(
        *args: Any, san: str | None, issuer: str | None, policy: str | None, trust: str | None, **kwargs: Any
    ) -> Any:
        from mlseal.evidence.identity import Identity

        if (san is None) != (issuer is None):
            raise Misuse("a signer is named by two things", expected="--identity SAN together with --issuer URL")
        identities = (Identity(issuer, san),) if san and issuer else ()
        session.use(session.Session(identities=identities, policy=policy, trust=trust, forced=True))
        return command(*args, **kwargs)

    return with_session  # type: ignore[return-value]


@click.group()
def dvc() -> None:
    """Sign what DVC pushes, verify what it pulls."""


@dvc.command()
@click.option("--autoload/--no-autoload", default=True, help="Let plain 'dvc' of this environment sign and verify.")
@click.option("--hook/--no-hook", default=True, help="Install the verifying git pre-push hook.")
@click.option(
    "--marker/--no-marker", default=True, help="Write .dvc/mlseal.json, for others to be protected once committed."
)
@click.option(
    "--names", type=_NAMES, help="How evidence writes names of files; committed: as salted commitments (docs/dvc.md)."
)
@_JSON
def install(autoload: bool, hook: bool, marker: bool, names: str | None, as_json: bool) -> None:
    """Protect this repository.

    Installs the autoload wheel into this Python environment, the pre-push hook into this repository's hooks directory
    (an existing hook keeps running, first), and marks this clone as protected in its git configuration.
    """
    from mlseal_dvc import commands, gitstate, governing, prepush, setup, wrapping

    wrapping.require_dvc()
    root = gitstate.root_of(Path.cwd())
    done: dict[str, object] = {}
    repo = commands.open_repo(Path.cwd())
    if autoload:
        setup.install()
        done["autoload"] = sys.prefix
    if hook:
        state = prepush.install(root)
        done["hook"] = str(state.directory / prepush.NAME)
        done["earlierHookRunsFirst"] = state.chained
    gitstate.run(root, "config", "--local", governing.CONFIG_KEY, governing.REQUIRED)
    if names is not None:
        done["names"] = governing.ask_for_names(root, names)
    if marker:
        done["marker"] = str(governing.mark(Path(repo.root_dir), names))
    _say(as_json, {"installed": done}, *(f"{name}: {value}" for name, value in done.items()))
    if marker and not as_json:
        click.echo("commit the marker, so that clones are protected too: git add .dvc/mlseal.json")


@dvc.command()
@click.option("--autoload/--no-autoload", default=True, help="Remove the autoload from this environment too.")
@_JSON
def uninstall(autoload: bool, as_json: bool) -> None:
    """Take autoload, hook and the protection of this clone out again. A committed marker is left to you."""
    from mlseal_dvc import gitstate, governing, prepush, setup

    root = gitstate.root_of(Path.cwd())
    done = {"hook": prepush.uninstall(root)}
    if autoload:
        done["autoload"] = setup.uninstall()
    gitstate.run(root, "config", "--local", "--unset-all", governing.CONFIG_KEY, check=False)
    _say(
        as_json,
        {"removed": done},
        *(f"{name}: {'removed' if gone else 'was not there'}" for name, gone in done.items()),
    )


@dvc.command()
@_JSON
def status(as_json: bool) -> None:
    """Say whether this repository is protected, and by what."""
    from mlseal_dvc import commands, gitstate, governing, prepush, setup, wrapping

    wrapping.require_dvc()
    session.use(session.Session())
    root = gitstate.root_of(Path.cwd())
    governance = governing.Governance(commands.open_repo(Path.cwd()), session.current())
    facts: dict[str, object] = {
        "protected": governance.protected,
        "autoload": setup.installed(),
        "hook": prepush.state(root).ours,
        "signersNamed": governance.signers_known("pull"),
        "policies": [policy.name for policy in governance.policies],
    }
    _say(as_json, facts, *(f"{name}: {value}" for name, value in facts.items()))


@dvc.command()
@_JSON
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check that the protection is really in force; exit code 11 if something required is not."""
    from mlseal_dvc import doctor as checks
    from mlseal_dvc import wrapping

    wrapping.require_dvc()
    session.use(session.Session())
    findings = checks.examine(Path.cwd())
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings]))
    else:
        checks.report(findings, click.echo)
    if any(finding.required and not finding.ok for finding in findings):
        ctx.exit(Unchecked.exit_code)


@dvc.command(context_settings=_PASS_ON)
@click.option("--token-file", help="File with the identity token to sign with.")
@click.option("--role", default="producer", show_default=True, help="Role asked of the embedded issuer.")
@click.option("--names", type=_NAMES, help="How this push writes names of files, whatever was set up.")
@_who
@_JSON
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def push(arguments: tuple[str, ...], token_file: str | None, role: str, names: str | None, as_json: bool) -> None:
    """Sign and push, as 'dvc push ARGUMENTS' does with the autoload."""
    session.current().token_file, session.current().role, session.current().names = token_file, role, names
    _run_dvc("push", arguments, as_json)


@dvc.command(context_settings=_PASS_ON)
@_who
@_JSON
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pull(arguments: tuple[str, ...], as_json: bool) -> None:
    """Pull, verifying before anything is placed in the workspace, as 'dvc pull ARGUMENTS' does with the autoload."""
    _run_dvc("pull", arguments, as_json)


@dvc.command()
@click.argument("targets", nargs=-1)
@click.option("-r", "--remote", help="Remote that the data will be pushed to.")
@click.option("--token-file", help="File with the identity token to sign with.")
@click.option("--role", default="producer", show_default=True, help="Role asked of the embedded issuer.")
@click.option("--again", is_flag=True, help="Sign although valid evidence exists (fresh time, same bytes).")
@click.option("--names", type=_NAMES, help="How these statements write names of files, whatever was set up.")
@_who
@_JSON
def sign(
    targets: tuple[str, ...],
    remote: str | None,
    token_file: str | None,
    role: str,
    again: bool,
    names: str | None,
    as_json: bool,
) -> None:
    """Sign outputs without pushing data. The evidence goes up with the next push."""
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
    _say(as_json, {"signed": sealed.signed, "kept": sealed.kept, "notInCache": sealed.passed_over}, *lines)


@dvc.command()
@click.argument("targets", nargs=-1)
@click.option("-r", "--remote", help="Remote to read from.")
@click.option("--rev", "revs", multiple=True, help="Git revision to verify, instead of the workspace; repeatable.")
@click.option("--evidence-only", is_flag=True, help="Verify signatures and manifests, not the bytes on the remote.")
@_who
@_JSON
@click.pass_context
def verify(
    ctx: click.Context,
    targets: tuple[str, ...],
    remote: str | None,
    revs: tuple[str, ...],
    evidence_only: bool,
    as_json: bool,
) -> None:
    """Verify evidence and bytes of outputs without placing anything: the check for CI."""
    from mlseal_dvc import commands, wrapping

    wrapping.require_dvc()
    call: dict[str, Any] = {"targets": list(targets) or None, "remote": remote}
    if revs:
        call |= {"revs": list(revs), "workspace": False}
    with halt.told_by_dvc():
        outcomes = commands.verify(commands.open_repo(Path.cwd()), call, with_bytes=not evidence_only)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "outputs": [commands.row(outcome) for outcome in outcomes]}))
    else:
        commands.report(outcomes, click.echo)
    if failed:
        ctx.exit(min(error.exit_code for error in failed))


@dvc.command()
@click.argument("target")
@click.option("-r", "--remote", help="Remote to read from.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bundle there.")
@_who
@_JSON
def evidence(target: str, remote: str | None, output: Path | None, as_json: bool) -> None:
    """Show the verified evidence of one output, and hand out its bundle for other tools."""
    from mlseal_dvc import commands, wrapping

    wrapping.require_dvc()
    with halt.told_by_dvc():
        outcome = commands.evidence(commands.open_repo(Path.cwd()), target, remote)
    assert outcome.attested is not None
    if output is not None:
        outcome.attested.bundle.write(output)
    facts = commands.row(outcome) | {"bundle": str(output) if output else None}
    _say(as_json, facts, *(f"{name}: {value}" for name, value in facts.items() if value is not None))


@dvc.command("forget-names")
@click.option("-r", "--remote", help="Remote whose salt is erased.")
@_JSON
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
    _say(as_json, {"remote": str(place), "erasedHere": erased}, f"forgotten: {place} ({erased} copies here)")


@dvc.group()
def hook() -> None:
    """Run as a git hook; called by what 'mlseal dvc install' wrote."""


@hook.command("pre-push")
@click.argument("remote")
@click.argument("url", required=False)
def pre_push(remote: str, url: str | None) -> None:
    """Verify the outputs of the commits that git is about to push; git gives them on standard input."""
    del url
    from mlseal_dvc import commands, gitstate, wrapping

    wrapping.require_dvc()
    session.use(session.Session())
    lines = sys.stdin.read()
    # git runs hooks with its own variables set; left in place they would redirect DVC's calls of git.
    for name in [name for name in os.environ if name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")]:
        del os.environ[name]
    with halt.told_by_dvc():
        count = commands.check_push(gitstate.root_of(Path.cwd()), remote, lines)
    click.echo(f"mlseal: verified the provenance of {count} outputs before this push", err=True)


def _run_dvc(command: str, arguments: tuple[str, ...], as_json: bool) -> None:
    """Run DVC's own command in this process with the wrapper on; its failure becomes ours, with the right code."""
    from mlseal_dvc import wrapping

    wrapping.require_dvc()
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


def _say(as_json: bool, facts: dict[str, Any], *lines: str) -> None:
    if as_json:
        click.echo(json.dumps(facts))
        return
    for line in lines:
        click.echo(line)
