"""A prompt is text kept in tags; its subject is the text, its type, its model settings and its response format.

MLflow stores a prompt as a registered model without files. What decides whether a version *is* a prompt is its source,
which nobody can change afterwards, together with the model's tag: a tag alone would let a model with files pass as a
harmless text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlseal.errors import Misuse

IS_PROMPT = "mlflow.prompt.is_prompt"
SOURCES = frozenset({"dummy-source", "prompt-template"})  # mlflow/prompt/constants.py, checked by a test
_TEXT, _TYPE = "mlflow.prompt.text", "_mlflow_prompt_type"
_FORMAT, _SETTINGS = "_mlflow_prompt_response_format", "_mlflow_prompt_model_config"


def is_prompt(source: str, model_tags: Mapping[str, str]) -> bool:
    """Whether a version with this source, in a model with these tags, is a prompt."""
    return source in SOURCES and model_tags.get(IS_PROMPT, "").lower() == "true"


def content(tags: Mapping[str, str]) -> bytes:
    """The bytes that stand for a prompt version: RFC 8785 JSON of text, type, settings and response format.

    Raises `Misuse` when there is no text, or when a part that should be JSON is not.
    """
    from mlseal.evidence import canonical

    text = tags.get(_TEXT)
    if not text:
        raise Misuse("this prompt version has no text", got=f"no tag {_TEXT}")
    document: dict[str, Any] = {"text": text, "type": tags.get(_TYPE, "text")}
    for member, key in (("responseFormat", _FORMAT), ("modelConfig", _SETTINGS)):
        if key in tags:
            document[member] = _json(key, tags[key])
    return canonical.dumps(document) + b"\n"


def _json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Misuse(f"tag {key} of this prompt version is not JSON", got=text[:60]) from error
