"""``mlseal budget``: what is left of the privacy budgets that data draw on, and who drew on them."""

from __future__ import annotations

from pathlib import Path

import click

from mlseal.cli.evidence import JSON, STORE, TRUST, say
from mlseal.policy.budget import Cost, Reservation


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@TRUST
@STORE
@JSON
def budget(data: Path, trust_path: str | None, store_path: str | None, as_json: bool) -> None:
    """Show the privacy budgets that owners stated for DATA: how much is left, and each reservation.

    \b
    Example: mlseal budget data/
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.errors import NoEvidence
    from mlseal.evidence import store
    from mlseal.evidence import trust as trust_roots
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.digest import measure
    from mlseal.policy import budget as ledgers
    from mlseal.policy import load

    archive = Archive.open(trust_roots.resolve(trust_path), store.resolve(store_path))
    archive.refresh()
    revokers = [matcher for policy in load.in_force() for matcher in policy.revokers]
    accounts = ledgers.accounts_of(archive, measure(data), revokers)
    if not accounts:
        raise NoEvidence(
            f"no owner states a privacy budget for {data}",
            remedy="mlseal sign DATA --type data-policy --predicate FILE --role owner",
        )
    facts, lines = [], []
    for account in accounts:
        known = ledgers.ledger(archive, account, revokers)
        spent = known.spent
        facts.append(
            {
                "owner": str(account.owner),
                "cohort": account.cohort,
                "unit": account.unit,
                "dataPolicy": account.stated_in,
                "budget": account.limit.to_json(),
                "spent": spent.to_json(),
                "reservations": [_facts(one, granted=one in known.granted) for one in known.reservations],
            }
        )
        lines += [f"{account.cohort}, for each {account.unit}: {spent} of {account.limit} spent or reserved"]
        lines += [f"  {_words(one, granted=one in known.granted)}" for one in known.reservations]
    say(as_json, {"accounts": facts}, "\n".join(lines))


def _state(one: Reservation, *, granted: bool) -> str:
    if one.settled:
        return "spent"
    return "too late" if not granted else "released" if one.released else "reserved"


def _facts(one: Reservation, *, granted: bool) -> dict[str, object]:
    cost = one.cost() if granted else Cost()
    return {
        "evidenceId": one.fact.evidence_id,
        "by": str(one.fact.identity),
        "reserved": one.reserved.to_json(),
        "state": _state(one, granted=granted),
        "costs": cost.to_json(),
    }


def _words(one: Reservation, *, granted: bool) -> str:
    said = _state(one, granted=granted)
    spent = f" {one.cost()}" if said == "spent" else ""
    return f"{one.fact.evidence_id[:16]}… {one.reserved} set aside by {one.fact.identity.san}: {said}{spent}"
