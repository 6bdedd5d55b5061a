"""``mlseal trust people``: who is behind a pseudonym, told to the owner of the authority alone; and forgetting it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlseal.errors import Misuse

if TYPE_CHECKING:
    from mlseal.services.people import People, Person
    from mlseal.services.state import State

_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The trust service's directory; default: by the trust root in force.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_REMAINS = "log entries, certificates and policies under the pseudonym; copies of this service's files made elsewhere"
_ENDS = "the link from the pseudonym to a person; the same login gets a new one, tokens given out last some minutes"


@click.group(invoke_without_command=True)
@_STATE
@_JSON
@click.pass_context
def people(context: click.Context, state: Path | None, as_json: bool) -> None:
    """List the people of an authority; certificates and logs know them by pseudonym only.

    Without a command: pseudonym, name, login and issuer of everybody, for the owner of the service alone.
    """
    if context.invoked_subcommand is not None:
        if state is not None or as_json:
            raise Misuse("options of the list stand before a command", remedy="put them behind the command")
        return
    authority, known = _open(state)
    rows = [_row(authority, person) for person in known.all()]
    if as_json:
        click.echo(json.dumps({"people": rows}, ensure_ascii=False))
        return
    for row in rows:
        click.echo(f"{row['pseudonym']}  {row['name']}  {row['login']}  (issuer {row['issuer']})")
    if not rows:
        click.echo("nobody yet; a person is added by the first token, or by 'mlseal trust people add NAME'")


@people.command()
@click.argument("name")
@_STATE
@_JSON
def add(name: str, state: Path | None, as_json: bool) -> None:
    """Give NAME, as in --role reviewer/NAME, a pseudonym before the first token: policies need to name it."""
    from mlseal.services.issuer import check_person

    authority, known = _open(state)
    _tell(as_json, _row(authority, known.find(known.pseudonym_of(authority.issuer, check_person(name)))))


@people.command()
@click.argument("person", metavar="NAME|PSEUDONYM")
@click.option("--role", default="reviewer", show_default=True, help="For somebody of this machine: in which role.")
@_STATE
@_JSON
def show(person: str, role: str, state: Path | None, as_json: bool) -> None:
    """Say who somebody is, with the issuer and URI (san) for a policy or an ownership statement."""
    from mlseal.services.issuer import check_subject

    check_subject(f"roles/{role}")
    authority, known = _open(state)
    _tell(as_json, _row(authority, known.find(person), role))


@people.command()
@click.argument("person", metavar="PSEUDONYM|NAME")
@click.argument("display")
@_STATE
@_JSON
def name(person: str, display: str, state: Path | None, as_json: bool) -> None:
    """Set the name to show for somebody; it stays in this service's directory."""
    authority, known = _open(state)
    _tell(as_json, _row(authority, known.call(person, display)))


@people.command()
@click.argument("person", metavar="NAME|PSEUDONYM")
@click.option("--yes", is_flag=True, help="There is no way back.")
@_STATE
@_JSON
def erase(person: str, yes: bool, state: Path | None, as_json: bool) -> None:
    """Forget who is behind a pseudonym, and take back grants that name the person.

    The log still verifies; nobody can say any more whose entries these are.
    """
    from mlseal.services.issuer import Grants

    authority, known = _open(state)
    found = known.find(person)
    if not yes:
        raise Misuse(
            f"erasing {found.pseudonym} cannot be undone",
            expected="--yes",
            remedy=f"mlseal trust people erase {found.pseudonym} --yes",
        )
    names = [found.pseudonym, *([found.subject] if found.issuer == authority.issuer else [])]
    taken = Grants(authority.directory / "grants.json").forget(names)
    known.erase(found.pseudonym)
    _tell(as_json, {"erased": found.pseudonym, "grants": len(taken), "remains": _REMAINS, "ends": _ENDS})


def _open(directory: Path | None) -> tuple[State, People]:
    """The authority and its people. Raises `Refusal` for anybody but its owner."""
    from mlseal.services import setup, state
    from mlseal.services.people import People

    authority = setup.authority_of(directory)
    state.require_own(authority.directory)
    return authority, People(authority.directory)


def _row(authority: State, person: Person, role: str = "reviewer") -> dict[str, Any]:
    from mlseal.services.people import uri

    return {**asdict(person), "san": uri(authority.name, person, role)}


def _tell(as_json: bool, document: dict[str, Any]) -> None:
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    width = max(map(len, document))
    for key, value in document.items():
        click.echo(f"{key:<{width}}  {value}")
