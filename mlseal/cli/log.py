"""``mlseal log · audit``: the transparency log as a verifier sees it, and a whole history checked offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlseal.cli.evidence import JSON, STORE, TRUST, say
from mlseal.cli.group import WholeSentences
from mlseal.errors import NotInitialised, Unchecked, Unreadable
from mlseal.evidence import trust as trust_roots


@click.group(cls=WholeSentences)
def log() -> None:
    """The transparency log as this user's verifier knows it."""


@log.command("show")
@TRUST
@STORE
@JSON
def log_show(trust_path: str | None, store_path: str | None, as_json: bool) -> None:
    """List the log's leaves and whether their bundles are here."""
    from mlseal.evidence.archive import Archive

    archive = Archive.open(trust_roots.resolve(trust_path), store_path)
    size = archive.refresh()
    # The index remembers what it saw once; this lists what is here now.
    here = set(archive.store.afresh().ids()) - {leaf.evidence_id for leaf in archive.index.unresolved()}
    rows = [
        {
            "origin": leaf.origin,
            "index": leaf.index,
            "evidenceId": leaf.evidence_id,
            "signer": leaf.identity.san,
            "resolved": leaf.evidence_id in here,
        }
        for leaf in archive.index.leaves()
    ]
    if as_json:
        click.echo(json.dumps({"treeSize": size, "leaves": rows}))
        return
    for row in rows:
        state = "" if row["resolved"] else "UNRESOLVED "
        click.echo(f"{row['index']:>6}  {str(row['evidenceId'])[:16]}…  {state}{row['signer']}")
    click.echo(f"tree size {size}, {sum(not row['resolved'] for row in rows)} unresolved")


@log.command("pin")
@TRUST
@JSON
def log_pin(trust_path: str | None, as_json: bool) -> None:
    """Remember the log's present checkpoint, so that every later view must be consistent with it.

    Compare size and root with the operator's before you rely on it: at first contact there is nothing to compare with.
    """
    from mlseal.evidence.checkpoints import PinnedCheckpoints
    from mlseal.evidence.tiles import service_tiles

    chosen = trust_roots.resolve(trust_path)
    pinned = PinnedCheckpoints.of_user()
    tiles = service_tiles(chosen)
    rows = []
    for key in chosen.logs:
        if key.origin not in tiles:
            raise Unchecked(f"log {key.origin} cannot be reached", remedy="use the operator's trust_config.json")
        note = tiles[key.origin].read("checkpoint").decode("utf-8")
        known = pinned.require_consistent(key, note, tiles[key.origin])
        found = pinned.pinned(key)
        rows.append(
            {
                "origin": key.origin,
                "size": found.size if found else 0,
                "root": found.root.hex() if found else "",
                "firstContact": not known,
            }
        )
    say(
        as_json,
        {"pinned": rows},
        "\n".join(f"pinned {r['origin']} at size {r['size']}, root {r['root']}" for r in rows),
    )


@log.command("recover")
@TRUST
@STORE
@JSON
def log_recover(trust_path: str | None, store_path: str | None, as_json: bool) -> None:
    """Publish evidence that a crash left between signing and storing."""
    from mlseal.evidence import store
    from mlseal.evidence.signing import signer_for

    done = signer_for("producer", trust=trust_roots.resolve(trust_path), store=store.resolve(store_path)).recover()
    say(as_json, {"published": [b.evidence_id for b in done]}, f"published {len(done)} bundle(s) that were waiting")


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option(
    "--tiles", "tiles_dir", type=click.Path(path_type=Path), help="Directory with ORIGIN/checkpoint and ORIGIN/tile/…."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="FILE",
    help="Its revokers may account for what nobody shows; repeatable (default: the policies in force, else a monitor).",
)
@TRUST
@STORE
@JSON
def audit(
    directory: Path | None,
    tiles_dir: Path | None,
    policies: tuple[str, ...],
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Verify a whole history offline: every log entry and every bundle.

    DIRECTORY is what 'mlseal init' wrote (default .mlseal): its evidence/ is audited. Tiles come from --tiles, from
    DIRECTORY/log, or from the running service. No key is needed and no network, once the tiles are files.
    """
    from mlseal.cli.progress import bar
    from mlseal.evidence import audit as auditing
    from mlseal.evidence import project
    from mlseal.evidence.bucket_url import is_url
    from mlseal.evidence.store import Store, resolve
    from mlseal.evidence.tiles import service_tiles
    from mlseal.policy import load

    local = Path(store_path) if store_path and not is_url(store_path) else None
    for named in filter(None, (directory, tiles_dir, local)):
        _require_directory(named)
    chosen = trust_roots.resolve(trust_path)
    base = directory or project.home()
    store = resolve(store_path) if store_path or directory is None else Store(directory / "evidence")
    source = tiles_dir or (base / "log" if (base / "log").is_dir() else None)
    tiles: Mapping[str, Any] = auditing.directory_tiles(chosen, source) if source else service_tiles(chosen)
    if not tiles:
        raise NotInitialised(
            "no tiles to audit",
            expected="DIR/ORIGIN/checkpoint",
            remedy="pass --tiles DIR ('mlseal log export' writes one)",
        )
    revokers = [matcher for policy in load.in_force(policies) for matcher in policy.revokers]
    with bar("auditing") as advance:
        report = auditing.audit(chosen, store, tiles, revokers=revokers, progress=advance)
    document = {
        "treeSize": report.tree_size,
        "verified": len(report.verified),
        "passed": report.passed,
        "unlogged": report.unlogged,
        "accounted": report.accounted,
        "findings": [{"where": f.where, **f.error.to_dict()} for f in report.findings],
    }
    if as_json:
        click.echo(json.dumps(document))
    else:
        for finding in report.findings:
            click.echo(f"  {finding.where}: {finding.error}")
        for words in report.accounted:
            click.echo(f"  {words}, and nobody shows it")
        for evidence_id in report.unlogged:
            click.echo(f"  {evidence_id[:16]}…: in the store, in no log")
    if not report.passed:
        raise Unchecked(
            "the audit did not pass",
            got=f"{len(report.findings)} finding(s), {len(report.unlogged)} unlogged, tree size {report.tree_size}",
            expected="every leaf resolved and verified",
        )
    if not as_json:
        shown = f"audited {report.tree_size} log entries, {len(report.verified)} bundles verified, "
        gone = len(report.accounted)
        click.echo(shown + (f"{gone} taken back and not shown" if gone else "nothing missing"))


def _require_directory(path: Path) -> None:
    """A history that is not there was not audited: 11, as for every file that cannot be read."""
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing there"
        raise Unreadable(f"cannot read {path}", got=found, expected="a directory", remedy="check the path")


@log.command("export")
@click.argument("target", type=click.Path(path_type=Path))
@TRUST
@JSON
def log_export(target: Path, trust_path: str | None, as_json: bool) -> None:
    """Copy each log's checkpoint and tiles to TARGET/ORIGIN, for an audit without the service."""
    from mlseal.evidence.mirror import copy_log
    from mlseal.evidence.tiles import service_tiles

    chosen = trust_roots.resolve(trust_path)
    tiles = service_tiles(chosen)
    sizes = {
        key.origin: copy_log(key, tiles[key.origin], target / key.origin) for key in chosen.logs if key.origin in tiles
    }
    if not sizes:
        raise Unchecked("no log can be reached", remedy="start the service, or use the operator's trust_config.json")
    say(as_json, {"sizes": sizes}, "\n".join(f"copied {origin}, {size} entries" for origin, size in sizes.items()))
