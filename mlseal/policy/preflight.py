"""May this run use these data? Judged before it starts, by what the owners of its inputs signed.

1. The log is brought up to date. What an owner, a revoker or an approver signed and nobody shows stops the run: it may
   be the policy, its withdrawal or a rejection.
2. Data policies about the inputs are found by digest, of a directory also by the root that a renamed file leaves alone.
   Those of the owners that the policies in force list count (``dataPolicy``, else ``ownership``); where none lists any,
   everybody's, since they can only forbid. One that does not verify stops the run.
3. A superseded one is passed over if its signer has put a newer one in its place. Withdrawn or ended it allows nothing.
4. Each that stands must allow the run: purpose, who runs, privacy, what is put out, approvals. So the most restrictive
   wins, and a weaker second one lifts nothing.
5. Where one has a privacy budget, the run's part is reserved: signed, on the log, and looked at again there, since
   another run may have been faster (`mlseal.policy.budget`).

The verdict is a SLSA verification summary about the inputs. Whoever runs signs it, and its id goes into the evidence of
the run: it binds what was allowed to what was done, and is no gate's verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NoReturn

from mlseal.errors import RuleBroken, Withheld
from mlseal.evidence.archive import Archive
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import SKEW, Clock, parse_rfc3339, rfc3339, utcnow
from mlseal.evidence.digest import Measured
from mlseal.evidence.identity import Identity
from mlseal.evidence.leaves import Leaf
from mlseal.evidence.planning import Cleared, Plan, Privacy
from mlseal.evidence.predicates import data_policy, human_approval
from mlseal.evidence.revocation import NOTHING_REVOCABLE
from mlseal.evidence.verifying import VerifiedStatement
from mlseal.policy import budget
from mlseal.policy.budget import Account, Cost
from mlseal.policy.case import person, short, weakest
from mlseal.policy.model import Matcher, Policy
from mlseal.policy.verdict import Allowed, Input, Outcome, Reason, Refused, Undecided, Verdict, raise_for, to_statement

JUDGE_ID = "https://mlseal.dev/preflight/v0.1"
_OWNER = "/roles/owner"


@dataclass(frozen=True)
class Preflight:
    """The judge that `mlseal.stages.runner.run` asks; `policies` are those in force."""

    policies: Sequence[Policy]
    clock: Clock = utcnow

    def __call__(self, plan: Plan, archive: Archive) -> Cleared:
        """The signed-to-be verdict, or none where no owner and no policy asks for one.

        Raises `RuleBroken` (refused) or `Unchecked` (undecided) with every reason, and whatever keeps the evidence from
        being read.
        """
        archive.refresh()  # (1)
        judged = _Judgement(plan, tuple(self.policies), archive, self.clock)
        judged.run()
        asked = any(policy.part.data_policy for policy in self.policies)
        if not judged.found and not asked:
            return Cleared()
        verdict = judged.verdict()
        raise_for(verdict)
        standing = tuple(fact.evidence_id for fact in judged.standing)
        signed = to_statement(verdict, nonce=plan.run_id, judge=JUDGE_ID)
        if not judged.accounts or not isinstance(plan.releases, Privacy):
            return Cleared(signed, standing)
        reserved = budget.reservation(plan, plan.releases, judged.accounts)  # (5)
        return Cleared(signed, standing, reserved, judged.confirm)


def require_shown(plan: Plan, policies: Sequence[Policy], archive: Archive) -> None:
    """Step 1's demand alone, where nothing may have to be judged. Raises `Withheld`. `archive` is up to date."""
    _Judgement(plan, tuple(policies), archive, utcnow)._require_shown()  # noqa: SLF001 - of this module


