"""``mlseal policy input``, and what every command that judges is told: policies, action and facts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import JSON, STORE, TRUST
from mlseal.errors import Misuse
from mlseal.evidence import trust as trust_roots

if TYPE_CHECKING:
    from mlseal.policy.gate import Action
    from mlseal.policy.model import Policy

POLICY = click.option(
    "--policy",
    "policy_paths",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    envvar="MLSEAL_POLICY",
    help="Policy file or directory of policies; may be repeated.",
)
ACTION = click.option(
    "--action",
    "action_name",
    metavar="TOOL/ACTION",
    help="What is about to happen, such as mlflow/alias; without it every given policy applies.",
)
FACT = click.option(
    "--fact", "facts", metavar="NAME=VALUE", multiple=True, help="A fact of the action, such as alias=champion."
)


@click.command("input")
@click.argument("path", type=click.Path(path_type=Path))
@POLICY
@ACTION
@FACT
@click.option("--of", "name", metavar="POLICY", help="Which of the policies, where several govern.")
@TRUST
@STORE
@JSON
def policy_input(
    path: Path,
    policy_paths: tuple[Path, ...],
    action_name: str | None,
    facts: tuple[str, ...],
    name: str | None,
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Print what an OPA server is shown about PATH: verified facts alone, in JSON. Asks no server.

    \b
    Example: mlseal policy input model/ --policy policy.yaml > input.json
             opa eval --input input.json --data gate.rego data.mlseal.gate
    """  # noqa: D301
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import measure
    from mlseal.policy.gate import documents

    archive = Archive.open(trust_roots.resolve(trust_path), store_path)
    policies = policies_of(policy_paths)
    found = documents(measure(path), action_of(action_name, facts), policies, archive, clock=archive.clock)
    chosen = name or (next(iter(found)) if len(found) == 1 else "")
    if chosen not in found:
        raise Misuse(
            f"{len(found)} policies govern this, and each has its own document",
            got=name,
            expected=", ".join(sorted(found)) or "a policy that covers the action",
            remedy="name one: --of POLICY",
        )
    shown, reasons = found[chosen]
    for reason in [reason for reason in reasons if reason.outcome != "note"][:1]:
        click.echo(f"OPA would not be asked now: {reason}", err=True)
    click.echo(json.dumps(shown.value) if as_json else json.dumps(shown.value, indent=2))


def policies_of(paths: Sequence[Path]) -> tuple[Policy, ...]:
    """The policies in the files that are named, else those in force. Raises `Misuse` if there is none."""
    from mlseal.policy import pins
    from mlseal.policy.load import in_force, load_all

    policies = load_all(paths) if paths else in_force()
    if not policies:
        raise Misuse(
            "no policy to judge by",
            expected="--policy FILE",
            remedy="pass --policy, set MLSEAL_POLICY, or pin one: mlseal policy pin",
        )
    pins.require_pinned(policies)
    return policies


def action_of(name: str | None, facts: Sequence[str]) -> Action | None:
    """The action that ``--action`` and ``--fact`` name. Raises `Misuse` for half of one."""
    from mlseal.policy.gate import Action

    if name is None:
        if facts:
            raise Misuse("--fact belongs to an action", remedy="pass --action TOOL/ACTION too")
        return None
    tool, slash, action = name.partition("/")
    pairs = [fact.partition("=") for fact in facts]
    names = [key for key, _, _ in pairs]
    if not (tool and slash and action) or any(not key or not equals for key, equals, _ in pairs):
        raise Misuse("not an action", got=" ".join((name, *facts)), expected="--action TOOL/ACTION --fact NAME=VALUE")
    if len(set(names)) != len(names) or {"tool", "action"} & set(names):
        raise Misuse(
            "a fact is given twice", got=" ".join(facts), expected="each name once, and neither tool nor action"
        )
    return Action(tool, action, {key: value for key, _, value in pairs})
