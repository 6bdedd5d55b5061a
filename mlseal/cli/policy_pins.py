"""``mlseal policy release · rollback · pin``: whose policy is in force, and how the next one gets there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import JSON, STORE, TOKEN, TRUST
from mlseal.errors import Misuse
from mlseal.evidence import trust as trust_roots

if TYPE_CHECKING:
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.identity import Identity
    from mlseal.policy.model import Policy
    from mlseal.policy.pins import Pin, Pins
    from mlseal.policy.releases import Release

ROLE = click.option("--role", default="policy-owner", show_default=True, help="Role to sign as.")
OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the release here, not by FILE.")


@click.command("release")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--reason", help="Why; goes into the signed statement, so name no person.")
@ROLE
@OUTPUT
@TRUST
@STORE
@TOKEN
@JSON
def policy_release(
    file: Path,
    reason: str | None,
    role: str,
    output: Path | None,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Sign FILE as the next version of its policy, and write the release beside it.

    It is numbered after the newest on the log, and counts where FILE's policy is pinned with you as owner.
    """
    _act(file, role, output, (trust_path, store_path, token_file), reason, as_json=as_json, back=False)


@click.command("rollback")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why; goes into the signed statement, so name no person.")
@ROLE
@OUTPUT
@TRUST
@STORE
@TOKEN
@JSON
def policy_rollback(
    file: Path,
    reason: str,
    role: str,
    output: Path | None,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Sign that FILE, an earlier version of its policy, is in force again, and why.

    Without this act no machine that has seen a newer version accepts an older one.
    """
    _act(file, role, output, (trust_path, store_path, token_file), reason, as_json=as_json, back=True)


@click.command("pin")
@click.argument("source", required=False)
@click.option(
    "--owner", "owners", nargs=2, metavar="ISSUER SAN", multiple=True, help="Who may release it; at the first pin only."
)
@click.option("--sha256", help="The digest that the file must have, told over another way.")
@click.option("--machine", is_flag=True, help="For every user of this machine, in /etc/mlseal.")
@click.option("--remove", metavar="POLICY", help="Forget the pin of this policy.")
@TRUST
@STORE
@JSON
def policy_pin(
    source: str | None,
    owners: tuple[tuple[str, str], ...],
    sha256: str | None,
    machine: bool,
    remove: str | None,
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Put the policy at SOURCE in force here, if an owner released it and nothing newer is known; without SOURCE, list.

    SOURCE is a file, git+URL@REVISION#PATH, or a URL of fsspec such as s3://bucket/policy.yaml; its release lies beside
    it as SOURCE.sigstore.json. What is pinned is judged by digest from then on, and replaced forwards only.
    """
    from mlseal.evidence import paths
    from mlseal.policy import pins

    kept = pins.read(paths.machine_config_dir() if machine else None)
    if remove is not None:
        if source is not None:
            raise Misuse("--remove takes no SOURCE", remedy="give one of them")
        kept.removed(remove)
        click.echo(json.dumps({"removed": remove}) if as_json else f"{remove} is pinned no more")
        return
    if source is None:
        kept.policies()  # says what is wrong with them
        rows = [pin.model_dump(by_alias=True) for pin in kept.by_name.values()]
        lines = [f"{p['policy']} number {p['serial']} (sha256 {p['sha256'][:16]}…) from {p['source']}" for p in rows]
        click.echo(json.dumps({"pins": rows}) if as_json else "\n".join(lines) or "nothing is pinned")
        return
    pin, said = _accepted(source, owners, sha256, kept, (trust_path, store_path))
    words = f"pinned {said}" + (f": {said.reason}" if said.reason else "")
    click.echo(json.dumps(pin.model_dump(by_alias=True)) if as_json else words)


def _accepted(
    source: str,
    owners: tuple[tuple[str, str], ...],
    sha256: str | None,
    kept: Pins,
    places: tuple[str | None, str | None],
) -> tuple[Pin, Release]:
    from mlseal.cli.progress import bar
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.identity import Identity
    from mlseal.policy import fetching, pinning

    archive = Archive.open(trust_roots.resolve(places[0]), places[1])
    with bar(f"fetching {source}"):
        fetched = fetching.fetch(source)
    return pinning.accept(archive, fetched, kept, owners=[Identity(*who) for who in owners], sha256=sha256)


def _act(
    file: Path,
    role: str,
    output: Path | None,
    places: tuple[str | None, str | None, Path | None],
    reason: str | None,
    *,
    as_json: bool,
    back: bool,
) -> None:
    from mlseal.policy.fetching import SUFFIX
    from mlseal.policy.load import load

    policy = load(file)
    bundle, who = _signed(policy, role, places, reason, back=back)
    where = output or file.with_name(file.name + SUFFIX)
    bundle.write(where)
    said = dict(bundle.statement.predicate)
    document = {
        "evidenceId": bundle.evidence_id,
        "policy": policy.name,
        "sha256": policy.sha256,
        "serial": said["serial"],
        "act": said["act"],
        "release": str(where),
        "owner": {"issuer": who.issuer, "san": who.san},
    }
    what = f"{said['act']} {said['serial']} of {policy.name} (sha256 {policy.sha256[:16]}…)"
    words = f"{what}: evidence {bundle.evidence_id} in {where}"
    words += f"\nfor the first pin: mlseal policy pin {file} --owner {who.issuer} {who.san}"
    click.echo(json.dumps(document) if as_json else words)


def _signed(
    policy: Policy, role: str, places: tuple[str | None, str | None, Path | None], reason: str | None, *, back: bool
) -> tuple[Bundle, Identity]:
    from mlseal.evidence import store
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.signing import signer_for
    from mlseal.policy import pins, releases

    trust_path, store_path, token_file = places
    trust, kept = trust_roots.resolve(trust_path), store.resolve(store_path)
    signer = signer_for(role, trust=trust, store=kept, token_file=token_file)
    archive = Archive.open(trust, kept)
    archive.refresh()
    pin = pins.read().by_name.get(policy.name)
    owners: list[Identity] = [owner.identity for owner in pin.owners] if pin else [signer.identity()]
    if back:
        return releases.roll_back(archive, signer, policy, owners=owners, reason=reason or ""), signer.identity()
    return releases.sign(archive, signer, policy, owners=owners, reason=reason), signer.identity()
