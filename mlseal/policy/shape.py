"""What a condition may name: the fields of a predicate, from the JSON Schema that ships with it.

CEL does not know the fields of a map, so a misspelt one is found by it only when evidence is judged, and by ``has()``
never. Here every name is looked up when the policy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mlseal.evidence import predicates

ORDERED = frozenset({"number", "time", "duration"})
"""Kinds that ``<`` and its like may compare; text is not among them: "10" < "9"."""


@dataclass(frozen=True)
class Shape:
    """What stands at one place of a predicate.

    Attributes:
        kind: object, map, list, text, number, bool, time, duration, null, or any (the schema says nothing).
        fields: of an object.
        optional: fields that may be absent.
        item: of a list or map.
        nonempty: of a list that the schema does not let be empty.
        choices: the only texts that can stand here; empty if any can.
    """

    kind: str
    fields: Mapping[str, Shape] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    item: Shape | None = None
    nonempty: bool = False
    choices: frozenset[str] = frozenset()


ANY = Shape("any")
TEXT, NUMBER, BOOL, TIME, DURATION, NULL = (Shape(k) for k in ("text", "number", "bool", "time", "duration", "null"))


@lru_cache(maxsize=128)
def of_predicate(uri: str) -> Shape:
    """The shape of the predicate type `uri`. Raises `UnknownName` for a type without a schema."""
    schema = predicates.schema(uri)
    return _shape(schema, schema.get("$defs", {}))


def of_value(value: object) -> Shape:
    """The shape of a constant in a condition."""
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int | float):
        return NUMBER
    return TEXT if isinstance(value, str) else NULL


def _shape(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Shape:
    if "$ref" in schema:
        return _shape(defs[schema["$ref"].rsplit("/", 1)[-1]], defs)
    if "anyOf" in schema:
        present = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return _shape(present[0], defs) if len(present) == 1 else ANY
    if "const" in schema:
        return Shape("text", choices=frozenset({str(schema["const"])})) if isinstance(schema["const"], str) else ANY
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, defs)
    if kind == "array":
        return Shape("list", item=_shape(schema.get("items", {}), defs), nonempty=schema.get("minItems", 0) > 0)
    if kind == "string":
        return Shape("text", choices=frozenset(schema.get("enum", ())))
    return {"integer": NUMBER, "number": NUMBER, "boolean": BOOL, "null": NULL}.get(str(kind), ANY)


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> Shape:
    properties = schema.get("properties")
    if properties is None:
        extra = schema.get("additionalProperties", True)
        return Shape("map", item=_shape(extra, defs) if isinstance(extra, dict) else ANY)
    optional = frozenset(
        name for name, part in properties.items() if any(o.get("type") == "null" for o in part.get("anyOf", ()))
    )
    return Shape("object", fields={name: _shape(part, defs) for name, part in properties.items()}, optional=optional)
