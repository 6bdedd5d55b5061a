"""Allowed, Refused or Undecided, with every reason; and the verdict as evidence (SLSA verification summary v1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, Literal
from urllib.parse import quote, urlencode

from mlseal.errors import Misuse, RuleBroken, Unchecked
from mlseal.evidence import canonical, naming, statement
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.digest import Subject
from mlseal.evidence.predicates import slsa_vsa
from mlseal.evidence.predicates.base import ResourceDescriptor
from mlseal.evidence.statement import Statement

VERIFIER_ID = "https://mlseal.dev/gate/v0.1"
Outcome = Literal["refused", "undecided", "note"]
ROOM_FOR_REASONS = 36_000
"""Bytes that reasons may take in a signed verdict, which must stay under 64 kB; the inputs come first."""
_UNSAID = "not said here, since names are committed: 'mlseal explain' says it to whoever has the files"


@dataclass(frozen=True)
class Reason:
    """One thing that was missing or failed, and what mends it; a ``note`` stops nothing."""

    rule: str
    message: str
    outcome: Outcome = "undecided"
    got: str | None = None
    expected: str | None = None
    remedy: str | None = None
    control: tuple[str, ...] = ()
    policy: str = ""

    def __str__(self) -> str:
        text = f"{self.rule}: {self.message}"
        text += f"; got {self.got}" if self.got else ""
        text += f"; expected {self.expected}" if self.expected else ""
        return text + (f"; remedy: {self.remedy}" if self.remedy else "")

    def to_dict(self) -> dict[str, object]:
        """For ``--json`` and HTTP bodies; absent members are left out."""
        members = {**vars(self), "control": list(self.control)}
        return {key: value for key, value in members.items() if value not in (None, "", [])}


def once(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """`reasons` as they are told: what several policies or layers say in the same words, one time."""
    told: dict[Reason, Reason] = {}
    for reason in reasons:
        told.setdefault(replace(reason, policy=""), reason)
    return tuple(told.values())


@dataclass(frozen=True)
class Input:
    """Evidence that the verdict rests on: its id, the bundle that was verified, its type."""

    evidence_id: str
    bundle_sha256: str
    predicate_type: str


@dataclass(frozen=True)
class Asked:
    """A decision of an OPA server that the verdict rests on besides its evidence.

    Attributes:
        policy: which policy demands it.
        id: under which name.
        server: whom the gate asked.
        decision: path of the decision, under ``/v1/data``.
        input_sha256: hex SHA-256 of the document that was asked about.
        answer: ``none`` when nothing came back that counts.
        revision: of the bundle that decided, by the server's own word.
        decision_id: by which the server's decision log finds it, if it keeps one.
    """

    policy: str
    id: str
    server: str
    decision: str
    input_sha256: str
    answer: Literal["allowed", "refused", "none"] = "none"
    revision: str | None = None
    decision_id: str | None = None

    def to_dict(self) -> dict[str, str]:
        """For ``--json``, HTTP bodies and the signed verdict; absent members are left out."""
        named = {"input_sha256": "inputSha256", "decision_id": "decisionId"}
        return {named.get(key, key): value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Verdict:
    """What was decided, about what, by which policies, on which evidence. Use its three subclasses.

    Attributes:
        reasons: everything missing or failing, then notes (waivers, exemptions).
        inputs: all evidence that was looked at, complete: what counted, what was set aside, revocations.
        policies: name and SHA-256 of each policy that applied; where none did, of each that was asked.
        tree_size: of the log, up to which every leaf was accounted for.
        assurance: the weakest level on each axis among the evidence that counted.
        mode: ``observe`` when only observing policies object; then `raise_for` lets pass.
        action: what was judged.
        time: when.
        asked: decisions of OPA servers, where policies demand them.
    """

    kind: ClassVar[Literal["allowed", "refused", "undecided"]] = "undecided"
    exit_code: ClassVar[int] = Unchecked.exit_code
    reasons: tuple[Reason, ...]
    inputs: tuple[Input, ...]
    policies: tuple[tuple[str, str], ...]
    tree_size: int
    assurance: Mapping[str, str]
    mode: Literal["enforce", "observe"]
    action: Mapping[str, str]
    time: datetime
    subjects: tuple[Subject, ...] = field(default=())
    asked: tuple[Asked, ...] = field(default=())

    @property
    def passes(self) -> bool:
        """Whether the action goes on: allowed, or only observed."""
        return self.kind == "allowed" or self.mode == "observe"

    def summary(self) -> str:
        """All that stops, in one line."""
        stopping = [str(reason) for reason in once(self.reasons) if reason.outcome != "note"]
        return f"{self.kind} by {self.judges()}" + (": " + " | ".join(stopping) if stopping else "")

    def judges(self) -> str:
        """The names of the policies; where none of ours spoke, the owners' data policies if they did."""
        spoke = any(reason.rule.startswith("data-policy:") for reason in self.reasons)
        nobody = "the data's own policy" if spoke else "no policy"
        return ", ".join(name for name, _ in self.policies) or nobody

    def to_dict(self) -> dict[str, object]:
        """For ``--json`` and HTTP bodies."""
        return {
            "verdict": self.kind,
            "mode": self.mode,
            "time": rfc3339(self.time),
            "treeSize": self.tree_size,
            "subjects": [{"name": s.name, "sha256": s.sha256} for s in self.subjects],
            "action": dict(self.action),
            "assurance": dict(self.assurance),
            "policies": [{"name": name, "sha256": sha256} for name, sha256 in self.policies],
            "reasons": [reason.to_dict() for reason in self.reasons],
            "inputs": [
                {"evidenceId": i.evidence_id, "bundleSha256": i.bundle_sha256, "predicateType": i.predicate_type}
                for i in self.inputs
            ],
            **({"opa": [one.to_dict() for one in self.asked]} if self.asked else {}),
            "exitCode": 0 if self.passes else self.exit_code,
        }


