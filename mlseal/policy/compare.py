"""Two policies, key by key: what became stricter, what looser, and what changed in a way that nobody can order.

The tables below name every key of the language. A key that stands in none of them is refused rather than passed over,
so that a new key cannot be a way to loosen a policy (`require_known`; a test compares the tables with the schema).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlseal.errors import PolicyInvalid
from mlseal.evidence.clock import rfc3339
from mlseal.policy import schema, thresholds
from mlseal.policy.case import span
from mlseal.policy.model import Policy, Requirement, Rule
from mlseal.policy.ordering import (
    Order,
    Relation,
    at_least,
    at_most,
    demanded,
    exact,
    fewer,
    more,
    permitted,
    pinned,
    same_people,
    scale,
    sooner,
    within,
    words,
)
from mlseal.policy.schema import Applies, Freeze, Opa, Part, Signer, Ungoverned, UnsignedSource

Path = tuple[str, ...]

ASSURANCE: dict[str, Order] = {axis: scale(axis) for axis in ("identity", "log", "time")}
CHECK: dict[str, Order] = {"id": exact, "message": words, "check": thresholds.order, "waivable": permitted}
REQUIREMENT: dict[str, Order] = {
    "predicate": exact,
    "by": fewer,
    "of": exact,
    "input": exact,
    "where": exact,  # what is selected no longer is a failure that no longer counts
    "strength": scale("strength"),
    "max_age": at_most,
    "distinct": at_least,
    "not_by": more,
    "reviewed": more,
    "effective_on": sooner,
    "remedy": words,
    "control": words,
}
OPA: dict[str, Order] = {
    "server": exact,
    "decision": exact,
    "bundle": exact,
    "revision": pinned,
    "timeout": words,  # whoever waits longer is not sooner allowed
    "control": words,
}
POLICY: dict[str, Order] = {
    "policy": words,
    "revocation_max_age": at_most,
    "revokers": fewer,
    "gate": same_people,  # no evidence from them, but verdicts
}
ELSEWHERE: dict[type[Part], frozenset[str]] = {
    schema.PolicyPart: frozenset({"applies", "assurance", "data_policy", "extends", "freeze", "observe", "ownership"})
    | {"opa", "require", "tests", "ungoverned", "unsigned", "waivers"},
    schema.RequirementPart: frozenset({"assurance", "id", "when"}),
    schema.By: frozenset({"by"}),
    schema.DataPolicies: frozenset({"by", "required"}),
    schema.Observe: frozenset({"until", "owner"}),
    schema.Applies: frozenset({"tool", "action"}),
    schema.Ungoverned: frozenset({"tool", "action", "owner", "until"}),
    schema.Freeze: frozenset({"tool", "action", "since", "until", "owner", "reason"}),
    schema.UnsignedSource: frozenset({"name", "sha256", "owner", "until"}),
    schema.Extends: frozenset({"policy", "sha256"}),
    schema.Signer: frozenset({"issuer", "san", "email_domain", "role", "key", "since", "until"}),
    schema.Assurance: frozenset(),
    schema.Check: frozenset(),
    schema.Opa: frozenset({"id"}),
}
"""Keys that the code below compares itself, or that decide nothing (``tests``)."""
TABLES: dict[type[Part], Mapping[str, Order]] = {
    schema.PolicyPart: POLICY,
    schema.RequirementPart: REQUIREMENT,
    schema.Assurance: ASSURANCE,
    schema.Check: CHECK,
    schema.Opa: OPA,
}


@dataclass(frozen=True)
class Difference:
    """What one place of a policy was and is; ``absent`` where it is not."""

    path: Path
    relation: Relation
    before: str
    after: str

    @property
    def place(self) -> str:
        """The path with dots, as messages write it."""
        return ".".join(self.path)


def differences(before: Policy, after: Policy) -> Iterator[Difference]:
    """Every difference between two policies as they are judged, each layer beneath them included."""
    require_known()
    yield from _top(before, after)
    old, new = ({r.id: r for r in policy.require} for policy in (before, after))
    for name in dict.fromkeys((*old, *new)):
        path = ("require", name)
        if name not in new:
            yield Difference(path, "looser", old[name].short, "absent")
        elif name not in old:
            yield Difference(path, "stricter", "absent", new[name].short)
        else:
            yield from _requirement(path, before, old[name], after, new[name])
    yield from _layers(before, after)


def require_known() -> None:
    """Raise `PolicyInvalid` for a key of the language that nothing here compares."""
    for part, keys in ELSEWHERE.items():
        unknown = set(part.model_fields) - keys - set(TABLES.get(part, ()))
        if unknown:
            raise PolicyInvalid(f"the key {min(unknown)} cannot be compared, so nobody can say that it is not looser")


def _top(before: Policy, after: Policy) -> Iterator[Difference]:
    old, new = before.part, after.part
    yield from _keys((), POLICY, old, new)
    yield from _keys(("assurance",), ASSURANCE, old.assurance, new.assurance)
    yield from _value(("observe",), sooner, _until(old.observe), _until(new.observe))
    yield from _value(("waivers", "by"), fewer, _by(old.waivers), _by(new.waivers))
    yield from _value(("ownership", "by"), same_people, _by(old.ownership), _by(new.ownership))
    owners = [(p.data_policy or p.ownership) for p in (old, new)]
    yield from _value(("dataPolicy", "by"), same_people, *map(_by, owners))
    wanted = [bool(p.data_policy and p.data_policy.required) for p in (old, new)]
    yield from _value(("dataPolicy", "required"), demanded, *wanted)
    yield from _engines(before.engines, after.engines)
    yield from _entries("applies", old.applies, new.applies, _covers_action, opens=False)
    yield from _entries("freeze", old.freeze, new.freeze, _covers_window, opens=False)
    yield from _entries("ungoverned", old.ungoverned, new.ungoverned, _covers_exemption, opens=True)
    yield from _entries("unsigned", old.unsigned, new.unsigned, _covers_source, opens=True)


def _engines(old: Sequence[Opa], new: Sequence[Opa]) -> Iterator[Difference]:
    """Decisions of OPA that must be true besides: each one more is stricter."""
    before, after = ({engine.id: engine for engine in engines} for engines in (old, new))
    for name in dict.fromkeys((*before, *after)):
        path = ("opa", name)
        if name not in after:
            yield Difference(path, "looser", before[name].decision, "absent")
        elif name not in before:
            yield Difference(path, "stricter", "absent", after[name].decision)
        else:
            yield from _keys(path, OPA, before[name], after[name])


def _requirement(path: Path, before: Policy, old: Requirement, after: Policy, new: Requirement) -> Iterator[Difference]:
    yield from _keys(path, {k: o for k, o in REQUIREMENT.items() if k != "predicate"}, old.part, new.part)
    yield from _value((*path, "predicate"), exact, old.predicate_type, new.predicate_type)
    yield from _keys((*path, "assurance"), ASSURANCE, before.assurance_of(old), after.assurance_of(new))
    rules, now = ({rule.id: rule for rule in requirement.rules} for requirement in (old, new))
    for name in dict.fromkeys((*rules, *now)):
        place = (*path, "when", name)
        if name not in now:
            yield Difference(place, "looser", rules[name].condition.source, "absent")
        elif name not in rules:
            yield Difference(place, "stricter", "absent", now[name].condition.source)
        else:
            yield from _rule(place, rules[name], now[name])


def _rule(path: Path, old: Rule, new: Rule) -> Iterator[Difference]:
    yield from _value((*path, "check"), CHECK["check"], old.condition.source, new.condition.source)
    yield from _value((*path, "waivable"), CHECK["waivable"], old.waivable, new.waivable)
    yield from _value((*path, "message"), CHECK["message"], old.message, new.message)


def _layers(before: Policy, after: Policy) -> Iterator[Difference]:
    """What the layers beneath ask on their own; their requirements stand in the policies themselves already."""
    if before.parent is not None and after.parent is not None:
        if before.parent.sha256 != after.parent.sha256:
            for found in differences(before.parent, after.parent):
                yield Difference(("extends", *found.path), found.relation, found.before, found.after)
    elif before.parent is not None or after.parent is not None:
        relation: Relation = "looser" if after.parent is None else "stricter"
        names = [policy.parent.name if policy.parent else "absent" for policy in (before, after)]
        yield Difference(("extends",), relation, *names)


def _keys(path: Path, table: Mapping[str, Order], old: Part, new: Part) -> Iterator[Difference]:
    for key, order in table.items():
        name = type(old).model_fields[key].alias or key
        yield from _value((*path, name), order, getattr(old, key), getattr(new, key))


def _value(path: Path, order: Order, old: Any, new: Any) -> Iterator[Difference]:
    relation = order(old, new)
    if relation != "same":
        yield Difference(path, relation, said(old), said(new))


def _entries(
    key: str, old: Sequence[Any] | None, new: Sequence[Any] | None, covers: Callable[[Any, Any], bool], *, opens: bool
) -> Iterator[Difference]:
    """Lists of entries that open (exemptions) or close (windows): an entry counts as kept if another covers it."""
    gone = [entry for entry in old or () if not any(covers(other, entry) for other in new or ())]
    come = [entry for entry in new or () if not any(covers(other, entry) for other in old or ())]
    for entry in gone:
        if not (opens and any(covers(other, entry) for other in come)):
            yield Difference((key,), "stricter" if opens else "looser", said(entry), "absent or less")
    for entry in come:
        yield Difference((key,), "looser" if opens else "stricter", "absent or less", said(entry))


def _covers_action(outer: Applies, inner: Applies) -> bool:
    return within(inner, outer, stated=False)


def _covers_window(outer: Freeze, inner: Freeze) -> bool:
    return within(inner, outer, stated=False) and outer.since <= inner.since and inner.until <= outer.until


def _covers_exemption(outer: Ungoverned, inner: Ungoverned) -> bool:
    return within(inner, outer, stated=True) and inner.until <= outer.until


def _covers_source(outer: UnsignedSource, inner: UnsignedSource) -> bool:
    return outer.name == inner.name and outer.sha256 in {None, inner.sha256} and inner.until <= outer.until


def _by(part: schema.By | schema.DataPolicies | None) -> list[Signer] | None:
    return part.by if part else None


def _until(part: schema.Observe | None) -> datetime | None:
    return part.until if part else None


def said(value: Any) -> str:
    """A value of a policy as a message shows it."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return span(value)
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Signer):
        return str(value.matcher)
    if isinstance(value, Part):
        return ", ".join(
            f"{key} {said(item)}" for key, item in {**dict(value), **(value.__pydantic_extra__ or {})}.items()
        )
    return " or ".join(map(said, value)) if isinstance(value, list) else str(value)
