"""Imagined evidence, for a policy's own tests.

Nothing here was signed or verified, and no verdict over samples leaves the process: `controls` compares it with what
the policy's author expects and drops it. The gate itself reads an archive only (`mlseal.policy.gate.judge`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from mlseal.evidence import canonical, keyholder, predicates
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.digest import Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.revocation import Revocations
from mlseal.policy.facts import Elsewhere, Found, Target, Withheld
from mlseal.policy.model import Matcher
from mlseal.policy.schema import Assurance
from mlseal.policy.verdict import Input

_HEX = re.compile(r"\^\[0-9a-f\]\{([0-9]+)\}\$")


@dataclass(frozen=True)
class SampleFact:
    """A fact that was never verified; satisfies `VerifiedFact` in shape only."""

    evidence_id: str
    predicate_type: str
    predicate: BaseModel
    subjects: tuple[Subject, ...]
    identity: Identity
    time: datetime
    assurance: Assurance = field(default_factory=Assurance)

    @property
    def bundle_sha256(self) -> str:
        """There is no bundle; the id again."""
        return self.evidence_id


@dataclass(frozen=True)
class SampleSource:
    """A `Source` over samples: the same questions, answered from a list."""

    facts: tuple[SampleFact, ...]
    taken_back: Revocations
    withheld: tuple[Withheld, ...] = ()
    tree_size: int = 0

    def find(self, target: Target, predicate_type: str, identities: Sequence[Matcher]) -> Found:
        """Samples of a type about a target, divided by who signed."""
        about = [
            f
            for f in self.facts
            if f.predicate_type == predicate_type and target.sha256 in {s.sha256 for s in f.subjects}
        ]
        listed = tuple(f for f in about if keyholder.listed(identities, f.identity, f.time))
        return Found(listed, (), tuple(f.identity for f in about if f not in listed))

    def signers(self, target: Target, predicate_type: str) -> frozenset[Identity]:
        """Whoever signed samples of a type about a target."""
        return frozenset(
            f.identity
            for f in self.facts
            if f.predicate_type == predicate_type and target.sha256 in {s.sha256 for s in f.subjects}
        )

    def revocations(self, revokers: Sequence[Matcher]) -> Revocations:
        """What the test says was taken back."""
        return self.taken_back if revokers else Revocations()

    def revocation_inputs(self, revokers: Sequence[Matcher]) -> tuple[Input, ...]:
        """None: the test states the outcome, not the statements."""
        del revokers
        return ()

    def unresolved(self, revocations: Revocations) -> Sequence[Withheld]:
        """Leaves that the test leaves without a bundle."""
        return [leaf for leaf in self.withheld if revocations.of(leaf.evidence_id) is None]

    def elsewhere(self) -> Elsewhere | None:
        """None: a test has no store."""
        return None


def digest(name: str) -> str:
    """The SHA-256 that stands for the thing called `name` in a test."""
    return hashlib.sha256(f"sample:{name}".encode()).hexdigest()


def make(
    predicate_type: str,
    body: Mapping[str, Any],
    identity: Identity,
    time: datetime,
    *,
    about: str = "target",
    now: datetime | None = None,
    assurance: Assurance | None = None,
    salt: str = "",
) -> SampleFact:
    """A sample whose missing fields have the least values that the schema lets pass.

    Raises `MalformedEvidence` if `body` breaks the schema: a test must imagine evidence that could exist.
    """
    uri = predicates.uri_of(predicate_type)
    schema = predicates.schema(uri)
    least = _least(schema, schema.get("$defs", {}), rfc3339(now or time))
    claim = _over(least, body)
    named = canonical.dumps([uri, claim, about, identity.issuer, identity.san, rfc3339(time), salt])
    return SampleFact(
        hashlib.sha256(named).hexdigest(),
        uri,
        predicates.check(uri, claim),
        (Subject(about, digest(about)),),
        identity,
        time,
        assurance or Assurance(),
    )


def _over(least: Any, body: Any) -> Any:
    """`body`, its missing members taken from `least`."""
    if isinstance(least, dict) and isinstance(body, Mapping):
        return {**least, **{key: _over(least.get(key), value) for key, value in body.items()}}
    if isinstance(least, list) and least and isinstance(body, list):
        return [_over(least[0], item) for item in body]
    return body


def _least(schema: Mapping[str, Any], defs: Mapping[str, Any], now: str) -> Any:
    """The smallest instance of a JSON Schema as pydantic writes it."""
    if "$ref" in schema:
        return _least(defs[schema["$ref"].rsplit("/", 1)[-1]], defs, now)
    if "anyOf" in schema:
        return _least(schema["anyOf"][0], defs, now)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if schema.get("type") == "object":
        # A model that needs one of several fields says so by oneOf; the first of them is the least.
        required = [*schema.get("required", ()), *schema.get("oneOf", [{}])[0].get("required", ())]
        return {key: _least(part, defs, now) for key, part in schema.get("properties", {}).items() if key in required}
    if schema.get("type") == "array":
        return [_least(schema.get("items", {}), defs, now)] * int(schema.get("minItems", 0))
    if schema.get("type") == "string":
        return _text(schema.get("pattern"), now)
    return {"integer": schema.get("minimum", 0), "number": 0.0, "boolean": False}.get(str(schema.get("type")))


def _text(pattern: str | None, now: str) -> str:
    if pattern is None:
        return "sample"
    if "T" in pattern:
        return now
    found = _HEX.fullmatch(pattern)
    return "0" * int(found[1]) if found else "0"
