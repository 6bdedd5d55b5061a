"""``mlseal guard``: a model served behind identity, limits, schema, signals and an output filter."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import STORE, TOKEN, TRUST
from mlseal.cli.policy_input import POLICY
from mlseal.errors import Misuse

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.policy.model import Policy
    from mlseal.policy.verdict import Verdict

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_FILE)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--settings", "settings_file", type=_FILE, required=True, help="YAML file with the guard's settings.")
@click.option("--name", help="What policies know the model as; default: the directory's name.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--tls-cert", type=_FILE, help="Certificate chain (PEM); required beyond loopback.")
@click.option("--tls-key", type=_FILE, help="Its private key (PEM).")
@click.option("--upstream", metavar="URL", help="A model server that runs already; nothing ties it to the bytes.")
@click.option("--role", default="gate", show_default=True, help="Role to sign verdicts as.")
@POLICY
@TRUST
@STORE
@TOKEN
def guard(
    model: Path,
    command: tuple[str, ...],
    settings_file: Path,
    name: str | None,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    upstream: str | None,
    role: str,
    policy_paths: tuple[Path, ...],
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
) -> None:
    """Verify MODEL, start its server on a private copy, and let only requests through that pass every step.

    The policy must allow the action guard/serve for the model; it is judged at start and again every few seconds, so
    evidence that is taken back closes the guard. COMMAND starts the server, with {model} and {port} in it.

    \b
    Example: mlseal guard model/ --settings guard.yaml --policy policies/
             mlseal guard model/ --settings guard.yaml -- mlflow models serve --env-manager uv -m {model} -p {port}
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.cli.people import sign_as
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.archive import Archive
    from mlseal.policy.load import in_force
    from mlseal.policy.verdict import to_statement
    from mlseal.services.guard import program, settings
    from mlseal.services.guard import upstream as server

    if command and upstream:
        raise Misuse("--upstream names a server that runs, a command starts one", remedy="leave one of them out")

    def policies() -> Sequence[Policy]:
        if found := in_force(policy_paths):
            return found
        raise Misuse("no policy to judge by", expected="--policy FILE", remedy="pass --policy, or set MLSEAL_POLICY")

    policies()
    address = program.Address.parse(listen, tls_cert, tls_key)
    chosen = settings.load(settings_file)

    def archive() -> Archive:
        return Archive.open(trust_roots.resolve(trust_path), store_path)

    def heard(verdict: Verdict) -> None:
        bundle = sign_as(to_statement(verdict), role, trust_path, store_path, token_file, None)
        click.echo(f"guard: {type(verdict).__name__.lower()}, evidence {bundle.evidence_id[:16]}…", err=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as an exception it ends the server and removes the copy
    with program.guarded(
        model,
        name or model.resolve().name,
        chosen,
        policies,
        archive,
        command=command or server.COMMAND,
        url=upstream,
        heard=heard,
    ) as app:
        click.echo(f"guard: {chosen.guard} listens on {listen}; stop with Ctrl-C", err=True)
        program.serve(app, address)
