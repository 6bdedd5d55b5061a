"""``mlseal monitor``: act on what a monitoring stage found."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from mlseal.cli.evidence import JSON, STORE, TOKEN, TRUST, say
from mlseal.errors import Misuse


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), required=True, help="The model that the report is about.")
@click.option("--identity", "san", help="Who must have signed the report (SAN); default: the identity acted as.")
@click.option("--issuer", help="Issuer of that identity.")
@click.option(
    "--withdraw",
    "types",
    metavar="TYPE",
    multiple=True,
    default=["human-approval"],
    show_default=True,
    help="Type of evidence that an alarm takes back; may be repeated.",
)
@click.option(
    "--valid-hours", type=click.IntRange(1, 24 * 90), default=24, show_default=True, help="Validity of the snapshot."
)
@click.option(
    "--max-age-hours",
    type=click.IntRange(1, 24 * 90),
    default=24,
    show_default=True,
    help="How old a report may be whose silence counts.",
)
@click.option("--role", default="monitor", show_default=True, help="Role to sign as.")
@TRUST
@STORE
@TOKEN
@JSON
@click.pass_context
def monitor(
    ctx: click.Context,
    report: Path,
    model: Path,
    san: str | None,
    issuer: str | None,
    types: tuple[str, ...],
    valid_hours: int,
    max_age_hours: int,
    role: str,
    trust_path: str | None,
    store_path: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Act on REPORT, a bundle that `mlseal run monitoring.drift` made; exit 0 when there is nothing to do.

    An alarm takes the named evidence back and signs a fresh snapshot, so gates refuse, loaders and guards close; exit
    10. A silence that means nothing, or is old, exits 11. One that means something signs a fresh snapshot, too.

    \b
    Example: mlseal run monitoring.drift --model model/ --reference a.csv --stream b.csv --columns score -o june.json
             mlseal monitor june.json --model model/
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.evidence import alarms, clock, predicates
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.digest import measure
    from mlseal.evidence.identity import Identity
    from mlseal.evidence.revoking import snapshot
    from mlseal.evidence.signing import signer_for

    if (san is None) != (issuer is None):
        raise Misuse("--identity and --issuer belong together", remedy="pass both or neither")
    wanted = [predicates.uri_of(name) for name in types]
    archive = Archive.open(trust_roots.resolve(trust_path), store_path)
    archive.refresh()
    signer = signer_for(role, trust=archive.trust, store=archive.store, token_file=token_file)
    by = Identity(issuer, san) if san is not None and issuer is not None else signer.identity()
    verified = archive.verifier.verify(
        Bundle.read(report),
        predicate_type="drift",
        identities=[by],
        subjects=[measure(model).sha256],
        revocations=archive.revocations([by, signer.identity()]),
    )
    oldest = clock.utcnow() - timedelta(hours=max_age_hours)
    taken = alarms.answer(verified, archive, signer, wanted, oldest=oldest)
    made = snapshot(archive, signer, valid_for=timedelta(hours=valid_hours)).evidence_id
    document = {"alarmed": taken is not None, "withdrawn": taken or [], "snapshot": made}
    words = "no alarm" if taken is None else f"alarm: {len(taken)} pieces of evidence withdrawn now"
    say(as_json, document, f"{words}; snapshot {made[:16]}… valid {valid_hours} h")
    ctx.exit(0 if taken is None else 10)