@dataclass
class _Judgement:
    plan: Plan
    policies: tuple[Policy, ...]
    archive: Archive
    clock: Clock
    reasons: list[Reason] = field(default_factory=list)
    found: dict[str, VerifiedStatement] = field(default_factory=dict)
    standing: list[VerifiedStatement] = field(default_factory=list)
    read: list[VerifiedStatement] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.clock()
        self.owners: tuple[Matcher, ...] = tuple(m for policy in self.policies for m in policy.data_owners)
        self.revokers: tuple[Matcher, ...] = tuple(m for policy in self.policies for m in policy.revokers)
        self.hidden = self.archive.unresolved()

    def run(self) -> None:
        self._require_shown()
        for name, measured in self.plan.inputs.items():
            facts = self._facts(measured)  # (2)
            self.found |= {fact.evidence_id: fact for fact in facts}
            held = [fact for fact in facts if self._stands(fact, facts)]  # (3)
            self.standing += [fact for fact in held if fact not in self.standing]
            for fact in held:
                self._judge(fact, measured)  # (4)
            if not facts:
                self._missing(name, measured)

    def verdict(self) -> Verdict:
        outcomes = {reason.outcome for reason in self.reasons}
        kind = Refused if "refused" in outcomes else Undecided if "undecided" in outcomes else Allowed
        seen = [*self.found.values(), *self.read]
        subjects = {s.sha256: s for measured in self.plan.inputs.values() for s in measured.subjects}
        asked = [policy for policy in self.policies if policy.data_owners]
        return kind(
            reasons=tuple(self.reasons),
            inputs=tuple(dict.fromkeys(Input(f.evidence_id, f.bundle_sha256, f.predicate_type) for f in seen)),
            policies=tuple((policy.name, policy.sha256) for policy in asked),
            tree_size=self.archive.tree_size,
            assurance=weakest(seen),
            mode="enforce",
            action={
                "tool": "mlseal",
                "action": "run",
                "stage": self.plan.stage,
                **({"purpose": self.plan.purpose} if self.plan.purpose else {}),
            },
            time=self.now,
            subjects=budget.apart(subjects.values()),
        )

    # --- what there is ------------------------------------------------------------------------------------------------

    def _require_shown(self) -> None:
        """(1); where nobody is named as owner, whoever signs in that role of a private authority is taken for one."""
        for leaf in self.hidden:
            who = leaf.identity
            named = any(matcher.matches(who) for matcher in (*self.owners, *self.revokers))
            if named or (not self.owners and _in_owner_role(who)):
                self._withheld(leaf, "it may be a data policy or its withdrawal")

    def _withheld(self, leaf: Leaf, why: str) -> None:
        """Stop, unless the signer of `leaf` or a listed revoker took it back."""
        if not self.archive.accounted(leaf, self.revokers):
            self._missing_entry(leaf, why)

    def _missing_entry(self, leaf: Leaf, why: str) -> NoReturn:
        raise Withheld(
            f"the log holds evidence by {leaf.identity} that nobody shows: {why}",
            got=f"evidence {leaf.evidence_id}",
            expected=self.archive.store.where(leaf.evidence_id),
            remedy="put its bundle into the store (in a pipeline: connect known_evidence), or have it revoked",
        )

    def _facts(self, measured: Measured) -> list[VerifiedStatement]:
        found = []
        digests = {subject.sha256 for subject in measured.subjects}
        for bundle in self.archive.candidates(sorted(digests), [data_policy.URI]):
            leaf = self.archive.index.leaf(bundle.evidence_id)
            if leaf is None or (self.owners and not any(m.matches(leaf.identity) for m in self.owners)):
                continue
            found.append(self._verified(bundle, leaf.identity, digests))
            for hidden in self.hidden:
                if hidden.identity == leaf.identity:
                    self._withheld(hidden, "it may take their data policy back")
        return found

    def _verified(self, bundle: Bundle, signer: Identity, digests: set[str]) -> VerifiedStatement:
        about = [subject.sha256 for subject in bundle.statement.subjects if subject.sha256 in digests]
        return self.archive.verifier.verify(
            bundle,
            predicate_type=bundle.statement.predicate_type,
            identities=[signer],
            subjects=about,
            revocations=NOTHING_REVOCABLE,  # asked for by `_taken_back`, which tells superseded from withdrawn
        )

    def _taken_back(self, fact: VerifiedStatement) -> str | None:
        found = self.archive.revocations([fact.identity, *self.revokers]).of(fact.evidence_id)
        return found.reason if found else None

    # --- what stands --------------------------------------------------------------------------------------------------

    def _stands(self, fact: VerifiedStatement, facts: Sequence[VerifiedStatement]) -> bool:
        reason = self._taken_back(fact)
        if reason == "superseded" and any(
            other.identity == fact.identity and other.time > fact.time and self._taken_back(other) is None
            for other in facts
        ):
            return False
        if reason is not None:
            self._say(fact, "taken-back", f"was {reason}, so it allows nothing any more", got=reason)
        claim = _claim(fact)
        if fact.time > self.now + SKEW:
            self._say(fact, "time", "lies in the future", outcome="undecided", got=rfc3339(fact.time))
        if parse_rfc3339(claim.expires) <= self.now:
            self._say(fact, "expires", "has ended", got=claim.expires, expected=f"an end after {rfc3339(self.now)}")
        return True

    def _missing(self, name: str, measured: Measured) -> None:
        for policy in self.policies:
            if policy.part.data_policy is not None and policy.part.data_policy.required:
                self.reasons.append(
                    Reason(
                        "data-policy",
                        f"no owner says what may be done with input {name} (sha256 {measured.sha256[:16]}…)",
                        expected="a data policy by " + " or ".join(map(str, policy.data_owners)),
                        remedy="mlseal sign DATA --type data-policy --predicate FILE --role owner",
                        policy=policy.name,
                    )
                )

    # --- what is allowed ----------------------------------------------------------------------------------------------

    def _judge(self, fact: VerifiedStatement, measured: Measured) -> None:
        claim = _claim(fact)
        self._purpose(fact, claim)
        self._who(fact, claim)
        self._privacy(fact, claim)
        if claim.budget is not None and self.plan.releases != "digests":
            self._budget(fact, claim, claim.budget)
        self._export(fact, claim)
        if claim.approvals is not None:
            self._approvals(fact, claim.approvals, measured)

    def _purpose(self, fact: VerifiedStatement, claim: data_policy.Predicate) -> None:
        allowed = ", ".join(claim.purposes) or "no purpose at all"
        if self.plan.purpose is None:
            self._say(
                fact,
                "purpose",
                "allows some purposes only, and none is stated",
                outcome="undecided",
                expected=allowed,
                remedy=f"say why this runs: {self.plan.stating(claim.purposes)}",
            )
        elif self.plan.purpose not in claim.purposes:
            self._say(fact, "purpose", "does not allow this purpose", got=self.plan.purpose, expected=allowed)

    def _who(self, fact: VerifiedStatement, claim: data_policy.Predicate) -> None:
        listed = [who.matcher for who in claim.run_by or ()]
        if claim.run_by is not None and not any(matcher.matches(self.plan.by) for matcher in listed):
            self._say(
                fact,
                "run-by",
                "does not allow this identity to use the data",
                got=self.plan.by,
                expected=" or ".join(map(str, listed)) or "nobody",
                remedy="run it as a listed identity",
            )

    def _privacy(self, fact: VerifiedStatement, claim: data_policy.Predicate) -> None:
        least, kept = claim.minimum_privacy, self.plan.releases
        if least is None or kept == "digests":
            return
        expected = f"epsilon at most {least.max_epsilon}, delta at most {least.max_delta or 0}, for each {least.unit}"
        if not isinstance(kept, Privacy):
            self._say(
                fact,
                "privacy",
                f"demands differential privacy, and stage {self.plan.stage} keeps none",
                got="no bound",
                expected=expected,
                remedy="use a stage that keeps it, or ask the owner",
            )
            return
        within = Decimal(kept.epsilon) <= Decimal(least.max_epsilon) and Decimal(kept.delta) <= Decimal(
            least.max_delta or "0"
        )
        if not within or kept.unit.casefold() != least.unit.casefold():
            got = f"epsilon {kept.epsilon}, delta {kept.delta}, for each {kept.unit}"
            self._say(fact, "privacy", "demands more privacy than this run keeps", got=got, expected=expected)

    def _budget(self, fact: VerifiedStatement, claim: data_policy.Predicate, stated: data_policy.Budget) -> None:
        kept, account = self.plan.releases, Account.of(fact, stated)
        if not isinstance(kept, Privacy) or kept.unit.casefold() != account.unit:
            got = f"for each {kept.unit}" if isinstance(kept, Privacy) else f"stage {self.plan.stage}, without a bound"
            self._say(fact, "budget", "counts what runs give away", got=got, expected=f"a bound for each {stated.unit}")
            return
        runners = None if claim.run_by is None else [who.matcher for who in claim.run_by]
        # Whoever drew on the budget cannot hide that by taking it back; its owner can.
        released = self.archive.revocations([account.owner, *self.revokers])
        for leaf in self.hidden:
            listed = runners is None or any(matcher.matches(leaf.identity) for matcher in runners)
            if listed and released.of(leaf.evidence_id) is None:
                self._missing_entry(leaf, "it may draw on the privacy budget")
        known = budget.ledger(self.archive, account, self.revokers)
        self.read += [one.fact for one in known.reservations if one.fact not in self.read]
        wanted = Cost(Decimal(kept.epsilon), Decimal(kept.delta))
        if known.affords(wanted):
            self.accounts += [account] if account not in self.accounts else []
            return
        self._say(
            fact,
            "budget",
            f"has not enough of its privacy budget left for {wanted}",
            got=f"{known.spent} spent or reserved",
            expected=f"at most {account.limit} for each {stated.unit}",
            remedy="mlseal budget DATA shows who drew on it; the owner releases what was abandoned: mlseal revoke",
        )

    def confirm(self, reservation: str) -> None:
        """Look at the log again: the reservation came in time on each account, or `RuleBroken` is raised."""
        self.archive.refresh()
        for account in self.accounts:
            known = budget.ledger(self.archive, account, self.revokers)
            if not known.holds(reservation):
                raise RuleBroken(
                    "another run drew on the privacy budget first",
                    got=f"{known.spent} spent or reserved",
                    expected=f"at most {account.limit}",
                    remedy="run again: what is left is looked at anew",
                )

    def _export(self, fact: VerifiedStatement, claim: data_policy.Predicate) -> None:
        for name, kind in self.plan.outputs.items():
            if kind in claim.no_export:
                self._say(fact, "no-export", f"lets no {kind} be made of the data", got=f"output {name}")

    def _approvals(self, fact: VerifiedStatement, asked: data_policy.Approvals, measured: Measured) -> None:
        """Distinct people who approve the use of these bytes, the one who runs not among them; one rejection stops."""
        matchers = tuple(who.matcher for who in asked.by)
        for leaf in self.hidden:
            if any(matcher.matches(leaf.identity) for matcher in matchers):
                self._withheld(leaf, "it may be a rejection")
        people = {person(approval.identity) for approval in self._approving(fact, matchers, measured)}
        people -= {person(self.plan.by)}
        if len(people) < asked.distinct:
            self._say(
                fact,
                "approvals",
                f"wants approvals of {asked.distinct} people besides the one who runs",
                outcome="undecided",
                got=f"{len(people)}",
                expected=" or ".join(map(str, matchers)),
                remedy=f"mlseal approve DATA --evidence {fact.evidence_id}",
            )

    def _approving(
        self, fact: VerifiedStatement, matchers: tuple[Matcher, ...], measured: Measured
    ) -> Iterator[VerifiedStatement]:
        digests = {measured.sha256}
        for bundle in self.archive.candidates(sorted(digests), [human_approval.URI]):
            leaf = self.archive.index.leaf(bundle.evidence_id)
            if leaf is None or not any(matcher.matches(leaf.identity) for matcher in matchers):
                continue
            approval = self._verified(bundle, leaf.identity, digests)
            self.read.append(approval)
            claim = approval.predicate
            if not isinstance(claim, human_approval.Predicate) or parse_rfc3339(claim.expires) <= self.now:
                continue
            taken_back = self._taken_back(approval)
            if claim.decision != "approve":
                if taken_back is None:
                    self._say(fact, "approvals", "has a rejection", got=approval.identity, expected="approve")
            # Only who has read this data policy approves a use under it.
            elif taken_back is None and approval.time <= self.now + SKEW and fact.evidence_id in claim.reviewed:
                yield approval

    def _say(
        self,
        fact: VerifiedStatement,
        rule: str,
        message: str,
        *,
        outcome: Outcome = "refused",
        got: object = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.reasons.append(
            Reason(
                f"data-policy:{rule}",
                f"data policy {short(fact.evidence_id)} of {fact.identity.san} {message}",
                outcome,
                None if got is None else str(got),
                expected,
                remedy or "ask the owner of the data for another policy, or do not use them for this",
            )
        )


def _claim(fact: VerifiedStatement) -> data_policy.Predicate:
    claim = fact.predicate
    if not isinstance(claim, data_policy.Predicate):  # the verifier was asked for this type
        raise TypeError(type(claim).__name__)
    return claim


def _in_owner_role(who: Identity) -> bool:
    base = who.issuer.removesuffix("/issuer") + _OWNER
    return who.san == base or who.san.startswith(base + "/")
