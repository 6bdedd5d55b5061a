"""`mlseal init`, `mlseal serve` and `mlseal trust …`: the authority and what users believe of it."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlseal.cli.group import WholeSentences
from mlseal.cli.pseudonyms import people
from mlseal.errors import DuplicateName, Error, Misuse, Unreadable

if TYPE_CHECKING:
    from mlseal.services.state import State

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_state = click.option("--state", type=_PATH, help="The trust service's directory; default: by the trust root in force.")


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration like 30d, 12h, 90m or 45s", param, ctx)
        return timedelta(seconds=int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]])


@click.command()
@click.argument("directory", type=_PATH, default=".mlseal")
@click.option("--name", help="Name of the authority, like team.mlseal.local; default: made of the project's folder.")
@click.option("--state", type=_PATH, help="Where keys and logs lie; default: the user's data directory.")
@click.option("--url", help="https://host:port when clients reach the service over the network.")
@click.option(
    "--lifetime", type=_Duration(), default="730d", show_default=True, help="How long the trust root is valid."
)
@_as_json
def init(
    directory: Path, name: str | None, state: Path | None, url: str | None, lifetime: timedelta, as_json: bool
) -> None:
    """Create a trust service and its keys, and pin its root for this user.

    Writes DIRECTORY (default .mlseal) with trusted_root.json, trust_config.json, policy.yaml with its negative controls
    in policy.tests/, and evidence/. Refuses to overwrite anything. A user trusts one root at a time: where another was
    in force, the way back to it is said.
    """
    from mlseal.services import setup

    made = setup.initialise(
        directory, name=name or setup.default_name(directory), state=state, url=url, lifetime=lifetime
    )
    _tell_authority(made.state, made.directory, as_json, replaced=made.replaced)
    if made.replaced is not None and not as_json:
        click.echo(
            f"this user now trusts {made.state.name} instead of {_named(made.replaced)}; back: mlseal trust use "
            f"{made.replaced}"
        )


@click.command()
@_state
@click.option(
    "--idle", type=click.FloatRange(min=0.1), help="End after so many seconds without a request; default: never."
)
@click.option("--listen", metavar="HOST:PORT", help="Serve over TLS as well.")
@click.option("--tls-cert", type=_FILE, help="Certificate chain (PEM) for --listen.")
@click.option("--tls-key", type=_FILE, help="Its private key (PEM).")
@click.option("--external-issuer", "issuers", type=_FILE, help="JSON file of accepted identity providers.")
def serve(
    state: Path | None,
    idle: float | None,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    issuers: Path | None,
) -> None:
    """Run the trust service: certificates, time stamps, the log.

    Listens on the unix socket in its state directory, with --listen also over TLS. Prints nothing; ends at once when
    the service runs already. Its log is service.log in the state directory.
    """
    from mlseal.services import process, setup

    directory = setup.authority_of(state).directory
    if sys.stderr.isatty():
        click.echo(f"serving {directory}; stop with Ctrl-C", err=True)
    served = process.serve(
        directory,
        idle=idle,
        listen=listen,
        certificate=tls_cert,
        key=tls_key,
        issuers=issuers,
    )
    if not served and (listen or issuers):
        raise DuplicateName(
            "the service of this authority runs already, without these options",
            got=str(directory),
            remedy="end that process, then start again",
        )


@click.group(cls=WholeSentences)
def trust() -> None:
    """Pin, show, export and rotate trust roots; grant and fetch tokens; say who is who."""


trust.add_command(people)


@trust.command()
@click.argument("file", type=_PATH)
@click.option("--fingerprint", required=True, help="sha256:… as its operator announced it.")
@click.option("--default/--no-default", default=True, help="Use it when nothing else is named.")
@_as_json
def add(file: Path, fingerprint: str, default: bool, as_json: bool) -> None:
    """Pin the trust root in FILE for this user."""
    from mlseal.evidence import trust as roots

    pinned = roots.pin(file, fingerprint, default=default)
    default_now = roots.default_fingerprint() == pinned.fingerprint
    _tell(as_json, {"pinned": pinned.fingerprint, "default": default_now, "expires": _facts(pinned)["expires"]})
    if pinned.expires is None:
        click.echo(
            "note: this root names no end, so it is believed until you replace it; ask for one that ends", err=True
        )


@trust.command("list")
@_as_json
def list_(as_json: bool) -> None:
    """List the trust roots that this user pinned."""
    from mlseal.evidence import trust as roots

    default = roots.default_fingerprint()
    rows = [{"fingerprint": t.fingerprint, "default": t.fingerprint == default, **_facts(t)} for t in roots.pins()]
    if as_json:
        click.echo(json.dumps({"roots": rows}))
        return
    for row in rows:
        mark, end = "*" if row["default"] else " ", row["expires"] or "no end"
        click.echo(f"{mark} {row['fingerprint']}  {', '.join(row['logs'])}  until {end}")
    if not rows:
        click.echo("no trust root is pinned; run 'mlseal init' or 'mlseal trust add FILE --fingerprint …'")


@trust.command()
@click.argument("root", required=False)
@_as_json
def show(root: str | None, as_json: bool) -> None:
    """Show the trust root in force, or ROOT (a file or a pinned fingerprint)."""
    from mlseal.evidence import trust as roots

    chosen = roots.resolve(root)
    _tell(as_json, {"fingerprint": chosen.fingerprint, "source": chosen.source, **_facts(chosen)})


@trust.command()
@click.argument("directory", type=_PATH)
@_state
@_as_json
def export(directory: Path, state: Path | None, as_json: bool) -> None:
    """Write trusted_root.json and trust_config.json of an authority into DIRECTORY, to hand to others.

    Tell them the fingerprint over another way than the files.
    """
    from mlseal.services import setup

    made = setup.export(setup.authority_of(state), directory)
    _tell_authority(made.state, made.directory, as_json)


@trust.command()
@click.argument("fingerprint")
@_as_json
def use(fingerprint: str, as_json: bool) -> None:
    """Make the pinned root with FINGERPRINT the default; its first 8 digits or more do."""
    from mlseal.evidence import trust as roots

    _tell(as_json, {"default": roots.use(fingerprint).fingerprint})


@trust.command()
@_state
@click.option(
    "--overlap", type=_Duration(), default="30d", show_default=True, help="How long the old keys are still believed."
)
@click.option(
    "--lifetime", type=_Duration(), default="730d", show_default=True, help="How long the new ones are valid."
)
@_as_json
def rotate(state: Path | None, overlap: timedelta, lifetime: timedelta, as_json: bool) -> None:
    """Give an authority new keys and a new log; the old log stays readable, what it holds stays true.

    Others pin the new root by its fingerprint: mlseal trust add FILE --fingerprint ….
    """
    from mlseal.services import setup

    made = setup.rotate(setup.authority_of(state), overlap=overlap, lifetime=lifetime)
    _tell_authority(made.state, made.directory, as_json)


@trust.command()
@click.argument("subjects", nargs=-1)
@click.option("--uid", type=click.IntRange(min=0), required=True, help="The user who may ask.")
@click.option("--revoke", is_flag=True, help="Take every grant of that user back instead.")
@_state
@_as_json
def grant(subjects: tuple[str, ...], uid: int, revoke: bool, state: Path | None, as_json: bool) -> None:
    """Let another user of this machine act as SUBJECTS (roles/gate, roles/reviewer/alice, roles/reviewer/*)."""
    from mlseal.services import setup
    from mlseal.services.issuer import Grants

    if bool(subjects) == revoke:
        raise Misuse("name the identities to grant, or --revoke without any", expected="roles/… or --revoke")
    authority = setup.authority_of(state)
    grants = Grants(authority.directory / "grants.json")
    _tell(as_json, {"grants": grants.remove(uid) if revoke else grants.add(uid, subjects)})
    closed = next((path for path in authority.socket.parents if not path.stat().st_mode & 0o011), None)
    if closed is not None and not revoke:
        click.echo(
            f"note: other users cannot reach the socket through {closed}; 'chmod o+x {closed}' opens it", err=True
        )


@trust.command()
@click.argument("subject")
@click.option("-o", "--output", type=_FILE, help="Write the token to this file (0600) instead of printing it.")
@click.option("--trust", "root", help="Trust root; default: the one in force.")
@_as_json
def token(subject: str, output: Path | None, root: str | None, as_json: bool) -> None:
    """Get a token, valid for minutes, that says the caller is SUBJECT (producer, reviewer/alice, …)."""
    from mlseal.evidence import trust as roots
    from mlseal.evidence.signing import tokens

    chosen = roots.resolve(root)
    if chosen.endpoints is None or chosen.endpoints.issuer is None:
        raise Misuse("the trust root names no token issuer", got=chosen.source, expected="a ClientTrustConfig")
    text = tokens.from_embedded(chosen, chosen.endpoints.issuer, subject, 10.0)
    if output is None:
        click.echo(json.dumps({"subject": subject, "token": text}) if as_json else text)
        return
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            os.fchmod(handle, 0o600)
            file.write(text)
    except OSError as error:
        raise Unreadable(f"cannot write {output}", got=error.strerror) from error
    if as_json:
        click.echo(json.dumps({"subject": subject, "file": str(output)}))


def _named(fingerprint: str) -> str:
    """The authority behind a pinned root, as people know it; the fingerprint where it cannot be read."""
    from mlseal.evidence import trust as roots

    try:
        return roots.resolve(fingerprint).logs[0].origin.partition(".")[2] or fingerprint
    except Error:
        return fingerprint


def _tell_authority(state: State, directory: Path, as_json: bool, replaced: str | None = None) -> None:
    _tell(
        as_json,
        {
            "name": state.name,
            "fingerprint": state.fingerprint,
            "directory": str(directory),
            "state": str(state.directory),
            "url": state.base,
            "log": state.statement_origin(),
            "end": f"{state.end:%Y-%m-%dT%H:%M:%SZ}",
            **({"replaced": replaced} if replaced and as_json else {}),
        },
    )


def _facts(trust_root: Any) -> dict[str, Any]:
    expires = trust_root.expires
    return {
        "logs": [log.origin for log in trust_root.logs],
        "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}" if expires else None,
        "signs": trust_root.endpoints is not None,
    }


def _tell(as_json: bool, document: dict[str, Any]) -> None:
    if as_json:
        click.echo(json.dumps(document))
        return
    width = max(map(len, document))
    for name, value in document.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else "no end" if value is None else value
        click.echo(f"{name:<{width}}  {text}")
