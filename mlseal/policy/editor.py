"""The JSON Schema of policy files, for editors: made from the very definitions that `mlseal.policy.load` reads by.

What the schema refuses, the loader refuses. The loader also refuses what a schema cannot say: conditions that do not
compile, ids used twice, windows that end before they begin, layers that loosen. A test compares the two on a corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlseal.evidence import predicates
from mlseal.policy.schema import PolicyPart

FILE = Path(__file__).with_name("policy.schema.json")
"""The copy that ships in the wheel."""
URI = "https://mlseal.dev/policy/v0.1/schema"
KEYS: Mapping[str, str] = {
    "PolicyPart.policy": "Name and version; with the SHA-256 of the file it stands in every verdict.",
    "PolicyPart.extends": "The policy that this one is a layer of; it may only tighten it.",
    "PolicyPart.applies": "Which actions are governed: patterns over tool, action and any facts; * is any text.",
    "PolicyPart.assurance": "Least level on each axis; an absent axis means the strictest.",
    "PolicyPart.revocationMaxAge": "How old the newest revocation snapshot may be: 24h if absent.",
    "PolicyPart.revokers": "Who may take evidence back and sign snapshots; nobody means every verdict is undecided.",
    "PolicyPart.gate": "Identities of gates; what they signed is never evidence.",
    "PolicyPart.ownership": "Who may state who holds which role.",
    "PolicyPart.dataPolicy": "Who may sign data policies, and whether data without one stop a run.",
    "PolicyPart.waivers": "Who may excuse a rule.",
    "PolicyPart.unsigned": "Sources that nobody signs and that count all the same, until a date.",
    "PolicyPart.observe": "Judge and record, but let through, until a date.",
    "PolicyPart.require": "The evidence that must exist and hold.",
    "PolicyPart.ungoverned": "Actions let through without evidence, by whose decision and until when.",
    "PolicyPart.freeze": "Windows in which actions are refused whatever the evidence says.",
    "PolicyPart.opa": "Decisions of OPA servers that must be true besides; they only make the policy stricter.",
    "PolicyPart.tests": "Negative controls: imagined evidence that must be stopped.",
    "RequirementPart.predicate": "Short name or URI of the predicate type.",
    "RequirementPart.id": "Name in verdicts, waivers, of and reviewed; the short name if absent.",
    "RequirementPart.by": "Who may have signed: an issuer with exactly one of san, emailDomain and role; or a key.",
    "RequirementPart.of": "An earlier requirement whose evidence names inputs by digest; this is about each of them.",
    "RequirementPart.input": "With of: only inputs of this name.",
    "RequirementPart.where": "CEL that selects which results the requirement is about.",
    "RequirementPart.strength": "Least claim: measured > declared > inferred.",
    "RequirementPart.maxAge": "By verified time: 15m, 24h, 30d, 12w.",
    "RequirementPart.when": "Conditions, all of which must be true.",
    "RequirementPart.distinct": "human-approval: how many people.",
    "RequirementPart.notBy": "human-approval: roles whose holders do not count.",
    "RequirementPart.reviewed": "human-approval: requirements whose evidence must have been read.",
    "RequirementPart.assurance": "As at the top, for this requirement alone.",
    "RequirementPart.effectiveOn": "From when it binds; before, verdicts note it as coming.",
    "RequirementPart.remedy": "Command to print instead of the built-in one; {path} is replaced.",
    "RequirementPart.control": "References to outside frameworks; repeated in reasons.",
    "Opa.id": "Name in verdicts and tests; opa if absent.",
    "Opa.server": "URL; https, or http to this machine. Token and CA stand in opa.json, not here.",
    "Opa.decision": "Path of a rule under /v1/data: true, false or {allow, reasons}.",
    "Opa.bundle": "Which of the server's bundles has the revision, if it has several.",
    "Opa.revision": "Of the bundle, exactly; another one is undecided.",
    "Opa.timeout": "For everything, 1s to 30s; 5s if absent.",
    "Opa.control": "References to outside frameworks; repeated in reasons.",
}
"""What an editor shows at each key; docs/policy.md says more."""
_EXACT = r"^[^*]*$"


def document() -> dict[str, Any]:
    """The schema of a whole policy file."""
    schema = PolicyPart.model_json_schema(by_alias=True)
    shapes = schema["$defs"]
    for shape in (schema, *shapes.values()):
        _tidy(shape)
    _describe("PolicyPart", schema)
    _describe("RequirementPart", shapes["RequirementPart"])
    _describe("Opa", shapes["Opa"])
    names = {"anyOf": [{"enum": sorted(predicates.SHORT)}, {"enum": sorted(predicates.MODELS)}]}
    shapes["RequirementPart"]["properties"]["predicate"] |= names
    shapes["Sample"]["properties"]["predicate"] |= names
    signer = shapes["Signer"]
    signer["properties"]["san"]["anyOf"][0]["pattern"] = _EXACT
    signer["properties"]["issuer"]["anyOf"][0]["pattern"] = _EXACT
    people, of_key = ("san", "emailDomain", "role"), ("from", "until")
    signer["if"] = _stated("key")
    signer["then"] = {"not": {"anyOf": [_stated(key) for key in ("issuer", *people)]}}
    signer["else"] = {
        **_stated("issuer"),
        "oneOf": [_stated(key) for key in people],
        "not": {"anyOf": [_stated(key) for key in of_key]},
    }
    shapes["UnsignedSource"]["properties"]["name"]["pattern"] = r"^[!-)+-~]([ -)+-~]*[!-)+-~])?$"
    whole = {
        "anyOf": [_stated(key) for key in ("require", "ungoverned", "dataPolicy", "freeze")],
        "oneOf": [_stated("applies", "require"), {"not": {"anyOf": [_stated("applies"), _stated("require")]}}],
        "not": {"allOf": [{"anyOf": [_stated("unsigned"), _stated("opa")]}, {"not": _stated("require")}]},
    }
    schema |= {"if": _stated("extends"), "else": whole}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": URI, "title": "mlseal policy"}
    return {**head, **{key: value for key, value in schema.items() if key != "title"}}


def text() -> str:
    """The schema as the file that ships holds it."""
    return json.dumps(document(), indent=1, sort_keys=True) + "\n"


def _stated(*keys: str) -> dict[str, Any]:
    """The keys are there, and not null."""
    return {"required": list(keys), "properties": {key: {"not": {"type": "null"}} for key in keys}}


def _describe(name: str, shape: dict[str, Any]) -> None:
    for key, said in shape["properties"].items():
        said["description"] = KEYS[f"{name}.{key}"]


def _tidy(shape: dict[str, Any]) -> None:
    """Without titles that repeat the key and defaults in another notation; maps take the keys that they name only."""
    shape["description"] = " ".join(shape.get("description", "").split())
    for part in _parts(shape):
        part.pop("title", None)
        if str(part.get("default", "")).startswith("P") or part.get("default", 0) is None:
            part.pop("default")
        if "patternProperties" in part:
            part["additionalProperties"] = False


def _parts(shape: Any) -> Iterator[dict[str, Any]]:
    if isinstance(shape, dict):
        for key, value in shape.items():
            if key == "properties":
                for inner in value.values():
                    yield inner
                    yield from _parts(inner)
            elif isinstance(value, dict | list):
                yield from ([value] if isinstance(value, dict) and key != "$defs" else [])
                yield from _parts(value)
    elif isinstance(shape, list):
        for item in shape:
            if isinstance(item, dict):
                yield item
            yield from _parts(item)
