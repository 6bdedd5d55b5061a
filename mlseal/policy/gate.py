"""The gate: may this subject do this? Fail closed at every step.

1. The action's names must be canonical: printable ASCII, compared without case.
2. The policies that apply are found. None: refused, unless an exemption names owner and end. Several: all must allow.
   What a policy extends is judged besides (`layers`).
   A window that is closed for the action refuses it (`dates`), also where an exemption would let it pass.
3. The log is brought up to date; what it holds and nobody shows leaves the verdict undecided.
4. What was revoked must be known freshly enough.
5. Each requirement is judged in the order of the file (`rule`, `approval`); waivers are looked up where a rule fails.
   One that comes into force later is noted only.
6. Decisions of OPA servers that a policy names are asked for once all else in it holds and nothing else stops (`opa`).
7. Refused outweighs undecided, undecided outweighs allowed; an observing policy's objections are recorded only.

`decide` is pure where no policy names such a decision: facts in, verdict out. `judge` gives it verified statements from
an archive, and servers to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from mlseal.errors import Error, Misuse, Refusal
from mlseal.evidence.archive import Archive
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import Measured, Subject
from mlseal.evidence.store import relative
from mlseal.policy import dates, document, opa
from mlseal.policy.case import Case, weakest
from mlseal.policy.facts import Source, Target, VerifiedFact
from mlseal.policy.layers import governing, with_layers
from mlseal.policy.model import Matcher, Policy
from mlseal.policy.names import Action, canonical_facts
from mlseal.policy.opa_server import Servers
from mlseal.policy.remedies import Hints, nearest
from mlseal.policy.source import ArchiveSource
from mlseal.policy.verdict import Allowed, Asked, Input, Reason, Refused, Undecided, Verdict

__all__ = ["Action", "decide", "documents", "judge"]


def judge(
    subject: Measured | Sequence[Subject],
    action: Action | None,
    policies: Sequence[Policy],
    archive: Archive,
    *,
    clock: Clock = utcnow,
    gate: Sequence[Matcher] = (),
    hints: Hints | None = None,
) -> Verdict:
    """Judge what was measured from bytes, by the evidence in `archive`, brought up to date first.

    Args:
        subject: result of `measure`, or its subjects; the last of them binds everything.
        action: what is about to happen; None when the caller chose the policies, which then all apply.
        policies: those in force, from `load_all`; the caller does not filter them.
        archive: trust, store, index.
        clock: the injected clock.
        gate: the judge's own identities, beside those the policies list; what they signed is no evidence.
        hints: path and policy file, for the commands in remedies.

    Never raises for what the evidence is; whatever cannot be checked is a reason of an undecided verdict.
    """
    subjects = tuple(subject.subjects if isinstance(subject, Measured) else subject)
    if not subjects:
        raise Misuse("nothing to judge", expected="at least one subject", remedy="measure the bytes first")
    manifest = subject.manifest if isinstance(subject, Measured) else None
    target = Target(subjects[0].name, subjects[-1].sha256, manifest)
    chosen = hints or Hints(path=str(subject.path) if isinstance(subject, Measured) else subjects[0].name)
    try:
        archive.refresh()  # (3)
    except Error as error:
        governing = _matching(policies, action)
        verdict = _verdict([_failure("log", error)], [], (), governing, 0, action, clock(), observing=False)
    else:
        verdict = decide(ArchiveSource(archive), target, action, policies, now=clock(), gate=gate, hints=chosen)
    return replace(verdict, subjects=subjects)


def decide(
    source: Source,
    target: Target,
    action: Action | None,
    policies: Sequence[Policy],
    *,
    now: datetime,
    gate: Sequence[Matcher] = (),
    hints: Hints | None = None,
    engines: opa.Engines | None = None,
) -> Verdict:
    """The verdict on `target`, from what `source` shows; see the module for the steps.

    `engines` answer for decisions under ``opa``; without them the servers that the policies name are asked.
    """
    try:
        facts = canonical_facts(action) if action else {}  # (1)
    except ValueError as error:
        reason = Reason("name", str(error), "refused", expected="a plain ASCII name", remedy="choose another name")
        return _verdict([reason], [], (), policies, source.tree_size, action, now, observing=False)
    policies = with_layers(policies)
    matching = governing(policies, facts if action else None)  # (2)
    told = hints or Hints()
    frozen = dates.refusals(policies, facts, now)
    if not any(policy.binding(now) for policy in matching):
        return _ungoverned(source, facts, action, policies, now, told, frozen)
    gates = (*gate, *(m for p in policies for m in p.gate))
    cases = [
        _case(source, target, policy, now, gates, told, facts if action else None)
        for policy in matching
        if policy.require
    ]
    answering = engines or Servers()
    stopped = any(not policy.observes(now) for policy in _stopping(cases, frozen))  # what observes excuses no question
    for case in cases:
        _ask(case, answering, stopped=stopped)  # (6)
    stopping = _stopping(cases, frozen)
    observing = bool(stopping) and all(policy.observes(now) for policy in stopping)
    seen = {k: v for case in cases for k, v in case.seen.items()}
    weighed = {k: v for case in cases for k, v in case.weighed.items()}
    inputs = [Input(fact.evidence_id, fact.bundle_sha256, fact.predicate_type) for fact in seen.values()]
    inputs += [i for case in cases if case.policy.revokers for i in source.revocation_inputs(case.policy.revokers)]
    reasons = [reason for _, reason in frozen] + [reason for case in cases for reason in case.reasons]
    named = tuple(p for p in policies if p in matching or p in [policy for policy, _ in frozen])
    asked = tuple(one for case in cases for one in case.asked)
    return _verdict(
        reasons, list(weighed.values()), inputs, named, source.tree_size, action, now, observing=observing, asked=asked
    )


def documents(
    subject: Measured | Sequence[Subject],
    action: Action | None,
    policies: Sequence[Policy],
    archive: Archive,
    *,
    clock: Clock = utcnow,
    gate: Sequence[Matcher] = (),
) -> Mapping[str, tuple[document.Document, tuple[Reason, ...]]]:
    """What OPA servers would be shown now, by policy that governs, and why they would not be asked; asks none.

    A policy that is not satisfied has a document too, without the evidence that is missing: for whoever writes Rego.
    Raises `Error` if the log cannot be read or names are not canonical.
    """
    subjects = tuple(subject.subjects if isinstance(subject, Measured) else subject)
    target = Target(subjects[0].name, subjects[-1].sha256, subject.manifest if isinstance(subject, Measured) else None)
    archive.refresh()
    source, now = ArchiveSource(archive), clock()
    policies = with_layers(policies)
    try:
        facts = canonical_facts(action) if action else None
    except ValueError as error:
        raise Misuse(str(error), expected="plain ASCII names") from error
    gates = (*gate, *(m for p in policies for m in p.gate))
    cases = [_case(source, target, p, now, gates, Hints(), facts) for p in governing(policies, facts) if p.require]
    frozen = [reason for p, reason in dates.refusals(policies, facts or {}, now) if not p.observes(now)]
    others = [(case.policy.name, reason) for case in cases if not case.policy.observes(now) for reason in case.reasons]
    return {
        case.policy.name: (
            document.of(case),
            (*case.reasons, *frozen, *(reason for name, reason in others if name != case.policy.name)),
        )
        for case in cases
    }


def _matching(policies: Sequence[Policy], action: Action | None) -> tuple[Policy, ...]:
    """Those that govern `action`; all where none does or its names are not canonical, for they were asked."""
    try:
        facts = canonical_facts(action) if action else {}
    except ValueError:
        return tuple(policies)
    return governing(policies, facts if action else None) or tuple(policies)


def _case(
    source: Source,
    target: Target,
    policy: Policy,
    now: datetime,
    gate: tuple[Matcher, ...],
    hints: Hints,
    facts: Mapping[str, str] | None,
) -> Case:
    """Everything that one policy has to say."""
    try:
        revocations = source.revocations(policy.revokers)
    except Error as error:
        from mlseal.evidence.revocation import Revocations

        case = Case(policy, source, target, now, Revocations(), gate, hints, action=facts)
        case.reasons.append(replace(_failure("revocations", error), policy=policy.name))
        return case
    case = Case(policy, source, target, now, revocations, gate, hints, action=facts)
    try:
        if policy.binding(now):  # what is not in force yet stops nothing
            _require_complete(case)  # (3)
            _require_fresh_revocations(case)  # (4)
        for requirement in policy.require:  # (5)
            dates.judge(case, requirement)
    except Error as error:
        case.reasons.append(replace(_failure("gate", error), policy=policy.name))
    return case


def _stopping(cases: Sequence[Case], frozen: Sequence[tuple[Policy, Reason]]) -> list[Policy]:
    """The policies that say no by now."""
    stopping = [case.policy for case in cases if any(reason.outcome != "note" for reason in case.reasons)]
    return stopping + [policy for policy, _ in frozen]


def _ask(case: Case, engines: opa.Engines, *, stopped: bool) -> None:
    if not case.policy.binding(case.now):  # what is not in force yet stops nothing
        return
    try:
        opa.judge(case, engines, stopped=stopped)
    except Error as error:
        case.reasons.append(replace(_failure("opa", error), policy=case.policy.name))


def _require_complete(case: Case) -> None:
    withheld = case.source.unresolved(case.revocations)
    elsewhere = case.source.elsewhere() if withheld else None
    if elsewhere is not None:  # taking back what lies in another directory would destroy it
        case.say(
            "log",
            f"the log holds evidence that nobody shows: {elsewhere.why}",
            got=f"{len(withheld)} of its entries without a bundle",
            expected="the store with the bundles of this log",
            remedy=elsewhere.remedy,
        )
        return
    for leaf in withheld:
        case.say(
            "log",
            f"the log holds evidence that nobody shows: leaf {leaf.index} of {leaf.origin}",
            got=f"evidence {leaf.evidence_id} signed by {leaf.identity}",
            expected=f"its bundle, whole: {relative(leaf.evidence_id)} in the store",
            remedy="copy the bundle into the store; never published: mlseal log recover, as its signer; lost: "
            f"mlseal revoke {leaf.evidence_id}, as a listed revoker",
        )


def _require_fresh_revocations(case: Case) -> None:
    if not case.policy.revokers:
        case.say(
            "revocations",
            "the policy lists nobody who may revoke, so no snapshot can be believed",
            expected="revokers in the policy",
            remedy="list the monitor's identity under revokers",
        )
        return
    try:
        case.revocations.require_fresh(case.policy.revocation_max_age, case.now)
    except Error as error:
        case.reasons.append(replace(_failure("revocations", error), policy=case.policy.name))


def _ungoverned(
    source: Source,
    facts: dict[str, str],
    action: Action | None,
    policies: Sequence[Policy],
    now: datetime,
    hints: Hints,
    frozen: Sequence[tuple[Policy, Reason]],
) -> Verdict:
    """Default deny, unless an exemption names owner and end. The verdict names the policies that were asked."""
    exempt = [(policy, who) for policy in policies if action is not None and (who := policy.exempts(facts, now))]
    closed = [reason for _, reason in frozen]
    if exempt:
        note = Reason(
            "applies",
            "no policy governs this action",
            "note",
            got=f"exempted by {exempt[0][1]}",
            policy=exempt[0][0].name,
        )
        named = dict.fromkeys(policy.sha256 for policy, _ in (*exempt, *frozen))
        asked = tuple(policy for policy in policies if policy.sha256 in named)
        observing = bool(frozen) and all(policy.observes(now) for policy, _ in frozen)
        return _verdict([*closed, note], [], (), asked, source.tree_size, action, now, observing=observing)
    reason = Reason(
        "applies",
        "no policy governs this action, so it is refused",
        "refused",
        got=str(action) if action else "no policy",
        expected="a policy whose applies covers it" + nearest(policies, facts),
        remedy=hints.govern(action.items if action else {}),
    )
    waiting = [
        note
        for policy in policies
        if action is None or policy.applies(facts)
        for requirement in policy.require
        for note in dates.coming(policy, requirement)
    ]
    return _verdict([*closed, reason, *waiting], [], (), policies, source.tree_size, action, now, observing=False)


def _verdict(
    reasons: list[Reason],
    facts: Sequence[VerifiedFact],
    inputs: Sequence[Input],
    policies: Sequence[Policy],
    tree_size: int,
    action: Action | None,
    now: datetime,
    *,
    observing: bool,
    asked: tuple[Asked, ...] = (),
) -> Verdict:
    """The one place where a verdict is made (7); `facts` are those that counted, `inputs` all that was looked at."""
    outcomes = {reason.outcome for reason in reasons}
    kind = Refused if "refused" in outcomes else Undecided if "undecided" in outcomes else Allowed
    return kind(
        reasons=tuple(sorted(reasons, key=lambda r: r.outcome == "note")),
        inputs=tuple(dict.fromkeys(inputs)),
        policies=tuple((policy.name, policy.sha256) for policy in policies),
        tree_size=tree_size,
        assurance=weakest(facts),
        mode="observe" if observing else "enforce",
        action=(action or Action("mlseal", "gate")).items,
        time=now,
        asked=asked,
    )


def _failure(name: str, error: Error) -> Reason:
    outcome = "refused" if isinstance(error, Refusal) else "undecided"
    return Reason(
        name,
        error.message,
        "refused" if outcome == "refused" else "undecided",
        error.got,
        error.expected,
        error.remedy or "find the cause with 'mlseal doctor', mend it, and judge again",
    )
