"""The ledger of a privacy budget: what its owner allows, what runs have set aside, what became of it.

An account is one owner's budget for one cohort and unit. Runs draw on it by *reservations*, signed and on the log
before they start. Each costs

* what the evidence of the same identity that names it says was spent, if there is any (all of it, added up);
* nothing, if the owner or a revoker that a policy lists took it back, or if it came too late: at its place in the log
  the budget that it names was used up by those before it, so its run never started;
* all that it set aside otherwise. An abandoned reservation so counts as spent until the owner releases it. Whoever made
  it cannot: they could train, keep the model, and take the reservation back.

Costs are added up, epsilons and deltas, as exact decimals. That is basic composition (C. Dwork, A. Roth, The
Algorithmic Foundations of Differential Privacy, 2014, theorem 3.16), the most careful of the known bounds: it holds
whatever the mechanisms were, and never says less than was lost under their premises.

The order is the log's, so everybody who reads the log finds the same winners. What nobody shows might be a reservation:
then the budget is not known, and nothing is allowed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

from mlseal.errors import Refusal
from mlseal.evidence import statement
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.digest import Measured, Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.planning import Plan, Privacy
from mlseal.evidence.predicates import budget_reservation, data_policy
from mlseal.evidence.predicates.base import Preflight
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.statement import Statement
from mlseal.evidence.verifying import VerifiedStatement
from mlseal.policy.model import Matcher

_EXACT = Context(prec=200)  # sums of decimals of 36 digits; never rounded below 10^160 of them
_NOT_PROVEN = (
    "that the run happened, or kept the privacy that it set aside",
    "what was made of the data without a reservation: before the budget was stated, or past every gate",
)
Order = tuple[int, int]
"""Where an entry stands: which log, oldest first, and its place there."""


@dataclass(frozen=True)
class Cost:
    """Epsilon and delta of each unit."""

    epsilon: Decimal = Decimal(0)
    delta: Decimal = Decimal(0)

    def __add__(self, other: Cost) -> Cost:
        with localcontext(_EXACT):
            return Cost(self.epsilon + other.epsilon, self.delta + other.delta)

    def within(self, limit: Cost) -> bool:
        """Whether both are at most those of `limit`."""
        return self.epsilon <= limit.epsilon and self.delta <= limit.delta

    def to_json(self) -> dict[str, str]:
        """Both as exact decimal texts."""
        return {"epsilon": f"{self.epsilon:f}", "delta": f"{self.delta:f}"}

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:f}, delta {self.delta:f}"


@dataclass(frozen=True)
class Account:
    """One budget: whose it is, for whom, under which data policy, how much."""

    owner: Identity
    cohort: str
    unit: str
    stated_in: str
    limit: Cost

    @classmethod
    def of(cls, fact: VerifiedStatement, budget: data_policy.Budget) -> Account:
        """The account that a data policy opens. Data without a cohort are known by the digest that a rename keeps."""
        cohort = budget.cohort or f"sha256:{fact.subjects[0].sha256}"
        limit = Cost(Decimal(budget.max_epsilon), Decimal(budget.max_delta))
        return cls(fact.identity, cohort, budget.unit.casefold(), fact.evidence_id, limit)

    def drawn_by(self, claim: budget_reservation.Predicate) -> Cost | None:
        """The budget that a reservation names if it draws on this account; None if it does not."""
        for one in claim.accounts:
            same = (Identity(one.owner.issuer, one.owner.san), one.cohort) == (self.owner, self.cohort)
            if same and claim.unit.casefold() == self.unit:
                return Cost(Decimal(one.max_epsilon), Decimal(one.max_delta))
        return None


@dataclass(frozen=True)
class Reservation:
    """A verified reservation on one account.

    Attributes:
        fact: what was verified.
        at: where it stands.
        reserved: what it set aside.
        limit: the budget that it named.
        settled: what evidence says was spent, with its place.
        released: whether the owner or a revoker took it back.
    """

    fact: VerifiedStatement
    at: Order
    reserved: Cost
    limit: Cost
    settled: tuple[tuple[Order, Cost], ...]
    released: bool

    def cost(self, before: Order | None = None) -> Cost:
        """What it costs, seen from the place `before`, or from now."""
        said = [cost for at, cost in self.settled if before is None or at < before]
        if said:
            return sum(said, Cost())
        return Cost() if self.released else self.reserved


class Ledger:
    """The reservations on one account, in the order of the log."""

    def __init__(self, account: Account, reservations: Iterable[Reservation]) -> None:
        self.account = account
        self.reservations = sorted(reservations, key=lambda one: one.at)
        self.granted: list[Reservation] = []
        for one in self.reservations:
            before = sum((other.cost(one.at) for other in self.granted), Cost())
            if one.settled or (before + one.reserved).within(one.limit):
                self.granted.append(one)

    @property
    def spent(self) -> Cost:
        """What is spent or set aside now."""
        return sum((one.cost() for one in self.granted), Cost())

    def affords(self, wanted: Cost) -> bool:
        """Whether `wanted` fits into what is left."""
        return (self.spent + wanted).within(self.account.limit)

    def holds(self, evidence_id: str) -> bool:
        """Whether that reservation came in time."""
        return any(one.fact.evidence_id == evidence_id for one in self.granted)


def accounts_of(archive: Archive, measured: Measured, revokers: Sequence[Matcher]) -> list[Account]:
    """The budgets that data policies state for these data, but for those that were taken back."""
    found: list[Account] = []
    digests = sorted({subject.sha256 for subject in measured.subjects})
    for bundle in archive.candidates(digests, [data_policy.URI]):
        fact = _verified(archive, bundle)
        stated = fact.predicate.budget if fact and isinstance(fact.predicate, data_policy.Predicate) else None
        if fact is None or stated is None:
            continue
        if archive.revocations([fact.identity, *revokers]).of(fact.evidence_id) is None:
            found.append(Account.of(fact, stated))
    return found


def ledger(archive: Archive, account: Account, revokers: Sequence[Matcher]) -> Ledger:
    """The ledger of `account` from the log as it was read last.

    A reservation counts whoever made it, until the owner releases it. Raises `Refusal` for one that does not verify and
    `Withheld` for one that is known and gone.
    """
    taken_back = archive.revocations([account.owner, *revokers])
    found = []
    for bundle in archive.of_type([budget_reservation.URI]):
        released = taken_back.of(bundle.statement.evidence_id) is not None
        try:
            fact = _verified(archive, bundle)
        except Refusal:
            if released:  # so that nobody can stop an owner's data for good by signing what cannot be read
                continue
            raise
        claim = fact.predicate if fact else None
        if fact is None or not isinstance(claim, budget_reservation.Predicate):
            continue
        limit = account.drawn_by(claim)
        if limit is not None:
            at, reserved = _place(archive, fact.evidence_id), Cost(Decimal(claim.epsilon), Decimal(claim.delta))
            settled = tuple(_settlements(archive, fact, claim.predicate_type, reserved))
            found.append(Reservation(fact, at, reserved, limit, settled, released))
    return Ledger(account, found)


def reservation(plan: Plan, privacy: Privacy, accounts: Sequence[Account]) -> Statement:
    """The statement that sets `privacy` aside on `accounts`, about the inputs of `plan`."""
    subjects = {s.sha256: s for measured in plan.inputs.values() for s in measured.subjects}
    drawn = [
        budget_reservation.Account(
            data_policy=one.stated_in,
            owner=budget_reservation.Owner(issuer=one.owner.issuer, san=one.owner.san),
            cohort=one.cohort,
            max_epsilon=f"{one.limit.epsilon:f}",
            max_delta=f"{one.limit.delta:f}",
        )
        for one in accounts
    ]
    claim = budget_reservation.Predicate(
        stage=plan.stage,
        predicate_type=plan.predicate_type,
        run_id=plan.run_id,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        unit=privacy.unit,
        accounts=drawn,
        not_proven=list(_NOT_PROVEN),
        nonce=secrets.token_hex(16),
    )
    return statement.make(apart(subjects.values()), budget_reservation.URI, claim.to_json())


def apart(subjects: Iterable[Subject]) -> tuple[Subject, ...]:
    """Subjects with a name each: a statement has no two of one name, and two inputs may be called alike."""
    named: dict[str, Subject] = {}
    for subject in subjects:
        name = subject.name if subject.name not in named else f"{subject.name} ({subject.sha256[:16]})"
        named[name] = Subject(name, subject.sha256)
    return tuple(named.values())


def _settlements(
    archive: Archive, fact: VerifiedStatement, predicate_type: str, reserved: Cost
) -> Iterable[tuple[Order, Cost]]:
    """What evidence of whoever reserved says was spent; evidence that names no amount spent all."""
    for evidence_id in archive.index.of_type([predicate_type]):
        if not archive.signed_by(evidence_id, [fact.identity]):
            continue
        bundle = archive.store.get(evidence_id)
        named = bundle.statement.predicate.get("preflight")
        if not isinstance(named, dict) or named.get("reservation") != fact.evidence_id:
            continue
        verified = _verified(archive, bundle)
        preflight = getattr(verified.predicate, "preflight", None) if verified else None
        if isinstance(preflight, Preflight):
            spent = preflight.spent
            cost = Cost(Decimal(spent.epsilon), Decimal(spent.delta)) if spent else reserved
            yield _place(archive, evidence_id), cost


def _verified(archive: Archive, bundle: Bundle) -> VerifiedStatement | None:
    """`bundle` verified as of whoever the log says signed it; None if the log does not hold it."""
    said = bundle.statement
    leaf = archive.index.leaf(said.evidence_id)
    if leaf is None:
        return None
    return archive.verifier.verify(
        bundle,
        predicate_type=said.predicate_type,
        identities=[leaf.identity],
        subjects=[said.subjects[0].sha256],
        revocations=NOTHING_REVOCABLE,
    )


def _place(archive: Archive, evidence_id: str) -> Order:
    leaf = archive.index.leaf(evidence_id)
    assert leaf is not None  # only what the log holds gets here
    return [log.origin for log in archive.trust.logs].index(leaf.origin), leaf.index
