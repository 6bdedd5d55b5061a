"""``mlseal policy diff · explain · schema``: policies as texts, without any evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mlseal.cli.evidence import JSON
from mlseal.errors import RuleBroken, Unreadable

_WORDS = {"stricter": "stricter", "looser": "LOOSER", "changed": "CHANGED", "noted": "noted"}


@click.command("diff")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@JSON
@click.pass_context
def policy_diff(ctx: click.Context, before: Path, after: Path, as_json: bool) -> None:
    """Say what AFTER asks more, and what less, than BEFORE: by meaning, not by lines.

    Exit 0: nothing is looser. Exit 10: something is, or changed in a way that nobody can order (such as another
    condition), which counts as looser. Texts for people are noted and decide nothing.
    """
    from mlseal.policy.compare import differences
    from mlseal.policy.load import load

    old, new = load(before), load(after)
    found = list(differences(old, new))
    open_ = [one for one in found if one.relation in {"looser", "changed"}]
    if as_json:
        rows = [{"place": d.place, "relation": d.relation, "before": d.before, "after": d.after} for d in found]
        names = [{"policy": policy.name, "sha256": policy.sha256} for policy in (old, new)]
        click.echo(json.dumps({"policies": names, "looser": bool(open_), "differences": rows}))
        ctx.exit(RuleBroken.exit_code if open_ else 0)
    for one in found:
        click.echo(f"{_WORDS[one.relation]} {one.place}: {one.before} → {one.after}")
    click.echo(
        f"{new.name} is {'looser than' if open_ else 'as strict as'} {old.name}" + ("" if found else ": the same")
    )
    ctx.exit(RuleBroken.exit_code if open_ else 0)


@click.command("explain")
@click.argument("file", type=click.Path(path_type=Path))
@JSON
def policy_explain(file: Path, as_json: bool) -> None:
    """Say what each rule of FILE asks, of whom, what that proves and does not, and which controls it serves."""
    from mlseal.policy.load import load
    from mlseal.policy.telling import tell

    told = tell(load(file))
    click.echo(json.dumps(told) if as_json else "\n".join(_lines(told)))


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the schema here.")
@JSON
def policy_schema(output: Path | None, as_json: bool) -> None:
    """Print the line that makes an editor complete and check a policy; with --json, the JSON Schema itself."""
    from mlseal.policy import editor

    if output is not None:
        try:
            output.write_text(editor.text())
        except OSError as error:
            raise Unreadable(f"cannot write {output}", got=error.strerror) from error
    where = editor.FILE if output is None else output.resolve()
    click.echo(json.dumps(editor.document()) if as_json else f"# yaml-language-server: $schema={where}")


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['policy']} (sha256 {told['sha256'][:16]}…)"]
    lines += [f"  stands on {layer['policy']} (sha256 {layer['sha256'][:16]}…)" for layer in told["layers"]]
    for one in told["requirements"]:
        lines.append(f"{one['id']}" + (f", stated by {one['statedBy']}" if told["layers"] else ""))
        lines += [f"  asks: {text}" for text in one["asks"]]
        for rule in one["conditions"]:
            lines.append(
                f"  {rule['id']}: {rule['message']}: {rule['check']}" + ("" if rule["waivable"] else ", no waiver")
            )
        lines += [f"  of: {who}" for who in one["by"]]
        lines.append(f"  proves: {one['proves']}")
        lines += [f"  does not prove: {text}" for text in one["notProven"]]
        lines += [f"  control: {text}" for text in one["control"]]
    for one in told["opa"]:
        lines += [f"{one['id']}", f"  asks: {one['asks']}"]
        lines += [f"  does not prove: {text}" for text in one["notProven"]]
        lines += [f"  control: {text}" for text in one["control"]]
    lines.append(f"revoked by: {' or '.join(told['revokers']) or 'nobody'}, known within {told['revocationMaxAge']}")
    return [*lines, f"waived by: {' or '.join(told['waivers']) or 'nobody'}"]
