"""One requirement of a policy, judged over everything that is known about its subject.

1. Collect: all evidence of the type about this very digest, by the listed identities and no gate.
2. Select: leave out what was superseded by something newer, and what ``where`` says the requirement is not about.
3. Conditions: every result counts, the worst wins; a condition that is false for one of them is false.
4. Standing: at least one of those for which everything holds must be unrevoked, fresh by verified time, strong enough
   and assured enough.
5. A rule that fails may be excused by a waiver; what a revoker took back and a source that nobody signed may not.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlseal.evidence.clock import rfc3339
from mlseal.policy import unsigned, waiver
from mlseal.policy.case import Case, person, short, shortfall, span
from mlseal.policy.cel import Answer, Condition
from mlseal.policy.facts import Found, Target, VerifiedFact, inputs_of
from mlseal.policy.model import TRAINING, Requirement, Rule
from mlseal.policy.remedies import short_name, supersede
from mlseal.policy.verdict import Outcome

_STRENGTHS = ("inferred", "declared", "measured")
_TRAINING = " or ".join(map(short_name, TRAINING))


def judge(case: Case, requirement: Requirement) -> None:
    """Add to `case` every reason why `requirement` is not satisfied, and what satisfies it."""
    targets = targets_of(case, requirement)
    standing: list[VerifiedFact] = []
    for target in targets:
        standing += _Judgement(case, requirement, target).run()
    case.support[requirement.id] = tuple(standing)


def targets_of(case: Case, requirement: Requirement) -> tuple[Target, ...]:
    """What the evidence must be about: the subject, or with ``of`` each input that verified evidence names.

    No input, or one without a SHA-256, is a reason: a chain that cannot be followed is not a chain.
    """
    of, wanted = requirement.part.of, requirement.part.input
    if of is None:
        return (case.target,)
    inputs = [t for t in inputs_of(case.support.get(of, ())) if wanted is None or t.name == wanted]
    if not case.support.get(of):
        case.say(
            requirement.id,
            f"is about the inputs that {of} names, of which no evidence counts yet",
            remedy=f"mend {of} first",
            control=requirement.control,
        )
        return ()
    origin = next(earlier for earlier in case.policy.require if earlier.id == of)
    remedy = f"evidence for {of} that names it by SHA-256: {case.hints.produce(origin)}"
    if not inputs:
        case.say(
            requirement.id,
            f"{of} names no input" + (f" called {wanted}" if wanted else ""),
            expected="verified evidence whose inputs stand there by digest",
            remedy=remedy,
            control=requirement.control,
        )
    for target in inputs:
        if not target.sha256:
            case.say(
                requirement.id,
                f"input {target.name} of {of} has no SHA-256 and cannot be followed",
                remedy=remedy,
                control=requirement.control,
            )
    return tuple(target for target in inputs if target.sha256)


def answer(case: Case, condition: Condition, fact: VerifiedFact) -> Answer:
    """What a condition says about a fact."""
    claim = fact.predicate.model_dump(by_alias=True, exclude_none=True, mode="json")
    return condition.evaluate(claim, now=case.now, signed_on=fact.time)


@dataclass
class _Judgement:
    case: Case
    requirement: Requirement
    target: Target

    def run(self) -> list[VerifiedFact]:
        wanted = self.requirement
        found = self.case.find(wanted.id, self.target, wanted.predicate_type, wanted.by, self._command)  # (1)
        self.case.look_at(found.facts)
        facts = self._select(self.case.without_superseded(found.facts))  # (2)
        self.case.weigh(facts, wanted.id)
        if not facts:
            if not found.rejected:
                self._missing(found)
            return []
        failing = {fact.evidence_id for fact in self._failing(facts)}  # (3)
        sound = [fact for fact in facts if fact.evidence_id not in failing]
        return self._standing(sound) if sound else []  # (4)

    def _select(self, facts: tuple[VerifiedFact, ...]) -> tuple[VerifiedFact, ...]:
        if self.requirement.where is None:
            return facts
        chosen = []
        for fact in facts:
            found = answer(self.case, self.requirement.where, fact)
            if found.holds is None:
                self._say(
                    f"'where' has no answer for evidence {short(fact.evidence_id)}",
                    got=found.problem,
                    expected=self.requirement.where.source,
                    remedy=f"{self._command}; then {supersede(fact.evidence_id, self.case.policy.revokers)}",
                )
            elif found.holds:
                chosen.append(fact)
        return tuple(chosen)

    def _failing(self, facts: tuple[VerifiedFact, ...]) -> list[VerifiedFact]:
        """The facts for which a condition is not true and not excused; each such condition is a reason."""
        failing: list[VerifiedFact] = []
        for rule in self.requirement.rules:
            answers = [(fact, answer(self.case, rule.condition, fact)) for fact in facts]
            bad = [(fact, found) for fact, found in answers if found.holds is not True]
            if bad and not (
                rule.waivable and waiver.excuse(self.case, rule.id, self.target, {f.identity for f, _ in bad})
            ):
                failing += [fact for fact, _ in bad]
                self._broken(rule, bad, of=len(facts))
        return failing

    def _broken(self, rule: Rule, bad: list[tuple[VerifiedFact, Answer]], *, of: int) -> None:
        wrong = [(fact, found) for fact, found in bad if found.holds is False]
        fact, found = (wrong or bad)[-1]
        where = f"evidence {short(fact.evidence_id)} by {fact.identity.san} of {rfc3339(fact.time)}"
        count = f" ({len(bad)} of {of} results; the worst counts)" if of > 1 else ""
        self.case.say(
            rule.id,
            rule.message if wrong else f"{rule.message}: no answer",
            outcome="refused" if wrong else "undecided",
            got=f"{found.got or found.problem or 'false'} in {where}{count}",
            expected=rule.condition.source,
            remedy=self._remedy(rule, fact, of),
            control=self.requirement.control,
        )

    def _remedy(self, rule: Rule, fact: VerifiedFact, of: int) -> str:
        hints, policy = self.case.hints, self.case.policy
        again = "change the subject, then " + self._command
        if of > 1:
            again += f"; a result that no longer counts: {supersede(fact.evidence_id, policy.revokers)}"
        if rule.waivable and policy.waivers:
            again += f"; or {hints.waive(rule.id, policy.waivers, self._input)}"
        return again

    def _standing(self, sound: list[VerifiedFact]) -> list[VerifiedFact]:
        problems = [(fact, self._problem(fact)) for fact in sound]
        good = [fact for fact, problem in problems if problem is None]
        if good:
            return good
        # What a revoker took back and what nobody signed are for the policy's own lists, not for a waiver.
        closed = any(self.case.revoked(fact) or self._unlisted(fact) for fact in sound)
        if not closed and waiver.excuse(
            self.case, self.requirement.id, self.target, {fact.identity for fact in sound}
        ):  # (5)
            return []
        for fact, problem in problems:
            outcome, message, got, expected = problem or ("undecided", "", None, None)
            self._say(
                f"evidence {short(fact.evidence_id)} {message}",
                outcome=outcome,
                got=got,
                expected=expected,
                remedy=self._command,
            )
        return []

    def _problem(self, fact: VerifiedFact) -> tuple[Outcome, str, str | None, str | None] | None:
        """What keeps a sound fact from satisfying the requirement: outcome, message, got, expected."""
        part = self.requirement.part
        if (reason := self.case.revoked(fact)) is not None:
            return "refused", f"was {reason} by a listed revoker", reason, "evidence that stands"
        if (unlisted := self._unlisted(fact)) is not None:
            return "refused", *unlisted
        if self.case.is_future(fact):
            return "undecided", "lies in the future", rfc3339(fact.time), f"at most {rfc3339(self.case.now)}"
        if self.case.is_older(fact, part.max_age):
            return "undecided", "is too old", f"signed {rfc3339(fact.time)}", f"younger than {span(part.max_age)}"
        if low := shortfall(fact, self.case.policy.assurance_of(self.requirement)):
            wanted = self.case.policy.assurance_of(self.requirement)
            return (
                "undecided",
                "has too little assurance",
                low,
                f"identity {wanted.identity}, log {wanted.log}, time {wanted.time}",
            )
        return self._weakness(fact)

    def _unlisted(self, fact: VerifiedFact) -> unsigned.Objection | None:
        return unsigned.objection(self.case.policy, fact, self.target, self.case.now)

    def _weakness(self, fact: VerifiedFact) -> tuple[Outcome, str, str | None, str | None] | None:
        """Strength: what the training account says about its own model is a declaration, whatever it claims."""
        wanted = self.requirement.part.strength
        if wanted is None:
            return None
        claimed = str(getattr(fact.predicate, "strength", "declared"))
        if wanted == "measured":
            trainers = self.case.trainers(self.target)
            if not trainers and self.requirement.part.of is None:
                return (
                    "undecided",
                    "cannot count as measured: no provenance says who trained",
                    None,
                    f"{_TRAINING} of this subject",
                )
            if person(fact.identity) in trainers:
                return (
                    "undecided",
                    "counts as declared: the training account signed it",
                    str(fact.identity),
                    "measured by another identity",
                )
        if claimed not in _STRENGTHS or _STRENGTHS.index(claimed) < _STRENGTHS.index(wanted):
            return "undecided", "is too weak a claim", claimed, wanted
        return None

    def _missing(self, found: Found) -> None:
        if waiver.excuse(self.case, self.requirement.id, self.target, (), due=self.requirement.by):
            return
        expected = " or ".join(map(str, self.requirement.by))
        about = f"{self.target.name} (sha256 {self.target.sha256[:16]}…)"
        if found.others:
            self._say(
                f"{self.requirement.short} about {about} is signed by nobody who may",
                outcome="refused",
                got=", ".join(sorted(map(str, found.others))),
                expected=expected,
                remedy=self._command,
            )
        else:
            self._say(
                f"no {self.requirement.short} evidence about {about}",
                expected=f"signed by {expected}",
                remedy=self._command,
            )

    @property
    def _command(self) -> str:
        """What makes the evidence that is asked for, about this target."""
        return self.case.hints.produce(self.requirement, self._input)

    @property
    def _input(self) -> Target | None:
        """The target, if it is not what the caller judges but an input named by digest."""
        return None if self.target is self.case.target else self.target

    def _say(
        self,
        message: str,
        *,
        outcome: Outcome = "undecided",
        got: str | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.case.say(
            self.requirement.id,
            message,
            outcome=outcome,
            got=got,
            expected=expected,
            remedy=remedy,
            control=self.requirement.control,
        )
