"""Weaknesses that a policy may have on purpose, said aloud."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlseal.evidence.clock import rfc3339
from mlseal.evidence.keyholder import KeyHolder
from mlseal.evidence.predicates import fairness
from mlseal.policy.model import TRAINING, Policy, Requirement
from mlseal.policy.schema import PolicyPart

_BOUND, _LEVEL = re.compile(r"\.ci(Low|High)\b"), re.compile(r"\.level\b")
_RATE, _SELECTION = re.compile(r"\bp\.(metric\(|metrics\b|groups\b)"), re.compile(r"\bp\.selection\b")


def remarks(policy: Policy, *, tested: bool = False) -> Iterator[str]:
    """One sentence per weakness; an empty answer is praise. `tested`: there are negative controls beside the file."""
    part = policy.part
    if not policy.revokers:
        yield "revokers: nobody may revoke, so no revocation snapshot can be believed and every verdict is undecided"
    if not policy.gate:
        yield "gate: no gate identity is listed; statements of other gates would pass for evidence"
    if part.tests is None and not tested:
        yield "tests: no negative controls in the file or beside it, in NAME.tests/; 'mlseal policy test' needs them"
    for axis, weakest in (("identity", "local"), ("log", "unwitnessed"), ("time", "local")):
        if getattr(part.assurance, axis) == weakest:
            yield f"assurance.{axis}: {weakest} is the lowest level"
    if part.observe is not None:
        yield f"observe: nothing is enforced until {part.observe.until.isoformat()}"
    yield from _of_ends(part)
    for engine in policy.engines:
        if engine.revision is None:
            yield f"{engine.id}: opa without revision; whatever Rego the server happens to hold decides"
    for requirement in policy.require:
        yield from of_requirement(policy, requirement)


def _of_ends(part: PolicyPart) -> Iterator[str]:
    """What holds for a time only."""
    for entry in part.ungoverned or ():
        yield f"ungoverned: {entry.tool}/{entry.action} passes without evidence until {entry.until.isoformat()}"
    for source in part.unsigned or ():
        what = "these bytes" if source.sha256 else "whatever goes by this name"
        yield f"unsigned: {source.name}: {what} pass though nobody signed them until {source.until.isoformat()}"
    for window in part.freeze or ():
        span = f"from {rfc3339(window.since)} until {rfc3339(window.until)}"
        yield f"freeze: {window.tool}/{window.action} is refused {span}; take the entry out afterwards"


def of_requirement(policy: Policy, requirement: Requirement) -> Iterator[str]:
    """What one requirement leaves open; each sentence begins with its id."""
    trained = any(r.predicate_type in TRAINING and r.part.of is None for r in policy.require)
    part, name = requirement.part, requirement.id
    if part.effective_on is not None:
        yield f"{name}: effectiveOn: nothing asks for it before {rfc3339(part.effective_on)}"
    if requirement.has_inputs and not any(other.part.of == name for other in policy.require):
        what = "data set is" if requirement.predicate_type == fairness.URI else "inputs are"
        yield f"{name}: its {what} not followed (no requirement 'of: {name}'); it may come from anywhere"
    if part.max_age is None:
        yield f"{name}: no maxAge; evidence of any age counts"
    yield from _of_keys(policy, requirement)
    if part.strength == "measured" and part.of is None and not trained:
        yield f"{name}: measured, but no requirement for a kind of training says who may train"
    if part.not_by and not policy.owners:
        yield f"{name}: notBy without ownership.by; roles resolve to nobody, so every verdict is undecided"
    if requirement.is_approval and part.not_by is None:
        yield f"{name}: no notBy; only the signers of the evidence itself are kept from approving it"
    if requirement.is_approval and part.reviewed is None:
        yield f"{name}: no reviewed; an approval holds for evidence that the person never saw"
    if not requirement.rules and not requirement.is_approval:
        yield f"{name}: no conditions; any content counts"
    yield from _of_conditions(requirement)


def _of_keys(policy: Policy, requirement: Requirement) -> Iterator[str]:
    """What a bare key under ``by`` leaves open, or never opens."""
    keys = [who for who in requirement.by if isinstance(who, KeyHolder)]
    if keys and policy.assurance_of(requirement).identity == "verified-token":
        yield f"{requirement.id}: by lists a key, but assurance.identity asks for verified-token; write identity: key"
    for key in keys:
        if key.until is None:
            yield f"{requirement.id}: key {key.fingerprint[:19]}… has no until; a stolen copy counts till it is noticed"


def _of_conditions(requirement: Requirement) -> Iterator[str]:
    """What the conditions leave to whoever measures, who can then choose the answer."""
    said = " ".join(rule.condition.source for rule in requirement.rules)
    said += " " + requirement.where.source if requirement.where else ""
    if _BOUND.search(said) and not _LEVEL.search(said):
        yield f"{requirement.id}: a bound of an interval without its level; an interval of one per cent passes easily"
    if requirement.predicate_type == fairness.URI and _RATE.search(said) and not _SELECTION.search(said):
        yield f"{requirement.id}: a rate without p.selection; whoever measures chooses how many are chosen"
