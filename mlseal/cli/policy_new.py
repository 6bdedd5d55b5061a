"""``mlseal policy new``: a ready policy and its controls, filled and written side by side."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import JSON, TRUST
from mlseal.errors import DuplicateName, Misuse, Unreadable
from mlseal.evidence import trust as trust_roots
from mlseal.evidence.clock import utcnow

if TYPE_CHECKING:
    from mlseal.policy.packs.filling import Filled, People

_OWN_LOG = re.compile(r"log[0-9]+\.(.+)")  # of an authority NAME: logN.NAME


@click.command("new")
@click.argument("pack", required=False)
@click.option("--list", "listing", is_flag=True, help="Say which packs there are and which frameworks they refer to.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the policy here, its tests beside it.")
@click.option(
    "--set", "pairs", metavar="NAME=VALUE", multiple=True, help="Answer an open question, such as outcome=sick."
)
@click.option(
    "--trained-by",
    metavar="STAGE",
    default="training.run",
    show_default=True,
    help="What trains the models: training.run, training.dp or training.federated.",
)
@click.option("--issuer", metavar="URL", help="OIDC issuer of the pipelines; the pinned authority if absent.")
@click.option("--people-issuer", metavar="URL", help="OIDC issuer of the people who approve; --issuer if absent.")
@click.option(
    "--identity",
    "identities",
    metavar="ROLE=SAN",
    multiple=True,
    help="Who signs as producer, evaluator, monitor, gate, owner; reviewer may be repeated, and be @domain.",
)
@TRUST
@JSON
def policy_new(
    pack: str | None,
    listing: bool,
    output: Path | None,
    pairs: tuple[str, ...],
    trained_by: str,
    issuer: str | None,
    people_issuer: str | None,
    identities: tuple[str, ...],
    trust_path: str | None,
    as_json: bool,
) -> None:
    """Write the ready policy PACK, to be edited: FILE, and its negative controls in FILE's .tests directory.

    What is not set stays as SET-… in the file, and permits nothing. Nothing is overwritten.

    \b
    Example: mlseal policy new --list
             mlseal policy new credit --set outcome=defaulted --set attribute=sex --set table=test.csv -o credit.yaml
             mlseal policy new hr --trained-by training.dp -o private.yaml
             mlseal policy new general --issuer https://oidc.example --identity producer=https://ci.example/train \\
               --identity evaluator=https://ci.example/judge --identity monitor=https://ci.example/watch \\
               --identity gate=https://ci.example/gate --identity owner=https://ci.example/own \\
               --people-issuer https://login.example --identity reviewer=@lab.example -o general.yaml
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.policy.packs import filling

    if listing:
        _list(as_json=as_json)
        return
    if pack is None or output is None:
        raise Misuse("a pack and a file are needed", expected="PACK and -o FILE", remedy="mlseal policy new --list")
    filling.text_of(pack, trained_by)
    people = _people(issuer, people_issuer, identities, trust_path)
    filled = filling.fill(pack, people, _pairs(pairs, "--set"), now=utcnow(), trained_by=trained_by)
    beside = _write(output, filled)
    document = {
        "policy": filled.policy.name, "sha256": filled.policy.sha256, "file": str(output), "tests": str(beside),
        "unset": list(filled.unset),
    }  # fmt: skip
    words = f"{filled.policy.name} in {output}, {len(filled.tests)} tests in {beside}"
    words += "".join(f"\nstill to set: {key}, {filling.SETTINGS[key]}" for key in filled.unset)
    click.echo(json.dumps(document) if as_json else words)


def _list(*, as_json: bool) -> None:
    from mlseal.policy.load import parse
    from mlseal.policy.packs import filling

    rows = []
    for name in filling.names():
        policy = parse(filling.text_of(name)[0].encode(), name=name)
        controls = sorted({control for requirement in policy.require for control in requirement.control})
        rules = [requirement.id for requirement in policy.require]
        rows.append({"pack": name, "title": filling.title_of(name), "rules": rules, "control": controls})
    if as_json:
        click.echo(json.dumps({"packs": rows}))
        return
    for row in rows:
        frameworks = dict.fromkeys(control.partition(":")[0] for control in row["control"])
        click.echo(f"{row['title']}\n  {len(row['rules'])} rules; refers to {', '.join(frameworks)}")


def _people(
    issuer: str | None, people_issuer: str | None, identities: tuple[str, ...], trust_path: str | None
) -> People:
    from mlseal.policy.packs.filling import ROLES, People

    roles: dict[str, str] = {}
    reviewers = []
    for role, san in (_pair(text, "--identity") for text in identities):
        if role == "reviewer":
            reviewers.append(san)
        elif role not in ROLES or role in roles:
            raise Misuse(
                "not a role, or named twice", got=role[:100], expected=f"each once of {', '.join(ROLES)}, and reviewer"
            )
        else:
            roles[role] = san
    authority = None if issuer is not None else _authority(trust_path)
    return People(issuer or f"https://{authority}/issuer", roles, tuple(reviewers), people_issuer, authority)


def _authority(trust_path: str | None) -> str:
    """The name of the authority whose root is in force."""
    found = {match[1] for key in trust_roots.resolve(trust_path).logs if (match := _OWN_LOG.fullmatch(key.origin))}
    if len(found) != 1:
        raise Misuse(
            "the trust root in force is of no authority of one's own",
            expected="one whose roles are known",
            remedy="pass --issuer URL and --identity ROLE=SAN for each role",
        )
    return found.pop()


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found = [_pair(text, option) for text in texts]
    if len(dict(found)) != len(found):
        raise Misuse("something is set twice", got=", ".join(name for name, _ in found), expected="each once")
    return dict(found)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise Misuse(f"not a value for {option}", got=text[:100], expected="NAME=VALUE")
    return name, value


def _write(file: Path, filled: Filled) -> Path:
    """Both files or none, and never over another. Returns where the tests are."""
    beside = file.with_suffix(".tests")
    if file.suffix not in {".yaml", ".yml"}:
        raise Misuse("not the name of a policy file", got=file, expected="NAME.yaml")
    for path in (file, beside):
        if path.exists() or path.is_symlink():
            raise DuplicateName(
                f"{path} exists already", expected="a name that is free", remedy="choose another with -o"
            )
    try:
        beside.mkdir()
        try:
            (beside / "controls.yaml").write_text(filled.controls)
            with file.open("x") as stream:
                stream.write(filled.text)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        raise Unreadable(f"cannot write {file}", got=error.strerror) from error
    return beside
