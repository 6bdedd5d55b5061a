"""From the keys of a policy to requirements that can be judged: ids, chaining, conditions, what a layer takes over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from mlseal.errors import Error, PolicyInvalid
from mlseal.evidence import predicates
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.keyholder import DECISIONS
from mlseal.evidence.predicates import human_approval
from mlseal.policy import layers
from mlseal.policy.cel import Condition, compile_condition
from mlseal.policy.model import Policy, Requirement, Rule
from mlseal.policy.plainyaml import Document
from mlseal.policy.plainyaml import Path as Place
from mlseal.policy.remedies import short_name
from mlseal.policy.schema import PolicyPart, RequirementPart
from mlseal.policy.shape import of_predicate

_T = TypeVar("_T")
RESERVED = frozenset({"applies", "name", "log", "revocations", "gate", "freeze"})
"""Rule ids that the gate itself uses; no waiver can name them."""


@dataclass(frozen=True)
class _Entry:
    """A requirement to build: stated in this file, in the layer beneath, or in both."""

    id: str
    part: RequirementPart
    place: Place
    beneath: Requirement | None = None
    stated: RequirementPart | None = None

    @property
    def needs(self) -> set[str]:
        return {*([self.part.of] if self.part.of else []), *(self.part.reviewed or [])}


class Builder:
    """Builds the policy of one file, `document`, on `parent` if it is a layer; every fault names its line."""

    def __init__(self, name: str, document: Document, part: PolicyPart, parent: Policy | None) -> None:
        self._name, self._document, self._part, self._parent = name, document, part, parent
        self._beneath = {engine.id for engine in parent.engines} if parent else set()
        self._ids: set[str] = {*RESERVED, *self._beneath}
        self._built: list[Requirement] = []

    def build(self, raw: bytes) -> Policy:
        """The policy; `raw` is the file. Raises `PolicyInvalid`."""
        whole = self._part if self._parent is None else layers.take_over(self._part, self._parent)
        for entry in self._entries():
            self._built.append(self._requirement(entry))
        self._take_engines()
        digest, built = hashlib.sha256(raw).hexdigest(), tuple(self._built)
        if (parent := self._parent) is not None:
            self._at(("extends",), lambda: layers.require_chain(self._part.policy, parent))
            whole = whole.model_copy(update={"require": [requirement.part for requirement in built] or None})
            try:
                whole.require_whole()
            except ValueError as error:
                raise wrong(self._name, self._document, (), str(error)) from error
        return Policy(self._part.policy, digest, raw, whole, built, self._parent)

    def _take_engines(self) -> None:
        """The ids of OPA decisions are rules of their own; a layer may state one again, once."""
        again = set(self._beneath)
        for index, engine in enumerate(self._part.opa or ()):
            if engine.id in again:
                again.discard(engine.id)
            else:
                self._take(engine.id, ("opa", index, *(["id"] if "id" in engine.model_fields_set else [])))

    def _entries(self) -> list[_Entry]:
        """What is stated here; in a layer first what it takes over, each after what it builds on."""
        stated = [_Entry(self._id(part, i), part, ("require", i)) for i, part in enumerate(self._part.require or [])]
        if self._parent is None:
            return stated
        own = {entry.id: entry for entry in stated}
        entries = []
        for beneath in self._parent.require:
            self._ids |= {beneath.id, *(rule.id for rule in beneath.rules)}
            again = own.pop(beneath.id, None)
            part = layers.together(beneath.part, again.part) if again else beneath.part
            place = again.place if again else ("extends",)
            entries.append(_Entry(beneath.id, part, place, beneath, again.part if again else None))
        return _ordered([*entries, *own.values()])

    def _id(self, part: RequirementPart, index: int) -> str:
        uri = self._at(("require", index, "predicate"), lambda: predicates.uri_of(part.predicate))
        return part.id or short_name(uri)

    def _requirement(self, entry: _Entry) -> Requirement:
        beneath, part, place = entry.beneath, entry.part, entry.place
        kept: tuple[Rule, ...] = ()
        if beneath is not None and self._parent is not None:
            kept = tuple(replace(rule, origin=rule.origin or self._parent.name) for rule in beneath.rules)
            if entry.stated is None:
                return replace(beneath, rules=kept, origin=beneath.origin or self._parent.name)
            self._require_kept(beneath, entry.stated, place)
            waivable = {check.id: check.waivable for check in part.when or ()}
            kept = tuple(replace(rule, waivable=waivable[rule.id]) for rule in kept)
        uri = self._at((*place, "predicate"), lambda: predicates.uri_of(part.predicate))
        identifier = entry.id if beneath else self._take(entry.id, (*place, "id" if part.id else "predicate"))
        checks = tuple(
            Rule(
                self._take(check.id, (*place, "when", i, "id")),
                check.message,
                self._condition(check.check, uri, (*place, "when", i, "check")),
                check.waivable,
            )
            for i, check in enumerate((entry.stated or part).when or [])
            if check.id not in {rule.id for rule in kept}
        )
        where = None if part.where is None else self._condition(part.where, uri, (*place, "where"))
        self._require_sense(part, uri, place)
        return Requirement(identifier, uri, short_name(uri), part, (*kept, *checks), where)

    def _require_kept(self, beneath: Requirement, stated: RequirementPart, place: Place) -> None:
        stated_type = self._at((*place, "predicate"), lambda: predicates.uri_of(stated.predicate))
        if stated_type != beneath.predicate_type:
            raise PolicyInvalid(
                f"{self._name} line {self._document.line(place)}: {beneath.id} is another type beneath",
                got=stated.predicate,
                expected=beneath.short,
                remedy="leave it as it is, and add a requirement with its own id",
            )
        for index, check, wanted in layers.replaced(beneath, stated):
            line = self._document.line((*place, "when", index))
            raise PolicyInvalid(
                f"{self._name} line {line}: the condition {check.id} stands in the layer beneath, otherwise",
                got=check.check if wanted != check.check else "waivable: true",
                expected=wanted,
                remedy="leave it as it is, and add a condition with its own id",
            )

    def _require_sense(self, part: RequirementPart, uri: str, place: Place) -> None:
        """Keys that contradict each other, or could never be satisfied."""
        earlier = {requirement.id: requirement for requirement in self._built}
        if part.of is not None and part.of not in earlier:
            raise wrong(
                self._name, self._document, (*place, "of"), f"no earlier requirement is called {part.of!r}", earlier
            )
        if part.of is not None and not earlier[part.of].has_inputs:
            raise wrong(self._name, self._document, (*place, "of"), f"{part.of} states no inputs by digest")
        if part.input is not None and part.of is None:
            raise wrong(self._name, self._document, (*place, "input"), "input needs of")
        if part.strength == "measured" and not _states_strength(uri):
            raise wrong(
                self._name,
                self._document,
                (*place, "strength"),
                f"{part.predicate} states no strength, so it is never measured",
            )
        self._require_in_force(part, earlier, place)
        self._require_deciders(part, uri, place)
        approval = uri == human_approval.URI
        for key, value in (("distinct", part.distinct), ("notBy", part.not_by), ("reviewed", part.reviewed)):
            if value is not None and not approval:
                raise wrong(self._name, self._document, (*place, key), f"{key} belongs to human-approval")
        for index, name in enumerate(part.reviewed or []):
            if name not in earlier:
                raise wrong(
                    self._name,
                    self._document,
                    (*place, "reviewed", index),
                    f"no earlier requirement is called {name!r}",
                    earlier,
                )

    def _require_deciders(self, part: RequirementPart, uri: str, place: Place) -> None:
        """No bare key among those who decide; the other lists of deciders know that by their type."""
        for index, signer in enumerate(part.by):
            if signer.key is not None and uri in DECISIONS:
                told = "a key is no person and decides nothing: list an issuer"
                raise wrong(self._name, self._document, (*place, "by", index), told)

    def _require_in_force(self, part: RequirementPart, earlier: Mapping[str, Requirement], place: Place) -> None:
        """What a requirement builds on must be in force when it is."""
        for key, names in (("of", [part.of] if part.of else []), ("reviewed", part.reviewed or [])):
            for name in names:
                later = earlier[name].part.effective_on if name in earlier else None
                if later is not None and (part.effective_on is None or part.effective_on < later):
                    raise wrong(
                        self._name,
                        self._document,
                        (*place, key),
                        f"{name} comes into force later, {rfc3339(later)}, so there would be nothing to build on",
                        remedy="give both the same effectiveOn",
                    )

    def _condition(self, source: str, uri: str, place: Place) -> Condition:
        return self._at(place, lambda: compile_condition(source, uri))

    def _take(self, identifier: str, place: Place) -> str:
        if identifier in self._ids:
            raise wrong(
                self._name, self._document, place, f"the id {identifier!r} is taken", remedy="give each rule its own id"
            )
        self._ids.add(identifier)
        return identifier

    def _at(self, place: Place, make: Callable[[], _T]) -> _T:
        try:
            return make()
        except Error as error:
            line = self._document.line(place)
            raise PolicyInvalid(
                f"{self._name} line {line}: {error.message}",
                got=error.got,
                expected=error.expected,
                remedy=error.remedy,
            ) from error


def _ordered(entries: list[_Entry]) -> list[_Entry]:
    """Each after what it builds on, otherwise as they come; what builds on itself is left to be refused."""
    done: list[_Entry] = []
    waiting = list(entries)
    while waiting:
        open_ = {entry.id for entry in waiting}
        following = next((entry for entry in waiting if not entry.needs & open_ - {entry.id}), waiting[0])
        done.append(following)
        waiting.remove(following)
    return done


def _states_strength(uri: str) -> bool:
    """Whether evidence of that type says how it came about: in a field, or where the type has another place for it."""
    return "strength" in of_predicate(uri).fields or isinstance(
        getattr(predicates.MODELS[uri], "strength", None), property
    )


def wrong(
    name: str, document: Document, place: Place, message: str, expected: Iterable[str] = (), remedy: str | None = None
) -> PolicyInvalid:
    """The fault at `place` of `document`, as an error that names its line."""
    where = ".".join(str(step) for step in place) or "the top"
    return PolicyInvalid(
        f"{name} line {document.line(place)}: {where}: {message}", expected=", ".join(expected) or None, remedy=remedy
    )
