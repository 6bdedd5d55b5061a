"""Preflight over imagined evidence, one scene for each check: `test_mutants` takes each check out and runs these.

The same with a real authority, log and runner is `test_preflight`. What is imagined here is an archive that answers as
`mlseal.evidence.archive.Archive` does; nothing before `refresh` is shown.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlseal.errors import RuleBroken, Unchecked, Withheld
from mlseal.evidence.digest import Measured, Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.planning import Plan, Privacy
from mlseal.evidence.predicates import data_policy, human_approval
from mlseal.evidence.revocation import Revocation, Revocations
from mlseal.policy import samples
from mlseal.policy.load import parse
from mlseal.policy.preflight import Preflight

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
END, ENDED = "2027-01-01T00:00:00Z", "2026-11-24T12:00:00Z"
ISSUER = "https://team.example/issuer"
DATA, ROOT = samples.digest("data"), samples.digest("root of data")


def role(name: str) -> Identity:
    return Identity(ISSUER, f"https://team.example/roles/{name}")


OWNER, TRAINER, MONITOR = role("owner"), role("producer"), role("monitor")
ANA, BEN = role("reviewer/p-" + "a" * 26), role("reviewer/p-" + "b" * 26)
LISTED = f'policy: p/1\nrevokers: [{{issuer: "{ISSUER}", san: "{MONITOR.san}"}}]\n' + "dataPolicy: {by: [%s]%s}\n"


def in_force(by: Identity = OWNER, extra: str = "") -> Any:
    return parse((LISTED % (f'{{issuer: "{ISSUER}", san: "{by.san}"}}', extra)).encode())


@dataclass
class Imagined:
    """An archive of samples."""

    facts: list[Any]
    hidden: list[Any] = field(default_factory=list)
    revoked: list[tuple[Any, str, Identity]] = field(default_factory=list)
    spoilt: tuple[Any, ...] = ()
    tree_size: int = 7
    shown: bool = False

    def refresh(self) -> None:
        self.shown = True

    def revocations(self, revokers: Any) -> Revocations:
        found = [(what.evidence_id, why) for what, why, by in self.revoked if any(m.matches(by) for m in revokers)]
        return Revocations({name: Revocation(name, why, "x") for name, why in found})

    def unresolved(self) -> list[Any]:
        return self.hidden

    def accounted(self, leaf: Any, revokers: Any) -> bool:
        return self.revocations([leaf.identity, *revokers]).of(leaf.evidence_id) is not None

    def candidates(self, digests: Any, types: Any) -> list[Any]:
        return [
            SimpleNamespace(evidence_id=f.evidence_id, statement=f, fact=f)
            for f in self.facts
            if self.shown and f.predicate_type in types and {s.sha256 for s in f.subjects} & set(digests)
        ]

    @property
    def index(self) -> Any:
        return SimpleNamespace(leaf=lambda name: next((f for f in self.facts if f.evidence_id == name), None))

    @property
    def store(self) -> Any:
        return SimpleNamespace(where=str)

    @property
    def verifier(self) -> Any:
        def verify(bundle: Any, *, predicate_type: str, identities: Any, subjects: Any, revocations: Any) -> Any:
            fact = bundle.fact
            assert fact.predicate_type == predicate_type
            assert subjects and set(subjects) <= {s.sha256 for s in fact.subjects}
            if fact in self.spoilt or not any(who.matches(fact.identity) for who in identities):
                raise Unchecked("it does not verify")
            return fact

        return SimpleNamespace(verify=verify)


def allows(
    by: Identity = OWNER, *, about: str = "data", age: timedelta = timedelta(hours=1), salt: str = "", **claim: Any
) -> Any:
    """A data policy for training, until its end."""
    body = {"purposes": ["training"], "expires": END} | claim
    return samples.make(data_policy.URI, body, by, NOW - age, about=about, now=NOW, salt=salt)


def says(
    by: Identity, of: Any, decision: str = "approve", *, age: timedelta = timedelta(minutes=5), **claim: Any
) -> Any:
    """A person's word about a data policy."""
    body = {"decision": decision, "reviewed": [of.evidence_id], "expires": END} | claim
    return samples.make(human_approval.URI, body, by, NOW - age, about="data", now=NOW)


def hides(by: Identity, name: str = "h") -> Any:
    return SimpleNamespace(identity=by, evidence_id=samples.digest(name))


