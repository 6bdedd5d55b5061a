"""``mlseal mlflow …``: is the gate there, and did anything slip past it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import STORE, TRUST
from mlseal.cli.group import WholeSentences

if TYPE_CHECKING:
    from mlseal_mlflow.history import History
    from mlseal_mlflow.reconcile import Finding
    from mlseal_mlflow.watching import Pass

_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_server = click.option(
    "--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="URL of the MLflow server; default: $MLFLOW_TRACKING_URI."
)


@click.group(cls=WholeSentences)
def mlflow() -> None:
    """The gate in front of an MLflow registry, and the verifying loader."""


@mlflow.command(context_settings={"ignore_unknown_options": True})
@click.argument("home", type=click.Path(path_type=Path, file_okay=False))
@click.argument("more", nargs=-1, metavar="[-- OPTIONS OF mlflow server]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Server processes.")
@click.option("--registry", help="Database of the registry, an SQLAlchemy URI; default: SQLite in HOME.")
def serve(home: Path, more: tuple[str, ...], host: str, port: int, workers: int, registry: str | None) -> None:
    """Run an MLflow server in HOME whose registry asks the gate; stop it unless it refuses what it must.

    Prints its URL once it was tried, then runs until it is ended. Configured by the variables in docs/mlflow.md.
    """
    import os
    import signal
    import sys

    from mlseal.errors import Misuse, ServiceUnavailable
    from mlseal_mlflow import decision, serving

    if any(option.startswith("--registry-store-uri") for option in more):
        raise Misuse("the registry is named otherwise here", expected="--registry DATABASE-URI")
    os.environ |= serving.absolute(os.environ)
    decision.from_environment()  # what is missing is one sentence here; of the server it would be a traceback, and late
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    store = serving.gated(registry) if registry else None
    with serving.running(home, registry=store, host=host, port=port, workers=workers, more=more) as server:
        serving.require_gated(server)
        click.echo(f"serving {server.url}, refuses what nothing proves")
        status = server.process.wait()
    raise ServiceUnavailable(f"mlflow server ended with {status}", remedy="see what it printed")


@mlflow.command()
@click.argument("name", required=False)
@click.option("--all", "everybody", is_flag=True, help="Every line, and the salt: no pseudonym leads to a name again.")
@_as_json
def forget(name: str | None, everybody: bool, as_json: bool) -> None:
    """Erase the user NAME from the decision log of this user's servers. Signed verdicts hold no name and stay."""
    from mlseal.errors import Misuse
    from mlseal_mlflow import journal

    if (name is None) != everybody:
        raise Misuse("whom to forget is not clear", expected="a NAME or --all")
    removed = journal.Journal(journal.directory()).forget(name)
    click.echo(json.dumps({"removed": removed}) if as_json else f"{removed} lines removed")


@mlflow.command()
@_server
@_as_json
def doctor(tracking_uri: str | None, as_json: bool) -> None:
    """Check what a gated server needs here and, with --tracking-uri, that the server at URL really refuses.

    The second makes and deletes a model called mlseal-canary-…. Exit 11 when anything is amiss.
    """
    from mlseal.errors import Unchecked
    from mlseal_mlflow import doctor as checks

    rows = checks.server(tracking_uri) if tracking_uri else checks.local()
    if as_json:
        click.echo(json.dumps({"checks": [vars(row) for row in rows], "ok": all(row.ok for row in rows)}))
    else:
        for row in rows:
            click.echo(f"{'ok     ' if row.ok else 'AMISS  '}{row.name}: {row.detail}")
    amiss = [row.name for row in rows if not row.ok]
    if amiss:
        raise Unchecked("the MLflow gate is not in order", got=", ".join(amiss))


