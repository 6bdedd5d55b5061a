"""``mlseal run STAGE --name value …``: one command per stage, made from the stage's signature."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from mlseal.cli.evidence import JSON, KEY, STORE, TOKEN, TRUST
from mlseal.errors import Misuse, NoEvidence
from mlseal.evidence.bundle import Bundle
from mlseal.stages import registry
from mlseal.stages.base import Parameter, Stage

_ROLES = {
    "training": "producer",
    "monitoring": "monitor",
    "ingestion.source": "producer",
    "ingestion.redact": "producer",
}
"""Of a stage, or of its moment; who measures what others made is the evaluator, as the packs ask."""


class _Stages(click.Group):
    """A group whose commands are the registered stages; a stage's module is imported when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return registry.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:  # noqa: ARG002 - click's signature
        return _command(registry.load(cmd_name).stage)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Stages"):
            formatter.write_dl([(name, registry.load(name).stage.summary) for name in self.list_commands(ctx)])


@click.group(cls=_Stages, epilog="Help on one stage: mlseal run STAGE --help")
def run() -> None:
    """Run one stage, sign what it found, and keep the evidence.

    Example: mlseal run training.run --script train.py --data data/ --out model/ --parameters target=need -o run.json
    """


@click.command("import")
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--format", "report_format", required=True, metavar="FORMAT", help="sarif, cyclonedx or json.")
@click.option("--about", required=True, type=click.Path(path_type=Path), help="What the report is about.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the bundle.")
@click.option("--run-id", help="Id of the pipeline run; random if absent.")
@click.option("--purpose", metavar="TEXT", help="Why this runs, as the data policies of the inputs write it.")
@click.option("--role", default="evaluator", show_default=True, help="Role to sign as.")
@TRUST
@STORE
@TOKEN
@KEY
@JSON
def import_report(report: Path, report_format: str, about: Path, **values: Any) -> None:
    """Sign what another tool's REPORT says about a file or directory, as declared (docs/stages/testing.report.md).

    \b
    Example: mlseal import zap.sarif --format sarif --about service/ -o zap.sigstore.json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    given = {"report": str(report), "about": str(about), "format": report_format}
    _run(registry.load("testing.report").stage, {**values, **given})


def _command(stage: Stage) -> click.Command:
    moment = stage.name.partition(".")[0]
    options: list[click.Parameter] = [_option(parameter) for parameter in stage.parameters]
    options += [
        click.Option(["-o", "--output"], type=click.Path(path_type=Path), help="Where to write the bundle."),
        click.Option(["--run-id"], help="Id of the pipeline run; random if absent."),
        click.Option(["--purpose"], metavar="TEXT", help="Why this runs, as the data policies of the inputs write it."),
        click.Option(
            ["--role"],
            default=_ROLES.get(stage.name) or _ROLES.get(moment, "evaluator"),
            show_default=True,
            help="Role to sign as.",
        ),
    ]

    if stage.reusable is not None:
        text = "Take evidence that exists for the same bytes and settings, once it has verified."
        options.append(click.Option(["--reuse"], is_flag=True, help=text))

    if stage.resumable:
        text = "Keep checkpoints, and go on from the newest of the same inputs and settings."
        options.append(click.Option(["--resume"], is_flag=True, help=text))
    if stage.merge is not None:
        options += _sharding(stage, stage.merge.divides)

    def callback(**values: Any) -> None:
        _run(stage, values)

    command = click.Command(
        stage.name, params=options, callback=callback, help=stage.summary, epilog=f"Evidence: {stage.predicate_type}"
    )
    for decorate in (TRUST, STORE, TOKEN, KEY, JSON):
        decorate(command)
    return command


def _sharding(stage: Stage, divides: str) -> list[click.Parameter]:
    path = click.Path(path_type=Path)
    text = f"Look at one part of --{divides} only, such as 1/4; makes partial evidence, for --merge."
    options: list[click.Parameter] = [click.Option(["--shard"], metavar="I/N", help=text)]
    text = "Merge the evidence of all parts instead of running; once for each, or a directory that holds them."
    options.append(click.Option(["--merge"], multiple=True, type=path, help=text))
    if outputs := ", ".join(p.flag for p in stage.parameters if p.role == "output"):
        text = f"What the parts made ({outputs}), for --merge; once for each, or a directory that holds them."
        options.append(click.Option(["--made"], multiple=True, type=path, help=text))
    return options


def _option(parameter: Parameter) -> click.Option:
    repeated = parameter.kind == "settings"
    default = "" if parameter.default in {None, ""} else f" [default: {parameter.default}]"
    return click.Option(
        [parameter.flag, parameter.name],
        required=parameter.required,
        multiple=repeated,
        metavar="NAME=VALUE" if repeated else parameter.kind.upper(),
        help=parameter.help + default,
    )


def _run(stage: Stage, values: Mapping[str, Any]) -> None:
    from mlseal.evidence import store
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.signing import signer_for
    from mlseal.policy import load
    from mlseal.policy.preflight import Preflight
    from mlseal.stages import runner
    from mlseal.stages.manner import Manner
    from mlseal.stages.shard import Shard

    arguments = {p.name: _text(p, values[p.name]) for p in stage.parameters if values[p.name] not in {None, ()}}
    kept = store.resolve(values["store_path"])
    signer = signer_for(
        values["role"],
        trust=trust_roots.resolve(values["trust_path"]),
        store=kept,
        token_file=values["token_file"],
        key=values["key_uri"],
    )
    bundle = runner.run(
        stage.name,
        arguments,
        signer=signer,
        store=kept,
        out=values["output"],
        run_id=values["run_id"],
        reuse=values.get("reuse", False),
        purpose=values["purpose"],
        preflight=Preflight(load.in_force()),
        manner=Manner(
            resume=values.get("resume", False),
            shard=Shard.parse(values["shard"]) if values.get("shard") else None,
            partials=tuple(Bundle.read(path) for path in _each(values.get("merge") or ())),
            made=_each(values.get("made") or ()),
        ),
    )
    _say(stage, bundle, values["output"] or kept.where(bundle.evidence_id), as_json=values["as_json"])


def _each(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The `paths`, a directory among them being all that lies in it."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        if not inside:
            raise NoEvidence(f"{path} holds nothing to merge", remedy="mlseal run STAGE --shard 1/2, then --shard 2/2")
        found += inside
    return tuple(found)


def _text(parameter: Parameter, value: Any) -> str:
    """The text that the runner parses: a JSON object for settings, whether given as JSON or as NAME=VALUE."""
    if parameter.kind != "settings":
        return str(value)
    if len(value) == 1 and value[0].lstrip().startswith("{"):
        return str(value[0])
    pairs = [text.partition("=") for text in value]
    names = [name for name, _, _ in pairs]
    if any(not name or not equals for name, equals, _ in pairs) or len(set(names)) != len(names):
        raise Misuse(f"{parameter.flag} needs NAME=VALUE, each name once", got=", ".join(value)[:120])
    return json.dumps({name: content for name, _, content in pairs})


def _say(stage: Stage, bundle: Bundle, where: Path | str, *, as_json: bool) -> None:
    said = bundle.statement
    if as_json:
        subjects = [{"name": s.name, "sha256": s.sha256} for s in said.subjects]
        facts = {
            "stage": stage.name,
            "evidenceId": bundle.evidence_id,
            "bundle": str(where),
            "predicateType": said.predicate_type,
            "subjects": subjects,
            "predicate": said.predicate,
        }
        click.echo(json.dumps(facts))
        return
    if metrics := said.predicate.get("metrics"):
        _table(metrics, said.predicate)
    subject, shard = said.subjects[-1], said.predicate.get("shard")
    what = f"part {shard['index']}/{shard['count']} as evidence" if shard else "evidence"
    click.echo(f"{stage.name}: signed {what} {bundle.evidence_id} about {subject.name} → {where}")


def _table(metrics: list[dict[str, Any]], predicate: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", "interval", "half width")
    for metric in metrics:
        low, high = metric["ciLow"], metric["ciHigh"]
        table.add_row(metric["name"], f"{metric['value']:.3f}", f"{low:.3f} to {high:.3f}", f"±{(high - low) / 2:.3f}")
    console = Console()
    console.print(table)
    if "sufficient" in predicate:
        console.print(_enough(predicate))


def _enough(predicate: Mapping[str, Any]) -> str:
    said = f"{predicate.get('n')} rows"
    if "smallestGroupPositives" in predicate:
        counts = [predicate["smallestGroupPositives"], predicate.get("smallestGroupNegatives")]
        said += f"; smallest group: {counts[0]} positives, {counts[1]} negatives"
    return f"{said}: {'sufficient' if predicate['sufficient'] else 'not sufficient'}"