def asked(archive: Imagined, policies: tuple[Any, ...] = (), **plan: Any) -> str:
    """``nothing``, ``allowed ID…``, or how it ends and the rules that say so."""
    measured = Measured(Path("data"), (Subject("data", ROOT), Subject("data#manifest", DATA)), None)
    told = {"stage": "training.run", "purpose": "training", "by": TRAINER, "inputs": {"data": measured}}
    told |= {"outputs": {"out": "model"}, "releases": None, "run_id": "run-1"} | plan
    try:
        cleared = Preflight(policies, lambda: NOW)(Plan(**told), archive)
    except Withheld as error:
        assert error.remedy and error.expected
        return "withheld"
    except RuleBroken as error:
        return f"refused {error}"
    except Unchecked as error:
        return f"undecided {error}"
    if cleared.verdict is None:
        return "nothing"
    said = cleared.verdict.predicate
    assert said["verificationResult"] == "PASSED" and said["mlseal"]["treeSize"] == 7
    assert said["mlseal"]["action"].get("purpose") == told["purpose"]
    seen = [entry["annotations"]["evidenceId"] for entry in said["inputAttestations"]]
    assert set(cleared.data_policies) <= set(seen)
    return f"allowed {len(cleared.data_policies)} of {len(seen)}, {len(said['mlseal']['policies'])} in force"


LEAST = {"maxEpsilon": "8", "maxDelta": "0.00001", "unit": "person"}
KEEPS = {"epsilon": "8", "delta": "0.00001", "unit": "Person"}
BY = [{"issuer": ISSUER, "role": "reviewer"}, {"issuer": ISSUER, "san": TRAINER.san}]


def approved(*words: Any, distinct: int = 1, hidden: tuple[Any, ...] = (), revoked: tuple[Any, ...] = ()) -> str:
    """How a run ends whose data want approvals; each word is made for the policy."""
    policy = allows(approvals={"distinct": distinct, "by": BY})
    made = [word(policy) for word in words]
    taken = [(made[number], why, made[number].identity) for number, why in revoked]
    return asked(Imagined([policy, *made], list(hidden), taken))


def test_what_was_never_regulated_runs_and_leaves_no_verdict():
    assert asked(Imagined([])) == "nothing"
    assert asked(Imagined([allows(about="other", purposes=[])])) == "nothing"
    assert asked(Imagined([]), (in_force(),)) == "allowed 0 of 0, 1 in force"


def test_what_is_allowed_runs_with_a_verdict():
    assert asked(Imagined([allows()])) == "allowed 1 of 1, 0 in force"
    assert asked(Imagined([allows(about="root of data")])) == "allowed 1 of 1, 0 in force"
    assert asked(Imagined([allows(salt="1"), allows(salt="2")])) == "allowed 2 of 2, 0 in force"


def test_all_that_stand_are_obeyed():
    for strict in (allows(purposes=[]), allows(about="root of data", purposes=[])):
        for facts in ([strict, allows()], [allows(), strict]):
            assert "does not allow this purpose" in asked(Imagined(facts))


def test_purposes():
    assert "no purpose at all" in asked(Imagined([allows(purposes=[])]))
    assert asked(Imagined([allows()]), purpose="research").startswith("refused")
    assert asked(Imagined([allows()]), purpose=None).startswith("undecided")


def test_who_runs():
    only = [{"issuer": ISSUER, "san": TRAINER.san}]
    assert asked(Imagined([allows(runBy=only)])).startswith("allowed")
    assert "this identity" in asked(Imagined([allows(runBy=only)]), by=MONITOR)
    assert "this identity" in asked(Imagined([allows(runBy=[])]))


@pytest.mark.parametrize("worse", [{"epsilon": "8.0000001"}, {"delta": "0.0001"}, {"unit": "row"}])
def test_privacy(worse):
    archive = lambda: Imagined([allows(minimumPrivacy=LEAST)])  # noqa: E731
    assert asked(archive(), releases="digests").startswith("allowed")
    assert asked(archive(), releases=Privacy(**KEEPS)).startswith("allowed")
    assert "keeps none" in asked(archive())
    assert "more privacy" in asked(archive(), releases=Privacy(**(KEEPS | worse)))
    strict = {name: value for name, value in LEAST.items() if name != "maxDelta"}
    assert "more privacy" in asked(Imagined([allows(minimumPrivacy=strict)]), releases=Privacy(**KEEPS))


def test_what_is_put_out():
    assert asked(Imagined([allows(noExport=["dataset"])])).startswith("allowed")
    assert "lets no model be made" in asked(Imagined([allows(noExport=["model"])]))


def test_time():
    assert "has ended" in asked(Imagined([allows(expires=ENDED)]))
    assert asked(Imagined([allows(age=-timedelta(minutes=4))])).startswith("allowed")
    assert "in the future" in asked(Imagined([allows(age=-timedelta(minutes=6))]))


