"""OPA besides the rules: it can make a policy stricter, and never lets anything pass that the rules stop.

1. A decision is asked for only once every other rule of its policy holds, so that Rego always sees evidence that
   satisfies each requirement or that a waiver excuses; and where no window and no other policy that enforces stops the
   action, so that nothing that is refused anyway leaves the gate.
2. True adds nothing. False refuses, with each of its reasons. Anything else, and no answer at all, is undecided.
3. No waiver excuses any of it; whoever owns the Rego changes the Rego.
4. What was asked and what came back stands in the verdict: server, path, revision, decision id, digest of the document.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from mlseal.errors import Error
from mlseal.policy import document
from mlseal.policy.case import Case
from mlseal.policy.document import Document
from mlseal.policy.opa_answer import Said
from mlseal.policy.schema import Opa
from mlseal.policy.verdict import Asked


class Engines(Protocol):
    """Whoever answers for the decisions that policies name: servers, or a test that says what they say."""

    def ask(self, engine: Opa, document: Document) -> Said:
        """What the decision says about `document`. Raises `Error` for everything that does not count."""


def judge(case: Case, engines: Engines, *, stopped: bool = False) -> None:
    """Add to `case` every reason that the decisions of its policy give against it, and what was asked.

    `stopped` says that the action is stopped already, by whatever enforces.
    """
    own = any(reason.outcome != "note" for reason in case.reasons)
    if own or stopped:  # (1)
        by = "other rules of this policy stop" if own else "another policy or a closed window stops"
        for engine in case.policy.engines:
            case.say(
                engine.id,
                f"OPA was not asked, since {by} it already",
                outcome="note",
                control=tuple(engine.control or ()),
            )
        return
    for engine in case.policy.engines:
        _judge(case, engine, engines)


def _judge(case: Case, engine: Opa, engines: Engines) -> None:
    control = tuple(engine.control or ())
    shown = document.of(case)
    asked = Asked(case.policy.name, engine.id, engine.server, engine.decision, shown.sha256)
    try:
        said = engines.ask(engine, shown)
    except Error as error:  # (2)
        case.asked.append(asked)
        case.say(
            engine.id,
            error.message,
            got=error.got,
            expected=error.expected or "an answer",
            remedy=error.remedy or f"see why {engine.server} gives none",
            control=control,
        )
        return
    told = replace(asked, revision=said.revision, decision_id=said.decision_id)
    case.asked.append(replace(told, answer="allowed" if said.allow else "refused"))  # (4)
    for reason in () if said.allow else said.reasons or ("without saying why",):
        case.say(
            engine.id,
            f"OPA refuses: {reason}",
            outcome="refused",
            got=f"{engine.decision} is false" + (f", decision {said.decision_id}" if said.decision_id else ""),
            expected="true",
            remedy="change the subject, or have whoever owns the Rego change it; "
            f"what it is shown: {case.hints.show(case.policy.name)}",
            control=control,
        )
