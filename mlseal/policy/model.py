"""A loaded policy: what `mlseal.policy.load` makes and the gate judges by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mlseal.evidence.identity import EmailDomain, Identity, RoleMember
from mlseal.evidence.keyholder import KeyHolder
from mlseal.evidence.predicates import dp_training, fairness, federated_training, human_approval, slsa_provenance
from mlseal.policy.cel import Condition
from mlseal.policy.names import matches
from mlseal.policy.schema import Assurance, Freeze, Opa, PolicyPart, RequirementPart, Signer, patterns

Matcher = Identity | EmailDomain | RoleMember | KeyHolder
TRAINING = (slsa_provenance.URI, dp_training.URI, federated_training.URI)
"""Predicate types by which somebody says that they made a model: each kind of training has its own."""
INPUTS = frozenset({*TRAINING, fairness.URI})
"""Predicate types that name, by digest, what they worked on; claimed lineage (data-provenance) is not among them."""


@dataclass(frozen=True)
class Rule:
    """One condition of a requirement; `origin` is the layer that states it, if it is another."""

    id: str
    message: str
    condition: Condition
    waivable: bool = True
    origin: str | None = None


@dataclass(frozen=True)
class Requirement:
    """One kind of evidence that must exist and hold.

    Attributes:
        id: names the requirement in verdicts, waivers, ``of`` and ``reviewed``.
        predicate_type: URI.
        short: short name of the predicate type.
        part: the keys of the file.
        rules: compiled ``when``.
        where: compiled ``where``: which results the requirement is about; None for all.
        origin: name of the layer that states it, if it is another.
    """

    id: str
    predicate_type: str
    short: str
    part: RequirementPart
    rules: tuple[Rule, ...] = ()
    where: Condition | None = None
    origin: str | None = None

    @property
    def by(self) -> tuple[Matcher, ...]:
        """Who may sign this evidence."""
        return matchers(self.part.by)

    @property
    def control(self) -> tuple[str, ...]:
        """The controls of outside frameworks that this serves."""
        return tuple(self.part.control or ())

    @property
    def is_approval(self) -> bool:
        """Whether people are asked, not programs."""
        return self.predicate_type == human_approval.URI

    @property
    def has_inputs(self) -> bool:
        """Whether its evidence names inputs by digest, so that ``of`` can follow them."""
        return self.predicate_type in INPUTS

    def binds(self, now: datetime) -> bool:
        """Whether it is in force at `now`, by ``effectiveOn``."""
        return self.part.effective_on is None or self.part.effective_on <= now


@dataclass(frozen=True)
class Policy:
    """A whole policy; ``sha256`` of the file's bytes is its identity.

    Of a layer, `part` and `require` hold what it takes over from `parent` too.
    """

    name: str
    sha256: str
    raw: bytes = field(repr=False)
    part: PolicyPart = field(repr=False)
    require: tuple[Requirement, ...]
    parent: Policy | None = None

    @property
    def layers(self) -> tuple[Policy, ...]:
        """This policy and those that it stands on, the narrowest first."""
        return (self, *(self.parent.layers if self.parent else ()))

    def stating(self, rule: str) -> str:
        """The name of the layer that states a rule: what a waiver of it must name."""
        stated = {r.id: r.origin for r in self.require} | {c.id: c.origin for r in self.require for c in r.rules}
        return stated.get(rule) or self.name

    @property
    def revokers(self) -> tuple[Matcher, ...]:
        """Who may take evidence back and sign revocation snapshots."""
        return matchers(self.part.revokers)

    @property
    def gate(self) -> tuple[Matcher, ...]:
        """The identities of gates, whose statements are never evidence."""
        return matchers(self.part.gate)

    @property
    def owners(self) -> tuple[Matcher, ...]:
        """Who may state who holds which role."""
        return matchers(self.part.ownership.by if self.part.ownership else None)

    @property
    def data_owners(self) -> tuple[Matcher, ...]:
        """Who may sign data policies: those under ``dataPolicy``, else those under ``ownership``."""
        return matchers(self.part.data_policy.by) if self.part.data_policy else self.owners

    @property
    def waivers(self) -> tuple[Matcher, ...]:
        """Who may excuse a rule."""
        return matchers(self.part.waivers.by if self.part.waivers else None)

    @property
    def engines(self) -> tuple[Opa, ...]:
        """The decisions of OPA servers that must be true besides."""
        return tuple(self.part.opa or ())

    @property
    def revocation_max_age(self) -> timedelta:
        """How old the revocation snapshot may be."""
        return self.part.revocation_max_age

    def assurance_of(self, requirement: Requirement) -> Assurance:
        """The least assurance for this requirement: its own, else the policy's."""
        return requirement.part.assurance or self.part.assurance

    def applies(self, facts: Mapping[str, str]) -> bool:
        """Whether this policy governs an action, given its canonical facts."""
        return any(matches(patterns(entry), facts, absent=True) for entry in self.part.applies or ())

    def exempts(self, facts: Mapping[str, str], now: datetime) -> str | None:
        """By whose decision and until when this action is ungoverned; None if it is not, or not any more."""
        for entry in self.part.ungoverned or ():
            if now < entry.until and matches(patterns(entry), facts, absent=False):
                return f"{entry.owner} until {entry.until:%Y-%m-%dT%H:%M:%SZ}"
        return None

    def binding(self, now: datetime) -> tuple[Requirement, ...]:
        """The requirements that are in force at `now`."""
        return tuple(requirement for requirement in self.require if requirement.binds(now))

    def frozen(self, facts: Mapping[str, str], now: datetime) -> Iterator[Freeze]:
        """The windows that are closed at `now` for an action with these canonical facts.

        What the action does not state counts as covered, so that leaving a fact out opens nothing.
        """
        for entry in self.part.freeze or ():
            if entry.since <= now < entry.until and matches(patterns(entry), facts, absent=True):
                yield entry

    def observes(self, now: datetime) -> bool:
        """Whether the policy only watches, at `now`."""
        return self.part.observe is not None and now < self.part.observe.until


def matchers(signers: list[Signer] | None) -> tuple[Matcher, ...]:
    """The identities of a list of signers; nobody for None."""
    return tuple(signer.matcher for signer in signers or ())
