"""One policy, one subject, one moment: what the parts of a judgement share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlseal.errors import Refusal
from mlseal.evidence.clock import SKEW, parse_rfc3339
from mlseal.evidence.identity import PSEUDONYM, Identity
from mlseal.evidence.revocation import Revocations
from mlseal.policy.facts import Found, Source, Target, VerifiedFact
from mlseal.policy.model import TRAINING, Matcher, Policy
from mlseal.policy.remedies import Hints
from mlseal.policy.verdict import Asked, Outcome, Reason

_LEVELS = {
    "identity": ("local", "key", "verified-token"),
    "log": ("unwitnessed", "pinned", "witnessed"),
    "time": ("local", "independent"),
}


@dataclass
class Case:
    """The judging of one policy.

    Attributes:
        gate: identities whose statements are not evidence: those the policy lists and the judge's own.
        support: by requirement id, the facts that satisfied it; what ``of`` and ``reviewed`` refer to.
        weighed: every fact that counted, satisfying or not; the verdict's assurance is that of the weakest of them.
        seen: every fact that was looked at, the set-aside included; the inputs of the verdict.
        action: canonical facts of the action, tool and action among them; None when the caller chose the policies.
        counted: by requirement id, every fact that counted for it, satisfying or not; what an OPA server is shown.
        asked: the decisions of OPA servers.
    """

    policy: Policy
    source: Source
    target: Target
    now: datetime
    revocations: Revocations
    gate: tuple[Matcher, ...]
    hints: Hints
    reasons: list[Reason] = field(default_factory=list)
    support: dict[str, tuple[VerifiedFact, ...]] = field(default_factory=dict)
    weighed: dict[str, VerifiedFact] = field(default_factory=dict)
    seen: dict[str, VerifiedFact] = field(default_factory=dict)
    action: Mapping[str, str] | None = None
    counted: dict[str, dict[str, VerifiedFact]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def say(
        self,
        rule: str,
        message: str,
        *,
        outcome: Outcome = "undecided",
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
        control: tuple[str, ...] = (),
    ) -> None:
        """Add a reason; an equal one is not repeated."""
        reason = Reason(
            rule,
            message,
            outcome,
            None if got is None else str(got),
            None if expected is None else str(expected),
            remedy,
            control,
            self.policy.name,
        )
        if reason not in self.reasons:
            self.reasons.append(reason)

    def find(self, rule: str, target: Target, predicate_type: str, by: tuple[Matcher, ...], remedy: str) -> Found:
        """Evidence by `by`, without the gate's; what does not verify becomes a reason of its own.

        `remedy` is the command that makes such evidence, for when only the gate signed any.
        """
        found = self.source.find(target, predicate_type, by) if by else Found()
        for rejected in found.rejected:
            error = rejected.error
            self.say(
                rule,
                f"evidence {short(rejected.evidence_id)} does not verify: {error.message}",
                outcome="refused" if isinstance(error, Refusal) else "undecided",
                got=error.got,
                expected=error.expected,
                remedy=error.remedy or "restore the bundle from a copy",
            )
        own = tuple(fact for fact in found.facts if self.is_gate(fact.identity))
        facts = tuple(fact for fact in found.facts if not self.is_gate(fact.identity))
        if own and not facts:
            self.look_at(own)
            self.say(
                rule,
                "the gate is not a producer: its own statements are no evidence",
                outcome="refused",
                got=own[0].identity,
                expected="another identity",
                remedy=remedy,
            )
        return Found(facts, found.rejected, found.others)

    def trainers(self, target: Target) -> set[tuple[str, str]]:
        """Everyone who stated to have made `target`, by any kind of training and whether listed or not, as people."""
        return {person(who) for kind in TRAINING for who in self.source.signers(target, kind)}

    def is_gate(self, identity: Identity) -> bool:
        """Whether this is a gate, whose word is a verdict and not evidence."""
        return any(matcher.matches(identity) for matcher in self.gate)

    def weigh(self, facts: Iterable[VerifiedFact], requirement: str | None = None) -> None:
        """Note that these count, for or against; `requirement` is what they were collected for."""
        counted = {fact.evidence_id: fact for fact in facts}
        if requirement is not None:
            self.counted.setdefault(requirement, {}).update(counted)
        self.weighed.update(counted)
        self.seen.update(counted)

    def look_at(self, facts: Iterable[VerifiedFact]) -> None:
        """Note that these were looked at: the verdict lists them, whether they count or were set aside."""
        self.seen.update({fact.evidence_id: fact for fact in facts})

    def without_superseded(self, facts: tuple[VerifiedFact, ...]) -> tuple[VerifiedFact, ...]:
        """The facts that count: a superseded one only while nothing newer of its kind stands in its place."""
        return tuple(
            fact for fact in facts if not (self.revoked(fact) == "superseded" and self._has_successor(fact, facts))
        )

    def revoked(self, fact: VerifiedFact) -> str | None:
        """The reason for which this evidence was taken back."""
        found = self.revocations.of(fact.evidence_id)
        return found.reason if found else None

    def is_future(self, fact: VerifiedFact) -> bool:
        """Whether the verified time lies ahead of the clock by more than the skew."""
        return fact.time > self.now + SKEW

    def is_older(self, fact: VerifiedFact, max_age: timedelta | None) -> bool:
        """Whether the verified time is older than `max_age`, the skew allowed."""
        return max_age is not None and self.now - fact.time > max_age + SKEW

    def has_ended(self, moment: str) -> bool:
        """Whether a time stated by the signer has passed. No skew: it may end a minute early, not late."""
        return parse_rfc3339(moment) <= self.now

    def _has_successor(self, fact: VerifiedFact, facts: tuple[VerifiedFact, ...]) -> bool:
        return any(other.time > fact.time and self.revoked(other) is None for other in facts)


def shortfall(fact: VerifiedFact, wanted: object) -> str | None:
    """Which assurance axes of `fact` are below `wanted`, as words; None if none is. An unknown level is below all."""
    low = [
        f"{axis} {getattr(fact.assurance, axis)}"
        for axis, levels in _LEVELS.items()
        if _rank(levels, getattr(fact.assurance, axis)) < _rank(levels, getattr(wanted, axis))
    ]
    return ", ".join(low) or None


def weakest(facts: Iterable[VerifiedFact]) -> dict[str, str]:
    """The lowest level on each axis among `facts`; the lowest there is if there are none."""
    held = list(facts)
    return {
        axis: min(
            (str(getattr(fact.assurance, axis)) for fact in held),
            key=lambda level: _rank(levels, level),
            default=levels[0],
        )
        for axis, levels in _LEVELS.items()
    }


def person(identity: Identity) -> tuple[str, str]:
    """(issuer, subject) as one compares people: letter case makes no second one, nor a pseudonym's other roles."""
    last = identity.san.rpartition("/")[2]
    return identity.issuer, last if PSEUDONYM.fullmatch(last) else identity.san.casefold()


def span(age: timedelta | None) -> str:
    """A timedelta as policies write it: ``30d``, ``24h``, ``15m``."""
    minutes = int((age or timedelta()).total_seconds()) // 60
    for unit, size in (("d", 1440), ("h", 60)):
        if minutes and minutes % size == 0 and minutes > size:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"


def short(evidence_id: str) -> str:
    """An evidence id as people read it; enough of it to find the bundle."""
    return f"{evidence_id[:16]}…"


def _rank(levels: tuple[str, ...], level: str) -> int:
    return levels.index(level) if level in levels else -1
