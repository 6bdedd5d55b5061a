"""Human approvals: n distinct people, none of whom approves their own work.

1. Collect all approvals and rejections by listed identities. A rejection that has not ended stops everything; only a
   listed revoker's supersession sets it aside.
2. An approval counts if it stands (unrevoked, not ended, not in the future, fresh, assured), meets ``when``, and names
   as reviewed all evidence that satisfied the requirements under ``reviewed``.
3. Roles under ``notBy`` resolve to people through ownership statements; a role that resolves to nobody leaves the
   requirement undecided, whoever approved.
4. Whoever signed evidence about this subject approves their own work and does not count.
5. Distinct means distinct (issuer, subject); upper and lower case make no second person, nor does another role or
   domain of the same pseudonym.
"""

from __future__ import annotations

from mlseal.evidence.predicates import human_approval
from mlseal.policy import roles, waiver
from mlseal.policy.case import Case, person, short, shortfall
from mlseal.policy.facts import Target, VerifiedFact
from mlseal.policy.model import Requirement
from mlseal.policy.remedies import supersede
from mlseal.policy.rule import answer, targets_of
from mlseal.policy.verdict import Outcome

_Person = tuple[str, str]


def judge(case: Case, requirement: Requirement) -> None:
    """Add to `case` every reason why people have not approved enough, and the approvals that count."""
    excluded = _roles(case, requirement)
    case.support[requirement.id] = ()
    for target in targets_of(case, requirement):
        followed = None if target is case.target else target
        asked = case.hints.approve(_to_review(case, requirement), requirement.by, followed)
        found = case.find(requirement.id, target, requirement.predicate_type, requirement.by, asked)
        case.look_at(found.facts)
        facts = case.without_superseded(found.facts)
        case.weigh(facts, requirement.id)
        _refuse_rejections(case, requirement, facts)
        problems = {fact.evidence_id: _problem(case, requirement, fact, excluded) for fact in facts}
        good = [fact for fact in facts if problems[fact.evidence_id] is None]
        case.support[requirement.id] += tuple(good)
        wanted = requirement.part.distinct or 1
        if len({person(fact.identity) for fact in good}) >= wanted or _excused(case, requirement, target, facts):
            continue
        others = [(fact, problem) for fact in facts if (problem := problems[fact.evidence_id])]
        _explain(case, requirement, good, others, asked)


def _excused(case: Case, requirement: Requirement, target: Target, facts: tuple[VerifiedFact, ...]) -> bool:
    """Whether a waiver stands in for approvals; never where a revoker took one back."""
    taken_back = any(case.revoked(fact) for fact in facts)
    return not taken_back and waiver.excuse(case, requirement.id, target, ())


def _explain(
    case: Case,
    requirement: Requirement,
    good: list[VerifiedFact],
    others: list[tuple[VerifiedFact, tuple[Outcome, str]]],
    asked: str,
) -> None:
    wanted = requirement.part.distinct or 1
    for fact, (outcome, message) in others:
        case.say(
            requirement.id,
            f"approval {short(fact.evidence_id)} does not count: {message}",
            outcome=outcome,
            got=fact.identity,
            control=requirement.control,
            remedy=asked,
        )
    people = {person(fact.identity) for fact in good}
    case.say(
        requirement.id,
        f"{len(people)} of {wanted} approvals by distinct people",
        got=", ".join(sorted(san for _, san in people)) or "nobody",
        expected=f"{wanted} of " + " or ".join(map(str, requirement.by)),
        remedy=asked,
        control=requirement.control,
    )


def _refuse_rejections(case: Case, requirement: Requirement, facts: tuple[VerifiedFact, ...]) -> None:
    for fact in facts:
        claim = fact.predicate
        if (
            isinstance(claim, human_approval.Predicate)
            and claim.decision != "approve"
            and not case.has_ended(claim.expires)
        ):
            case.say(
                requirement.id,
                f"{fact.identity.san} rejected it in evidence {short(fact.evidence_id)}",
                outcome="refused",
                got=claim.decision,
                expected="approve",
                control=requirement.control,
                remedy=f"settle it, then: {supersede(fact.evidence_id, case.policy.revokers)}",
            )


def _problem(
    case: Case, requirement: Requirement, fact: VerifiedFact, excluded: dict[_Person, str]
) -> tuple[Outcome, str] | None:
    """Why one approval does not count; None if it does."""
    claim = fact.predicate
    if not isinstance(claim, human_approval.Predicate) or claim.decision != "approve":
        return "refused", "it is no approval"
    if (reason := case.revoked(fact)) is not None:
        return "refused", f"it was {reason}"
    if case.has_ended(claim.expires) or case.is_older(fact, requirement.part.max_age):
        return "undecided", f"it ended ({claim.expires}) or is too old"
    if case.is_future(fact):
        return "undecided", "its signature lies in the future"
    if low := shortfall(fact, case.policy.assurance_of(requirement)):
        return "undecided", f"its assurance is too low ({low})"
    if person(fact.identity) in excluded:
        return "refused", f"self-approval: this person holds the role {excluded[person(fact.identity)]}"
    if person(fact.identity) in _authors(case):
        return "refused", "self-approval: this identity made evidence about the subject"
    return _unread(case, requirement, fact, claim)


def _unread(
    case: Case, requirement: Requirement, fact: VerifiedFact, claim: human_approval.Predicate
) -> tuple[Outcome, str] | None:
    unread = [evidence_id for evidence_id in _to_review(case, requirement) if evidence_id not in claim.reviewed]
    if requirement.part.reviewed and unread:
        return "undecided", f"evidence {short(unread[0])} was not reviewed"
    for rule in requirement.rules:
        found = answer(case, rule.condition, fact)
        if found.holds is not True:
            return (
                "refused" if found.holds is False else "undecided"
            ), f"{rule.message} ({found.got or found.problem})"
    return None


def _to_review(case: Case, requirement: Requirement) -> list[str]:
    """Evidence that satisfied the requirements under ``reviewed``; without that key, all that satisfied any."""
    names = requirement.part.reviewed or [r.id for r in case.policy.require if not r.is_approval]
    return [fact.evidence_id for name in names for fact in case.support.get(name, ())]


def _roles(case: Case, requirement: Requirement) -> dict[_Person, str]:
    excluded: dict[_Person, str] = {}
    for role in requirement.part.not_by or ():
        people = roles.holders(case, role)
        if not people:
            case.say(
                requirement.id,
                f"nobody is known to hold the role {role}, so nobody is known not to",
                expected="an ownership statement"
                + (" (the policy lists nobody who may sign one under ownership)" if not case.policy.owners else ""),
                remedy=case.hints.own(case.policy.owners),
                control=requirement.control,
            )
        excluded |= {person(holder): role for holder in people}
    return excluded


def _authors(case: Case) -> set[_Person]:
    """Everyone who signed the subject's provenance or evidence about work; decisions of other people are no work."""
    work = {r.predicate_type for r in case.policy.require if not r.is_approval}
    makers = {fact.identity for fact in case.weighed.values() if fact.predicate_type in work}
    return {person(identity) for identity in makers} | case.trainers(case.target)
