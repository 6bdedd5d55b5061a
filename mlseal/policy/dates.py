"""Rules that depend on the day: windows in which an action is refused, and requirements that come into force later.

Both are judged by the gate's clock alone, without skew: no statement and no caller says what day it is. A requirement
that is not in force yet is judged all the same, aside, so that people see what it will ask for; it neither stops nor
counts as satisfied. A policy none of whose requirements is in force governs nothing yet, and so permits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from mlseal.errors import Error
from mlseal.evidence.clock import rfc3339
from mlseal.policy import approval, rule
from mlseal.policy.case import Case
from mlseal.policy.model import Policy, Requirement
from mlseal.policy.verdict import Reason

FREEZE = "freeze"
"""The rule under which a closed window stands in verdicts; no waiver can name it."""


def refusals(policies: Sequence[Policy], facts: Mapping[str, str], now: datetime) -> list[tuple[Policy, Reason]]:
    """One reason for each window that is closed for an action with these canonical facts, with the policy it is of."""
    return [
        (
            policy,
            Reason(
                FREEZE,
                f"frozen until {rfc3339(entry.until)}: {entry.reason}",
                "refused",
                got=rfc3339(now),
                expected=f"a time before {rfc3339(entry.since)} or from {rfc3339(entry.until)} on",
                remedy=f"wait until then, or have {entry.owner} change the window in policy {policy.name}",
                policy=policy.name,
            ),
        )
        for policy in policies
        for entry in policy.frozen(facts, now)
    ]


def judge(case: Case, requirement: Requirement) -> None:
    """Judge `requirement` if it is in force; if it is coming, add notes that say since when and what is missing."""
    if requirement.binds(case.now):
        (approval if requirement.is_approval else rule).judge(case, requirement)
        return
    aside = replace(case, reasons=[], support=dict(case.support), weighed={}, seen={}, counted={})
    try:
        (approval if requirement.is_approval else rule).judge(aside, requirement)
    except Error as error:
        aside.say(requirement.id, error.message, got=error.got, expected=error.expected, remedy=error.remedy)
    case.look_at(aside.seen.values())
    case.reasons += coming(case.policy, requirement)
    for reason in aside.reasons:
        if reason.outcome != "note":
            case.reasons.append(replace(reason, message=f"not yet asked, and open: {reason.message}", outcome="note"))


def coming(policy: Policy, requirement: Requirement) -> list[Reason]:
    """The note that `requirement` is not in force yet."""
    when = rfc3339(requirement.part.effective_on) if requirement.part.effective_on else "now"
    said = f"comes into force {when}; until then it neither stops anything nor counts as satisfied"
    return [Reason(requirement.id, said, "note", control=requirement.control, policy=policy.name)]