@dataclass(frozen=True)
class Allowed(Verdict):
    """Every matching policy is satisfied."""

    kind = "allowed"
    exit_code = 0


@dataclass(frozen=True)
class Refused(Verdict):
    """Evidence is present and says no, or nothing governs the action."""

    kind = "refused"
    exit_code = RuleBroken.exit_code


@dataclass(frozen=True)
class Undecided(Verdict):
    """Evidence is missing, stale, too weak or not checkable. Nothing goes on."""

    kind = "undecided"


def raise_for(verdict: Verdict) -> None:
    """Return for a verdict that lets pass; raise `RuleBroken` or `Unchecked` with every reason otherwise."""
    if verdict.passes:
        return
    stopping = [reason for reason in once(verdict.reasons) if reason.outcome != "note"]
    remedies = list(dict.fromkeys(reason.remedy for reason in stopping if reason.remedy))
    error = RuleBroken if isinstance(verdict, Refused) else Unchecked
    words = " | ".join(str(Reason(r.rule, r.message, got=r.got, expected=r.expected)) for r in stopping)
    by = f"{verdict.kind} by {verdict.judges()}: "
    brief = by + _brief(verdict, stopping) if len(stopping) > 1 else None
    raise error(by + words, remedy="; ".join(remedies) or None, brief=brief)


def _brief(verdict: Verdict, stopping: Sequence[Reason]) -> str:
    """Each reason with its own remedy, numbered: a dialog knows no lines, and cuts off what stands far down.

    What they share is said once: first what was judged, last who is expected to have signed.
    """
    digests = "|".join(subject.sha256[:16] for subject in verdict.subjects)
    found = (re.search(rf" about (.+? \(sha256 (?:{digests})…\))", r.message) for r in stopping)
    judged = next((match[1] for match in found if match), "what was judged")
    expected = [r.expected for r in stopping if r.expected]
    shared = next((one for one in expected if expected.count(one) > 1), None)
    told = [
        replace(
            r,
            message=r.message.replace(f" about {judged}", ""),
            expected=None if r.expected == shared else r.expected,
        )
        for r in stopping
    ]
    words = "; ".join(f"({number}) {reason}" for number, reason in enumerate(told, 1))
    last = f"; expected, where nothing else is said: {shared}" if shared else ""
    return f"{len(told)} reasons against {judged}: {words}{last}"


