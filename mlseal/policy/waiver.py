"""Waivers: somebody else excuses one rule, for one subject, until a date, in a signed statement.

A waiver counts if (1) its signer is listed under ``waivers:`` and is no gate, (2) it names this rule and the policy
that states it, (3) its subject is what is judged, (4) it has not ended, lies not in the future and was not taken back,
(5) its assurance suffices, (6) its signer made none of the evidence it excuses and none of the subject's provenance,
and is none of those who should have made what is missing, and (7) it gives a reason, and an end within a year of its
signature: a waiver until the year 9999 has no end.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from mlseal.evidence.clock import parse_rfc3339
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import waiver
from mlseal.policy.case import Case, person, short, shortfall
from mlseal.policy.facts import Target, VerifiedFact
from mlseal.policy.model import Matcher

LONGEST = timedelta(days=366)


def excuse(
    case: Case, rule: str, target: Target, producers: Collection[Identity], *, due: Collection[Matcher] = ()
) -> bool:
    """Whether a waiver of `rule` for `target` counts; if so it is noted and becomes an input of the verdict.

    `producers` made the evidence that is excused; `due` should have made what is missing.
    """
    makers = {person(maker) for maker in producers} | case.trainers(target)
    remedy = case.hints.waive(rule, case.policy.waivers)
    for fact in case.find(rule, target, waiver.URI, case.policy.waivers, remedy).facts:  # (1) (3)
        claim = fact.predicate
        if (
            not isinstance(claim, waiver.Predicate) or claim.rule != rule or claim.policy != case.policy.stating(rule)
        ):  # (2)
            continue
        case.look_at([fact])
        obstacle = _obstacle(case, fact, claim, makers)
        if obstacle is None and any(matcher.matches(fact.identity) for matcher in due):  # (6)
            obstacle = "its signer should have made the evidence that is missing"
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
    if not claim.reason.strip():  # (7)
        return "it gives no reason"
    if parse_rfc3339(claim.expires) > fact.time + LONGEST:  # (7)
        return f"it ends only {claim.expires}, more than {LONGEST.days} days after its signature"
    return None