@mlflow.command()
@_server
@click.option(
    "--dry-run/--demote", default=True, show_default=True, help="Report only, or take back what must not stand."
)
@click.option("--delete", is_flag=True, help="With --demote: also delete versions that nothing let in; not undone.")
@click.option("--workspace", "within", multiple=True, help="Only this one; default: all that the login may see.")
@click.option("--watch", is_flag=True, help="Again and again; each pass states for how long something stood unseen.")
@click.option("--every", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds between passes.")
@click.option("--passes", type=click.IntRange(1), help="Stop after so many; default: until it is ended.")
@click.option("--listen", metavar="HOST:PORT", help="Where MLflow's webhooks may ring for a pass at once.")
@click.option("--secret-file", type=click.Path(path_type=Path), help="The webhook's secret, one line.")
@_as_json
def reconcile(
    tracking_uri: str | None,
    dry_run: bool,
    delete: bool,
    within: tuple[str, ...],
    watch: bool,
    every: float,
    passes: int | None,
    listen: str | None,
    secret_file: Path | None,
    as_json: bool,
) -> None:
    """Ask of every promotion what a loader would ask; report those that must not stand.

    Promotions are aliases, versions in a live stage and, where a policy of this user governs the action create, every
    version. Exit 10 when any is found. Detects after the fact: enforcement is the registry store and the loader. With
    --watch, what slipped past stands for at most the seconds between passes and the length of one.
    """
    from mlseal.errors import Misuse, Refusal

    if not tracking_uri:
        raise Misuse("no server named", expected="--tracking-uri URL", remedy="set MLFLOW_TRACKING_URI")
    if not watch and (listen or passes):
        raise Misuse("only a watch has passes and listens", expected="--watch")
    if delete and dry_run:
        raise Misuse("a dry run deletes nothing", got="--delete", expected="--demote --delete")
    report = _Report(tracking_uri, dry_run=dry_run, as_json=as_json, delete=delete, within=within)
    report.warn()
    if watch:
        _watch(report, every, passes, listen, secret_file)
        return
    findings = list(report.look())
    report.print_all(findings)
    wrong = [finding for finding in findings if finding.error is not None]
    if wrong:
        raise Refusal(
            "promotions that no verdict covers",
            got=f"{len(wrong)} of {len(findings)}",
            expected="none",
            remedy=None if not dry_run else "run again with --demote, and find out how they came about",
        )


class _Report:
    """What `reconcile` looks at and how it tells of it."""

    def __init__(
        self, tracking_uri: str, *, dry_run: bool, as_json: bool, delete: bool, within: tuple[str, ...]
    ) -> None:
        self.tracking_uri, self.dry_run, self.as_json = tracking_uri, dry_run, as_json
        self.delete, self.within = delete, within

    def warn(self) -> None:
        """Say aloud what is not looked at without a policy."""
        from mlseal.policy import load

        if not load.in_force():
            click.echo("no policy is in force here, so nothing says of which models creation is promotion", err=True)

    def look(self) -> Iterator[Finding]:
        """Every promotion; takes back what must not stand where it was told to."""
        from dataclasses import replace

        from mlseal_mlflow import reconcile as reconciling

        client = reconciling.registry(self.tracking_uri)
        for finding in list(reconciling.check(client, tracking_uri=self.tracking_uri, within=self.within)):
            if finding.error is None or self.dry_run:
                yield finding
            else:
                yield replace(finding, taken_back=reconciling.demote(client, finding, delete=self.delete))

    def print_all(self, findings: Iterable[Finding], **more: object) -> None:
        """One JSON object, or a line for each finding."""
        if self.as_json:
            told = {"findings": [finding.to_dict() for finding in findings], "demoted": not self.dry_run, **more}
            click.echo(json.dumps(told))
            return
        for finding in findings:
            state = "stands " if finding.error is None else "demoted" if finding.taken_back else "found  "
            space = "" if finding.workspace == "default" else f"{finding.workspace}: "
            click.echo(
                f"{state} {space}{finding.model}/{finding.version} {finding.what} {finding.value}"
                + (f": {finding.error}" if finding.error else "")
            )


def _watch(report: _Report, every: float, passes: int | None, listen: str | None, secret: Path | None) -> None:
    import signal
    import sys
    import threading
    from contextlib import nullcontext

    from mlseal.errors import Misuse, Refusal, Unreadable
    from mlseal_mlflow import watching

    if (listen is None) != (secret is None):
        raise Misuse("webhooks need an address and a secret", expected="--listen HOST:PORT and --secret-file FILE")
    bell = None
    if secret is not None:
        try:
            bell = watching.Doorbell(secret.read_bytes().strip())
        except OSError as error:
            raise Unreadable(f"cannot read {secret}", got=str(error)) from error
    host, _, port = (listen or ":0").rpartition(":")
    if not port.isdigit():
        raise Misuse("no port to listen on", got=listen, expected="HOST:PORT, such as 127.0.0.1:8000")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wrong, place = 0, watching.listening(bell, host, int(port)) if bell else nullcontext(0)
    with place as number:
        if bell:
            click.echo(f"listening for webhooks on {host}:{number}", err=True)
        for one in watching.watch(report.look, every, bell.rung if bell else threading.Event(), passes=passes):
            wrong = len(one.wrong) + (one.error is not None)
            told = {"pass": one.number, "woken": one.woken, "seconds": one.seconds, "windowSeconds": one.window}
            shown = one.findings if report.as_json else one.wrong
            report.print_all(shown, **told, error=None if one.error is None else str(one.error))
            if not report.as_json:
                click.echo(_line(one))
            sys.stdout.flush()
    if wrong:
        raise Refusal("the last pass found what must not stand, or could not look", got=wrong, expected=0)


def _line(one: Pass) -> str:
    if one.error is not None:
        return f"pass {one.number}: FAILED: {one.error}"
    told = (
        f"pass {one.number}: {len(one.findings)} promotions, {len(one.wrong)} must not stand; took {one.seconds:.1f} s"
    )
    return told if one.window is None else f"{told}, nothing stood unseen for longer than {one.window:.1f} s"


@mlflow.command()
@click.argument("model")
@click.option("--at", metavar="DATE", help="A day (its end, UTC) or a time such as 2026-11-27T12:00:00Z; default: now.")
@click.option("--workspace", default="default", show_default=True, help="The model's workspace.")
@click.option("--tiles", type=click.Path(path_type=Path), help="Directory with ORIGIN/checkpoint and ORIGIN/tile/….")
@TRUST
@STORE
@_as_json
def history(
    model: str,
    at: str | None,
    workspace: str,
    tiles: Path | None,
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Say what of MODEL was in production at DATE, and why, from signed verdicts alone: no server is asked.

    What evidence cannot say stands below. Exit 11 when the log holds verdicts that nobody shows.
    """
    from mlseal.errors import Withheld
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.audit import directory_tiles
    from mlseal.evidence.clock import utcnow
    from mlseal_mlflow import history as past
    from mlseal_mlflow import names
    from mlseal_mlflow.identity import gates

    key, when = names.model(workspace, model), past.moment(at) if at else utcnow()
    trust = trust_roots.resolve(trust_path)
    archive = Archive.open(trust, store_path, tiles=directory_tiles(trust, tiles) if tiles else None)
    found = past.read(archive, gates(trust), key.name, key.workspace, when)
    click.echo(json.dumps(found.to_dict()) if as_json else "\n".join(_told(found)))
    if found.withheld:
        raise Withheld(
            "the log holds entries of the gate that nobody shows: what they say about this model is not known",
            got=found.withheld,
            remedy="pass --store DIR with all bundles",
        )


def _told(found: History) -> Iterator[str]:
    from mlseal.evidence.clock import rfc3339

    yield f"{found.workspace}/{found.model} at {rfc3339(found.at)}, from a log of {found.tree_size} entries"
    for event in found.standing:
        number = f"version {event.version}, " if event.version else ""
        yield f"{event.what} {event.value}: {number}sha256 {event.sha256}"
        asker = event.requester or {}
        who = f"{asker.get('source', 'not said')} {asker.get('pseudonym', '')[:16]}".strip()
        yield f"  since {rfc3339(event.since)}, {event.verdict} by the gate, asked by {who}"
        yield f"  verdict {event.evidence_id}"
        for name, sha256 in event.policies:
            yield f"  policy {name} sha256 {sha256}" + (" (it only observed)" if event.mode == "observe" else "")
        for one, kind in event.inputs:
            yield f"  rests on {one} {kind}" + (" REVOKED by then" if one in event.revoked else "")
        for message in event.objections:
            yield f"  objected: {message}"
        if event.evidence_id in event.revoked:
            yield "  the verdict itself was REVOKED by then"
    if not found.standing:
        yield "no verdict let anything of this model through until then"
    for name, time in found.renamed_to:
        yield f"renamed to {name}, allowed {rfc3339(time)}: see the history of that name"
    yield f"{found.refused} verdicts until then stopped something"
    yield "not known from evidence:"
    for sentence in found.not_known:
        yield f"  {sentence}"


@mlflow.command("prompt")
@click.argument("name")
@click.argument("version")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
@_server
def prompt(name: str, version: str, output: Path, tracking_uri: str | None) -> None:
    """Write the bytes that stand for prompt NAME VERSION, so that evidence can be made about them."""
    from mlseal.errors import Misuse
    from mlseal.evidence.bundle import write_atomic
    from mlseal_mlflow import names, prompts

    if not tracking_uri:
        raise Misuse("no server named", expected="--tracking-uri URL", remedy="set MLFLOW_TRACKING_URI")
    from mlseal_mlflow.reconcile import registry

    client = registry(tracking_uri)
    found = client.get_model_version(name, names.version(version))
    if not prompts.is_prompt(found.source, client.get_registered_model(name)._tags):  # noqa: SLF001 - .tags hides it
        raise Misuse(f"{name} version {version} is not a prompt", got=found.source)
    write_atomic(output, prompts.content(found.tags))