def to_statement(
    verdict: Verdict,
    subjects: Sequence[Subject] = (),
    *,
    nonce: str | None = None,
    requester: slsa_vsa.Requester | None = None,
    judge: str = VERIFIER_ID,
) -> Statement:
    """The verdict as a SLSA verification summary about `subjects` (those that were judged, by default).

    ``inputAttestations`` lists every input, as the specification demands of a list that is present. Refused and
    Undecided are both FAILED to a SLSA reader; the difference and the reasons stand in ``mlseal``. Raises `Misuse` for
    other subjects than those that were judged, `MalformedEvidence` if the inputs are too many for 64 kB (some hundred).
    """
    about = tuple(subjects) or verdict.subjects
    if verdict.subjects and {s.sha256 for s in about} != {s.sha256 for s in verdict.subjects}:
        raise Misuse("the verdict is about other bytes", expected=", ".join(s.sha256[:16] for s in verdict.subjects))
    allowed = verdict.kind == "allowed"
    predicate = slsa_vsa.Predicate(
        verifier=slsa_vsa.VerifierId(id=judge),
        time_verified=rfc3339(verdict.time),
        resource_uri=resource_uri(verdict.action),
        policy=_policy(verdict.policies),
        input_attestations=[
            ResourceDescriptor(
                digest={"sha256": i.bundle_sha256},
                annotations={"evidenceId": i.evidence_id, "predicateType": i.predicate_type},
            )
            for i in verdict.inputs
        ],
        verification_result="PASSED" if allowed else "FAILED",
        verified_levels=[
            f"MLSEAL_{axis}_{level}".upper().replace("-", "_") for axis, level in sorted(verdict.assurance.items())
        ]
        if allowed
        else [],
        mlseal=slsa_vsa.Details(
            verdict=verdict.kind,
            reasons=_reasons(verdict.reasons, {(one.policy, one.id) for one in verdict.asked}),
            policies=[slsa_vsa.PolicyReference(name=name, sha256=sha256) for name, sha256 in verdict.policies],
            tree_size=verdict.tree_size,
            assurance=dict(verdict.assurance),
            mode=verdict.mode,
            action=dict(verdict.action),
            nonce=nonce,
            requester=requester,
            opa=[slsa_vsa.Asked.model_validate(one.to_dict()) for one in verdict.asked] or None,
        ),
    )
    return statement.make(about, slsa_vsa.URI, predicate.to_json())


def resource_uri(action: Mapping[str, str]) -> str:
    """``mlflow:alias?alias=champion&model=risk-a`` for an action; the order of facts does not matter."""
    facts = sorted((key, value) for key, value in action.items() if key not in {"tool", "action"})
    base = f"{quote(action.get('tool', ''), safe='')}:{quote(action.get('action', ''), safe='')}"
    return base + (f"?{urlencode(facts)}" if facts else "")


def _policy(policies: tuple[tuple[str, str], ...]) -> ResourceDescriptor:
    """One policy by its own digest; several by the digest of the list of theirs; none by that of the empty list."""
    if len(policies) == 1:
        return ResourceDescriptor(uri=policies[0][0], digest={"sha256": policies[0][1]})
    listed = canonical.dumps([list(policy) for policy in policies])
    return ResourceDescriptor(
        uri=" + ".join(n for n, _ in policies) or "none", digest={"sha256": hashlib.sha256(listed).hexdigest()}
    )


def _reasons(reasons: tuple[Reason, ...], asked: Collection[tuple[str, str]]) -> list[slsa_vsa.Reason]:
    """As many reasons as there is room for; the rest is counted, and stands in the verdict itself.

    Where names are committed only the rules are named: words, remedies and what was found may hold paths. What an OPA
    server says is never signed, whether it counts or not: its authors may say what they like, and a log is for ever.
    """
    reasons = tuple(_without_words(r) if (r.policy, r.rule) in asked else r for r in reasons)
    if naming.in_force().committed:
        return [slsa_vsa.Reason(rule=r.rule, message=_UNSAID, control=list(r.control)) for r in once(reasons)]
    made: list[slsa_vsa.Reason] = []
    room = ROOM_FOR_REASONS
    for reason in once(reasons):
        said = slsa_vsa.Reason(
            rule=reason.rule,
            message=reason.message[:1000],
            got=_cut(reason.got),
            expected=_cut(reason.expected),
            remedy=_cut(reason.remedy),
            control=list(reason.control),
        )
        room -= len(canonical.dumps(said.to_json()))
        if room < 0:
            made.append(slsa_vsa.Reason(rule="more", message=f"{len(once(reasons)) - len(made)} further reasons"))
            break
        made.append(said)
    return made


def _without_words(reason: Reason) -> Reason:
    said = "OPA refuses; in its words in the answer of the gate, not in the log"
    return replace(reason, message=said if reason.outcome == "refused" else reason.message, got=None)


def _cut(text: str | None) -> str | None:
    return text if text is None else text[:1000]
