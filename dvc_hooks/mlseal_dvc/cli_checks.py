"""``mlseal dvc status | doctor | verify | evidence``: the commands that look and change nothing."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlseal.errors import Error, Misuse, NoEvidence, Unchecked
from mlseal_dvc import halt, session
from mlseal_dvc.options import AS_JSON, say, who

if TYPE_CHECKING:
    from mlseal_dvc.verifying import Outcome

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("targets", nargs=-1)
@click.option("-r", "--remote", help="Remote to look at.")
@click.option("--quick", is_flag=True, help="Do not read the bytes in the cache, and ask the remote for little.")
@who
@AS_JSON
@click.pass_context
def status(ctx: click.Context, targets: tuple[str, ...], remote: str | None, quick: bool, as_json: bool) -> None:
    """Say how each output stands, and what protects this repository.

    An output is signed (by whom, when), unsigned, changed, altered, foreign, revoked, refused, unchecked or not on the
    remote. Exit code 0 if all are signed, 10 if one is refused, else 11.

    Example: mlseal dvc status data/train --json
    """
    from mlseal_dvc import commands, gitstate, standing, wrapping

    wrapping.require_dvc()
    repo = commands.open_repo(Path.cwd())
    facts, notes = _protection(repo, gitstate.root_of(Path.cwd()))
    with halt.told_by_dvc():
        found = standing.examine(repo, {"targets": list(targets) or None, "remote": remote}, quick=quick)
    lines = [f"{name}: {_text(value)}" for name, value in facts.items()]
    lines += [f"note: {note}" for note in notes] + [each.line() for each in found]
    say(as_json, facts | {"notes": notes, "outputs": [each.row() for each in found]}, *lines)
    ctx.exit(standing.exit_code(found))


@click.command()
@AS_JSON
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check that the protection is really in force; exit code 11 if something required is not.

    Example: mlseal dvc doctor --json
    """
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


@click.command()
@click.argument("targets", nargs=-1)
@click.option("-r", "--remote", help="Remote to read from.")
@click.option("--rev", "revs", multiple=True, help="Git revision to verify, instead of the workspace; repeatable.")
@click.option(
    "--since",
    multiple=True,
    help="With --rev: every commit that this revision does not have, and every DVC repository in them. Repeatable.",
)
@click.option("--evidence-only", is_flag=True, help="Verify signatures and manifests, not the bytes on the remote.")
@click.option("--summary", type=_FILE, help="Append a page in Markdown to this file.")
@click.option("--annotate", is_flag=True, help="Print GitHub's annotations to standard error.")
@who
@AS_JSON
@click.pass_context
def verify(
    ctx: click.Context,
    targets: tuple[str, ...],
    remote: str | None,
    revs: tuple[str, ...],
    since: tuple[str, ...],
    evidence_only: bool,
    summary: Path | None,
    annotate: bool,
    as_json: bool,
) -> None:
    """Verify evidence and bytes of outputs without placing anything: the check for CI.

    With --since it reads commits that are not checked out, under the DVC configuration of the tree that it stands in,
    and passes when they hold no DVC repository.

    Example: mlseal dvc verify --rev "$HEAD" --since origin/main --json
    """
    from mlseal_dvc import commands, reports, wrapping

    wrapping.require_dvc()
    outcomes: Sequence[Outcome] = ()
    revisions: Sequence[str] = revs
    stopped: Error | None = None
    try:
        with halt.told_by_dvc():
            if since:
                revisions, outcomes = _verify_commits(targets, remote, revs, since, evidence_only)
            else:
                call: dict[str, Any] = {"targets": list(targets) or None, "remote": remote}
                call |= {"revs": list(revs), "workspace": False} if revs else {}
                outcomes = commands.verify(commands.open_repo(Path.cwd()), call, with_bytes=not evidence_only)
    except Error as error:
        stopped = error
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(reports.summary(outcomes, revisions, stopped))
    for line in reports.for_reviewers(outcomes, stopped) if annotate else ():
        click.echo(line, err=True)
    if stopped is not None:
        raise stopped
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if as_json:
        rows = [commands.row(outcome) for outcome in outcomes]
        click.echo(json.dumps({"ok": not failed, "commits": list(revisions), "outputs": rows}))
    else:
        commands.report(outcomes, click.echo)
    if failed:
        ctx.exit(min(error.exit_code for error in failed))


@click.command()
@click.argument("target")
@click.option("-r", "--remote", help="Remote to read from.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the bundle there.")
@who
@AS_JSON
def evidence(target: str, remote: str | None, output: Path | None, as_json: bool) -> None:
    """Show the verified evidence of one output, and hand out its bundle for other tools.

    Example: mlseal dvc evidence data/train -o train.sigstore.json
    """
    from mlseal_dvc import commands, wrapping

    wrapping.require_dvc()
    with halt.told_by_dvc():
        outcome = commands.evidence(commands.open_repo(Path.cwd()), target, remote)
    assert outcome.attested is not None
    if output is not None:
        outcome.attested.bundle.write(output)
    facts = commands.row(outcome) | {"bundle": str(output) if output else None}
    say(as_json, facts, *(f"{name}: {value}" for name, value in facts.items() if value is not None))


def _verify_commits(
    targets: tuple[str, ...], remote: str | None, revs: tuple[str, ...], since: tuple[str, ...], evidence_only: bool
) -> tuple[Sequence[str], Sequence[Outcome]]:
    from mlseal_dvc import commits, gitstate

    if targets or remote or not revs:
        raise Misuse("--since checks everything that revisions bring", expected="--rev, and no targets or --remote")
    root = gitstate.root_of(Path.cwd())
    revisions = commits.between(root, since, revs)
    outcomes = commits.verify(root, revisions, with_bytes=not evidence_only)
    if not commits.roots(root, revisions) and (left := commits.tracking(root, revisions)):
        raise NoEvidence(
            "the commits hold files of DVC and no DVC repository that says where their data lie",
            got=left,
            remedy="remove them, or commit .dvc/config with them",
        )
    return revisions, outcomes


def _protection(repo: Any, root: Path) -> tuple[dict[str, object], list[str]]:
    """What protects this repository, and what gets round it."""
    from mlseal_dvc import frameworks, governing, prepush, reports, setup

    unforced = dataclasses.replace(session.current(), forced=False)
    governance = governing.Governance(repo, unforced)
    hook = prepush.state(root)
    facts: dict[str, object] = {
        "protected": governance.protected,
        "autoload": setup.installed(),
        "hook": hook.in_force,
        "thisClone": governance.configured,
        "marker": os.path.exists(os.path.join(repo.root_dir, ".dvc", governing.MARKER)),
        "ci": reports.named_in(root),
        "names": governance.names or "plain",
        "signersNamed": governance.signers_known("pull"),
        "policies": [policy.name for policy in governance.policies],
    }
    notes = [f"{each}; {frameworks.REMEDY}" for each in frameworks.isolated(root)]
    return facts, notes


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no", None: "no"}.get(value, str(value)) if value in (True, False, None) else str(value)