@pytest.mark.parametrize("by", [OWNER, MONITOR])
def test_taken_back(by):
    old, new = allows(purposes=["research"], age=timedelta(hours=2)), allows()
    policies = (in_force(),)
    assert "was withdrawn" in asked(Imagined([new], revoked=[(new, "withdrawn", by)]), policies)
    assert "was superseded" in asked(Imagined([new], revoked=[(new, "superseded", by)]), policies)
    assert asked(Imagined([old, new], revoked=[(old, "superseded", by)]), policies) == "allowed 1 of 2, 1 in force"
    assert "was withdrawn" in asked(Imagined([old, new], revoked=[(old, "withdrawn", by)]), policies)
    both = [(old, "superseded", by), (new, "withdrawn", by)]
    assert "was superseded" in asked(Imagined([old, new], revoked=both), policies)
    assert "was superseded" in asked(Imagined([new, old], revoked=[(new, "superseded", by)]), policies)
    other = allows(role("evaluator"))
    assert "was superseded" in asked(Imagined([old, other], revoked=[(old, "superseded", OWNER)]))


def test_a_stranger_takes_nothing_back():
    fact = allows(purposes=[])
    assert "no purpose at all" in asked(Imagined([fact, allows()], revoked=[(fact, "superseded", ANA)]))


def test_listed_owners_count_and_no_others():
    stranger = allows(role("evaluator"), purposes=[])
    assert asked(Imagined([stranger])).startswith("refused")
    assert asked(Imagined([stranger]), (in_force(),)) == "allowed 0 of 0, 1 in force"
    required = (in_force(extra=", required: true"),)
    assert "no owner says what may be done" in asked(Imagined([stranger]), required)
    assert asked(Imagined([stranger, allows()]), required) == "allowed 1 of 1, 1 in force"


def test_what_is_withheld():
    for who in (OWNER, role("owner/p-" + "c" * 26)):
        assert asked(Imagined([], [hides(who)])) == "withheld"
    for who in (TRAINER, role("owners"), Identity("https://other.example", OWNER.san), ANA):
        assert asked(Imagined([], [hides(who)])) == "nothing"
    for who in (OWNER, MONITOR):
        assert asked(Imagined([]), (in_force(),)).startswith("allowed")
        assert asked(Imagined([], [hides(who)]), (in_force(),)) == "withheld"
    assert asked(Imagined([], [hides(role("owner/p-" + "c" * 26))]), (in_force(),)).startswith("allowed")
    # Whoever signed a data policy may have taken it back.
    evaluator = role("evaluator")
    assert asked(Imagined([allows(evaluator)], [hides(evaluator)])) == "withheld"
    assert asked(Imagined([allows(evaluator)], [hides(ANA)])).startswith("allowed")
    taken = hides(OWNER)
    assert asked(Imagined([], [taken], [(taken, "withdrawn", MONITOR)]), (in_force(),)).startswith("allowed")
    assert asked(Imagined([], [taken], [(taken, "withdrawn", OWNER)]), (in_force(),)).startswith("allowed")
    assert asked(Imagined([], [taken], [(taken, "withdrawn", ANA)]), (in_force(),)) == "withheld"


def test_what_does_not_verify_stops():
    spoilt = allows()
    assert asked(Imagined([spoilt, allows(salt="2")], spoilt=(spoilt,))).startswith("undecided")


def test_approvals():
    yes, no = (lambda who, **c: lambda p: says(who, p, **c)), (lambda who, **c: lambda p: says(who, p, "reject", **c))
    assert "wants approvals of 1" in approved()
    assert approved(yes(ANA)) == "allowed 1 of 2, 0 in force"
    for nobody in (yes(TRAINER), yes(MONITOR), yes(ANA, reviewed=[]), yes(ANA, expires=ENDED)):
        assert "wants approvals of 1" in approved(nobody)
    assert "wants approvals of 1" in approved(yes(ANA, age=-timedelta(minutes=6)))
    assert approved(yes(ANA, age=-timedelta(minutes=4))).startswith("allowed")
    assert "wants approvals of 2" in approved(yes(ANA), yes(ANA, age=timedelta(minutes=9)), distinct=2)
    assert approved(yes(ANA), yes(BEN), distinct=2).startswith("allowed")
    assert "wants approvals of 1" in approved(yes(ANA), revoked=((0, "withdrawn"),))
    assert "has a rejection" in approved(yes(ANA), no(BEN))
    assert "has a rejection" not in approved(yes(ANA), no(MONITOR))
    assert approved(yes(ANA), no(BEN), revoked=((1, "withdrawn"),)).startswith("allowed")
    assert approved(yes(ANA), no(BEN, expires=ENDED)).startswith("allowed")
    assert approved(yes(ANA), hidden=(hides(BEN),)) == "withheld"
    assert approved(yes(ANA), hidden=(hides(MONITOR),)).startswith("allowed")
