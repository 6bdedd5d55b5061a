"""From a file to a policy that can be judged by, or one sentence naming the line that is wrong.

1. Read the bytes once; their SHA-256 is the policy's identity in every verdict.
2. Parse the part of YAML that cannot be misread (`mlseal.policy.plainyaml`).
3. Check every key and value against the schema; unknown keys are errors.
4. Check what the schema cannot: predicate types, ids, chaining; compile every condition against its predicate.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from mlseal.errors import Error, PolicyInvalid, Unreadable
from mlseal.evidence import paths, predicates
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.predicates import human_approval
from mlseal.policy import plainyaml
from mlseal.policy.cel import Condition, compile_condition
from mlseal.policy.model import Policy, Requirement, Rule
from mlseal.policy.plainyaml import Document
from mlseal.policy.plainyaml import Path as Place
from mlseal.policy.schema import PolicyPart, RequirementPart
from mlseal.policy.shape import of_predicate

_T = TypeVar("_T")
RESERVED = frozenset({"applies", "name", "log", "revocations", "gate", "freeze"})
"""Rule ids that the gate itself uses; no waiver can name them."""


def load(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file. Raises `Unreadable` if it cannot be read, `PolicyInvalid` naming the line otherwise."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(plainyaml.MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot read policy {file}", got=error.strerror, remedy="check the path") from error
    return parse(raw, name=str(file))  # (1)


def load_all(paths: Iterable[str | os.PathLike[str]]) -> tuple[Policy, ...]:
    """All policies of `paths`; a directory stands for its ``*.yaml`` and ``*.yml``. Names must be unique.

    Raises `PolicyInvalid` if there is none: nobody's policy is not a permission.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    policies = tuple(load(file) for file in files)
    names = [policy.name for policy in policies]
    if len(set(names)) != len(names):
        raise PolicyInvalid(
            "two policies have one name", got=", ".join(sorted({n for n in names if names.count(n) > 1}))
        )
    if not policies:
        raise PolicyInvalid(
            "no policy found", expected="a file, or a directory with *.yaml", remedy="pass --policy FILE"
        )
    return policies


def in_force(explicit: Sequence[str | os.PathLike[str]] = ()) -> tuple[Policy, ...]:
    """The policies chosen by this user or machine; () if nobody chose any, which permits nothing.

    `explicit`, else ``$MLSEAL_POLICY`` (files or directories, separated by ``:``), else ``policy.yaml`` in this user's
    configuration directory; the machine's ``/etc/mlseal/policy.yaml`` besides. Never a file of the tree being judged.
    """
    named = [Path(part) for part in explicit or os.environ.get("MLSEAL_POLICY", "").split(os.pathsep) if part]
    own = paths.config_dir() / "policy.yaml"
    chosen = named or ([own] if own.is_file() else [])
    machine = paths.machine_config_dir() / "policy.yaml"
    chosen += [machine] if machine.is_file() else []
    return load_all(chosen) if chosen else ()


def parse(raw: bytes, *, name: str = "policy") -> Policy:
    """The policy in `raw`; `name` stands in messages."""
    document = plainyaml.parse(raw, name)  # (2)
    try:
        part = PolicyPart.model_validate(document.value)  # (3)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = tuple(step for step in first["loc"] if step != "__pydantic_extra__")
        raise _wrong(name, document, place, first["msg"].removeprefix("Value error, ")) from error
    return _Builder(name, document, part).build(raw)  # (4)


class _Builder:
    def __init__(self, name: str, document: Document, part: PolicyPart) -> None:
        self._name, self._document, self._part = name, document, part
        self._ids: set[str] = set(RESERVED)
        self._built: list[Requirement] = []

    def build(self, raw: bytes) -> Policy:
        for index, part in enumerate(self._part.require or []):
            self._built.append(self._requirement(part, ("require", index)))
        return Policy(self._part.policy, hashlib.sha256(raw).hexdigest(), raw, self._part, tuple(self._built))

    def _requirement(self, part: RequirementPart, place: Place) -> Requirement:
        uri = self._at((*place, "predicate"), lambda: predicates.uri_of(part.predicate))
        short = next(name for name, known in predicates.SHORT.items() if known == uri)
        identifier = self._take(part.id or short, (*place, "id" if part.id else "predicate"))
        checks = tuple(
            Rule(
                self._take(check.id, (*place, "when", i, "id")),
                check.message,
                self._condition(check.check, uri, (*place, "when", i, "check")),
                check.waivable,
            )
            for i, check in enumerate(part.when or [])
        )
        where = None if part.where is None else self._condition(part.where, uri, (*place, "where"))
        self._require_sense(part, uri, place)
        return Requirement(identifier, uri, short, part, checks, where)

    def _require_sense(self, part: RequirementPart, uri: str, place: Place) -> None:
        """Keys that contradict each other, or could never be satisfied."""
        earlier = {requirement.id: requirement for requirement in self._built}
        if part.of is not None and part.of not in earlier:
            raise _wrong(
                self._name, self._document, (*place, "of"), f"no earlier requirement is called {part.of!r}", earlier
            )
        if part.of is not None and not earlier[part.of].has_inputs:
            raise _wrong(self._name, self._document, (*place, "of"), f"{part.of} states no inputs by digest")
        if part.input is not None and part.of is None:
            raise _wrong(self._name, self._document, (*place, "input"), "input needs of")
        if part.strength == "measured" and not _states_strength(uri):
            raise _wrong(
                self._name,
                self._document,
                (*place, "strength"),
                f"{part.predicate} states no strength, so it is never measured",
            )
        self._require_in_force(part, earlier, place)
        approval = uri == human_approval.URI
        for key, value in (("distinct", part.distinct), ("notBy", part.not_by), ("reviewed", part.reviewed)):
            if value is not None and not approval:
                raise _wrong(self._name, self._document, (*place, key), f"{key} belongs to human-approval")
        for index, name in enumerate(part.reviewed or []):
            if name not in earlier:
                raise _wrong(
                    self._name,
                    self._document,
                    (*place, "reviewed", index),
                    f"no earlier requirement is called {name!r}",
                    earlier,
                )

    def _require_in_force(self, part: RequirementPart, earlier: Mapping[str, Requirement], place: Place) -> None:
        """What a requirement builds on must be in force when it is."""
        for key, names in (("of", [part.of] if part.of else []), ("reviewed", part.reviewed or [])):
            for name in names:
                later = earlier[name].part.effective_on if name in earlier else None
                if later is not None and (part.effective_on is None or part.effective_on < later):
                    raise _wrong(
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
            raise _wrong(
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


def _states_strength(uri: str) -> bool:
    """Whether evidence of that type says how it came about: in a field, or where the type has another place for it."""
    return "strength" in of_predicate(uri).fields or isinstance(
        getattr(predicates.MODELS[uri], "strength", None), property
    )


def _wrong(
    name: str, document: Document, place: Place, message: str, expected: Iterable[str] = (), remedy: str | None = None
) -> PolicyInvalid:
    where = ".".join(str(step) for step in place) or "the top"
    return PolicyInvalid(
        f"{name} line {document.line(place)}: {where}: {message}", expected=", ".join(expected) or None, remedy=remedy
    )
