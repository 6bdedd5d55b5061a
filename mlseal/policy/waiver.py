"""Waivers: somebody else excuses one rule, for one subject, until a date, in a signed statement.

A waiver counts if (1) its signer is listed under ``waivers:`` and is no gate, (2) it names this rule and the policy
that states it, (3) its subject is what is judged, (4) it has not ended, lies not in the future and was not taken back,
(5) its assurance suffices, and (6) its signer made none of the evidence it excuses and none of the subject's
provenance.
"""

from __future__ import annotations

from collections.abc import Collection

from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import slsa_provenance, waiver
from mlseal.policy.case import Case, person, short, shortfall
from mlseal.policy.facts import Target, VerifiedFact


def excuse(case: Case, rule: str, target: Target, producers: Collection[Identity]) -> bool:
    """Whether a waiver of `rule` for `target` counts; if so it is noted and becomes an input of the verdict."""
    makers = {person(maker) for maker in (*producers, *case.source.signers(target, slsa_provenance.URI))}
    remedy = case.hints.waive(rule, case.policy.waivers)
    for fact in case.find(rule, target, waiver.URI, case.policy.waivers, remedy).facts:  # (1) (3)
        claim = fact.predicate
        if (
            not isinstance(claim, waiver.Predicate) or claim.rule != rule or claim.policy != case.policy.stating(rule)
        ):  # (2)
            continue
        case.look_at([fact])
        obstacle = _obstacle(case, fact, claim, makers)
        if obstacle is not None:
            case.say(
                rule, f"waiver {short(fact.evidence_id)} does not count: {obstacle}", outcome="note", got=fact.identity
            )
            continue
        case.weigh([fact])
        case.say(
            rule,
            f"waived until {claim.expires}",
            outcome="note",
            got=f"{fact.identity}, evidence {short(fact.evidence_id)}",
        )
        return True
    return False


def _obstacle(
    case: Case, fact: VerifiedFact, claim: waiver.Predicate, makers: Collection[tuple[str, str]]
) -> str | None:
    if case.has_ended(claim.expires):  # (4)
        return f"it ended {claim.expires}"
    if case.is_future(fact):  # (4)
        return "its signature lies in the future"
    if (reason := case.revoked(fact)) is not None:  # (4)
        return f"it was {reason}"
    if low := shortfall(fact, case.policy.part.assurance):  # (5)
        return f"its assurance is too low ({low})"
    if person(fact.identity) in makers:  # (6)
        return "its signer made the evidence that it excuses"
    return None
