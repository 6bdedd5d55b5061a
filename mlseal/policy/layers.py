"""A policy that stands on another: organization, domain, model. The narrower may only tighten.

``extends: {policy, sha256}`` names the policy beneath by the digest of its file, wherever that file lies.

1. What a layer does not state about assurance, people and unsigned sources, it takes from the layer beneath, and all
   its requirements. A requirement that it states again is the two together: absent keys are those beneath, conditions
   are added. Decisions of OPA are all asked, those beneath and those that it adds.
2. Whatever it does state must be as strict, key by key (`mlseal.policy.compare`); what cannot be ordered is refused.
3. Each layer beneath stays in force as it was written and is judged besides, so that all of them must allow. Were there
   a hole in (2), it would open nothing that the layer beneath closes.

`observe` and `ungoverned` are not taken over: a layer that does not state them enforces, and exempts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mlseal.errors import PolicyInvalid
from mlseal.policy.compare import Difference, differences
from mlseal.policy.model import Policy, Requirement
from mlseal.policy.schema import Check, PolicyPart, RequirementPart

MAX_LAYERS = 8
_TAKEN_OVER = (
    "applies", "assurance", "revocation_max_age", "revokers", "gate", "ownership", "data_policy", "waivers", "unsigned",
)  # fmt: skip
_OWN = {"applies", "freeze", "policy", "extends"}
"""Keys in which a layer is free: what the layers beneath say under them stays in force besides."""


def take_over(part: PolicyPart, parent: Policy) -> PolicyPart:
    """`part` with what it leaves to the layer beneath (1), its requirements apart."""
    stated = part.model_fields_set
    kept: dict[str, Any] = {key: getattr(parent.part, key) for key in _TAKEN_OVER if key not in stated}
    engines = {engine.id: engine for engine in (*parent.engines, *(part.opa or ()))}
    return part.model_copy(update={**kept, "opa": list(engines.values()) or None})


def together(beneath: RequirementPart, stated: RequirementPart) -> RequirementPart:
    """A requirement that is stated again: what stands there, else what stands beneath."""
    keys = {key: getattr(stated, key) for key in stated.model_fields_set - {"when"}}
    known = {check.id for check in beneath.when or ()}
    added = [check for check in stated.when or () if check.id not in known]
    closed = {check.id for check in stated.when or () if not check.waivable}
    kept = [
        check.model_copy(update={"waivable": check.waivable and check.id not in closed}) for check in beneath.when or ()
    ]
    return beneath.model_copy(update={**keys, "when": [*kept, *added] or None})


def replaced(beneath: Requirement, stated: RequirementPart) -> Iterator[tuple[int, Check, str]]:
    """Conditions stated again with another text, or opened to waivers: index, condition, what is wrong."""
    known = {rule.id: rule for rule in beneath.rules}
    for index, check in enumerate(stated.when or ()):
        if check.id in known and check.check != known[check.id].condition.source:
            yield index, check, known[check.id].condition.source
        elif (
            check.id in known
            and "waivable" in check.model_fields_set
            and check.waivable
            and not known[check.id].waivable
        ):
            yield index, check, "waivable: false"


def loosening(layer: Policy, parent: Policy) -> Difference | None:
    """The first place in which `layer` is not known to be as strict as what it stands on (2)."""
    for found in differences(parent, layer):
        if found.relation in {"looser", "changed"} and found.path[0] not in _OWN:
            return found
    return None


def require_chain(name: str, parent: Policy) -> None:
    """Raise `PolicyInvalid` for a layer called `name` that stands on one of its own name."""
    if name in [layer.name for layer in parent.layers]:
        raise PolicyInvalid("a policy extends one of its own name", got=name, expected="each layer with its own name")


def with_layers(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """`policies` and every layer beneath one of them, each once; those given come first."""
    given = tuple(policies)
    every = {policy.sha256: policy for policy in (*given, *(layer for p in given for layer in p.layers))}
    known = {policy.sha256 for policy in given}
    return (*given, *(policy for digest, policy in every.items() if digest not in known))


def governing(policies: Iterable[Policy], facts: Mapping[str, str] | None) -> tuple[Policy, ...]:
    """The policies that govern an action with these canonical facts, with every layer beneath; all if None."""
    every = with_layers(policies)
    if facts is None:
        return every
    wanted = {layer.sha256 for policy in every if policy.applies(facts) for layer in policy.layers}
    return tuple(policy for policy in every if policy.sha256 in wanted)


def at(difference: Difference, part: PolicyPart, shorts: Mapping[str, str]) -> tuple[Any, ...]:
    """Where in the file of `part` a difference stands; `shorts` gives the ids of requirements without one."""
    path: tuple[Any, ...] = difference.path
    if path[0] == "opa":
        return ("opa", *(index for index, engine in enumerate(part.opa or ()) if engine.id == path[1]))
    if path[0] == "require" and len(path) > 1:
        for index, requirement in enumerate(part.require or ()):
            if (requirement.id or shorts.get(requirement.predicate)) == path[1]:
                return ("require", index, *path[2:])
    return path
