"""A policy in words: what each rule asks, of whom, what that proves and does not, and which controls it serves."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from mlseal.evidence import predicates
from mlseal.evidence.clock import rfc3339
from mlseal.policy.case import span
from mlseal.policy.lint import of_requirement, remarks
from mlseal.policy.model import Policy, Requirement
from mlseal.policy.schema import Opa

_NOT_PROVEN = re.compile(r'"notProven":\s*(\[[^\]]*\])')
_MODULES = {module.URI: module for module in predicates.MODULES}


def tell(policy: Policy) -> dict[str, Any]:
    """The policy as plain JSON values; `requirements` in the order in which they are judged."""
    part = policy.part
    return {
        "policy": policy.name,
        "sha256": policy.sha256,
        "layers": [{"policy": layer.name, "sha256": layer.sha256} for layer in policy.layers[1:]],
        "assurance": part.assurance.model_dump(),
        "revocationMaxAge": span(policy.revocation_max_age),
        "revokers": [str(who) for who in policy.revokers],
        "waivers": [str(who) for who in policy.waivers],
        "requirements": [_requirement(policy, requirement) for requirement in policy.require],
        "opa": [_engine(policy, engine) for engine in policy.engines],
    }


def _requirement(policy: Policy, requirement: Requirement) -> dict[str, Any]:
    part = requirement.part
    return {
        "id": requirement.id,
        "predicateType": requirement.predicate_type,
        "statedBy": requirement.origin or policy.name,
        "asks": list(_asks(policy, requirement)),
        "by": [str(who) for who in requirement.by],
        "conditions": [
            {"id": rule.id, "message": rule.message, "check": rule.condition.source, "waivable": rule.waivable}
            for rule in requirement.rules
        ],
        "proves": proves(requirement.predicate_type),
        "notProven": list(_not_proven(policy, requirement)),
        "control": list(requirement.control),
        **({"effectiveOn": rfc3339(part.effective_on)} if part.effective_on else {}),
    }


def _engine(policy: Policy, engine: Opa) -> dict[str, Any]:
    """A decision of an OPA server: what is asked, and what its answer is worth."""
    pinned = f", from revision {engine.revision} of its bundle{f' {engine.bundle}' if engine.bundle else ''}"
    return {
        "id": engine.id,
        "server": engine.server,
        "decision": engine.decision,
        "asks": f"{engine.server} whether {engine.decision} is true{pinned if engine.revision else ''}, "
        "once every other rule holds",
        "notProven": [
            "that the server evaluates the Rego that its revision names: the revision is its own word",
            "that the Rego asks for the right thing, or refuses anything at all",
            *(r.removeprefix(f"{engine.id}: ") for r in remarks(policy) if r.startswith(f"{engine.id}: opa ")),
        ],
        "control": list(engine.control or ()),
    }


def proves(uri: str) -> str:
    """What a verified statement of this type says, in one sentence."""
    title = (inspect.getdoc(_MODULES[uri]) or "").strip().partition("\n")[0]
    return f"that a listed identity signed, about these very bytes: {title}"


def _asks(policy: Policy, requirement: Requirement) -> Iterator[str]:
    part = requirement.part
    about = "the subject" if part.of is None else f"each input{f' {part.input!r}' if part.input else ''} of {part.of}"
    yield f"{requirement.short} evidence about {about}; every result counts, the worst decides"
    if requirement.where is not None:
        yield f"only results for which {requirement.where.source}"
    if part.strength is not None:
        yield f"a claim at least {part.strength}"
    if part.max_age is not None:
        yield f"signed within {span(part.max_age)}"
    if requirement.is_approval:
        yield f"by {part.distinct or 1} distinct people"
    if part.not_by:
        yield f"none of them holding the role {' or '.join(part.not_by)}"
    if part.reviewed:
        yield f"who read the evidence for {', '.join(part.reviewed)}"
    wanted = policy.assurance_of(requirement)
    yield f"assured: identity {wanted.identity}, log {wanted.log}, time {wanted.time}"
    if part.effective_on is not None:
        yield f"from {rfc3339(part.effective_on)} on"


def _not_proven(policy: Policy, requirement: Requirement) -> Iterator[str]:
    """What statements of the type say themselves, and what the policy leaves open."""
    found = _NOT_PROVEN.search(inspect.getdoc(_MODULES[requirement.predicate_type]) or "")
    said = json.loads(" ".join(found[1].split())) if found else []
    yield from (text for text in said if text != "…")
    yield "that what the signer says is true: the signature proves who said it, when, and about which bytes"
    for remark in of_requirement(policy, requirement):
        yield remark.removeprefix(f"{requirement.id}: ")
