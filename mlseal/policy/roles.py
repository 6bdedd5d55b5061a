"""Who holds which role, by signed ownership statements about the subject or what it was made from."""

from __future__ import annotations

from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import ownership
from mlseal.policy.case import Case, shortfall
from mlseal.policy.facts import inputs_of


def holders(case: Case, role: str) -> frozenset[Identity]:
    """The identities that hold `role`; all valid statements add up, so that none can hide a holder of another.

    Statements count that an identity under ``ownership:`` signed, that have not ended or been taken back, and whose
    assurance suffices. Nobody is a possible answer, and never a permission.
    """
    found: set[Identity] = set()
    evidence = [fact for facts in case.support.values() for fact in facts]
    for target in (case.target, *(t for t in inputs_of(evidence) if t.sha256)):
        for fact in case.find(
            f"role-{role}", target, ownership.URI, case.policy.owners, case.hints.own(case.policy.owners)
        ).facts:
            case.look_at([fact])
            claim = fact.predicate
            if (
                not isinstance(claim, ownership.Predicate)
                or case.has_ended(claim.expires)
                or case.revoked(fact) is not None
            ):
                continue
            if case.is_future(fact) or shortfall(fact, case.policy.part.assurance):
                continue
            case.weigh([fact])
            found |= {Identity(holder.issuer, holder.san) for holder in claim.roles.get(role, ())}
    return frozenset(found)
