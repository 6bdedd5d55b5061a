"""Sources that nobody signed: a stage says so, and only a policy that lists the source lets that count.

An entry names the source, whose decision it is and when it ends; with ``sha256`` it holds for those bytes alone. Names
are compared without case, and one with a letter outside ASCII is no name (`mlseal.policy.names`).
"""

from __future__ import annotations

from datetime import datetime

from mlseal.evidence.clock import rfc3339
from mlseal.evidence.predicates import source_verification
from mlseal.policy.facts import Target, VerifiedFact
from mlseal.policy.model import Policy
from mlseal.policy.names import canonical

Objection = tuple[str, str, str]
"""Message, got, expected."""


def objection(policy: Policy, fact: VerifiedFact, target: Target, now: datetime) -> Objection | None:
    """Why a source verification of an unsigned source does not count; None for all other evidence."""
    claim = fact.predicate
    if not isinstance(claim, source_verification.Predicate) or claim.unsigned is None:
        return None
    name, got = claim.unsigned.name, f"{claim.unsigned.name}, sha256 {claim.unsigned.sha256[:16]}…"
    if claim.unsigned.sha256 != target.sha256:
        return "names other bytes than it is about", got, f"sha256 {target.sha256[:16]}…"
    try:
        form = canonical(name)
    except ValueError as error:
        return f"names its source so that no policy can list it: {error}", got, "printable ASCII"
    listed = [entry for entry in policy.part.unsigned or () if entry.name == form]
    if not listed:
        return "is about a source that nobody signed and the policy does not list", got, f"{form} under unsigned"
    fitting = [entry for entry in listed if entry.sha256 in {None, target.sha256}]
    if not fitting:
        return "is about an unsigned source of that name with other bytes", got, f"sha256 {listed[0].sha256}"
    if not any(now < entry.until for entry in fitting):
        ended = max(entry.until for entry in fitting)
        return (
            "is about an unsigned source whose listing has ended",
            got,
            f"an end after {rfc3339(now)}, not {rfc3339(ended)}",
        )
    return None
