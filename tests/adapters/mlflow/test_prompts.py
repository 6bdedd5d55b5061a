"""A prompt is judged by its text, and the text of a prompt in use cannot be rewritten."""

from __future__ import annotations

import hashlib
import json
import uuid

import pytest
from mlseal_mlflow import prompts

from mlseal.errors import Misuse
from mlseal.evidence.digest import Subject


def made(shop, text):
    name = shop.fresh("prompt-{}")
    shop.client.register_prompt(name, text)
    return name


def subject(shop, name):
    tags = shop.tags(name, "1")
    content = prompts.content(tags)
    assert json.loads(content)["text"].startswith("Say")
    return Subject(name, hashlib.sha256(content).hexdigest())


def test_alias_of_a_prompt_needs_evidence_about_its_text(shop):
    name = made(shop, f"Say {uuid.uuid4().hex} to {{{{name}}}}")
    shop.refused(lambda: shop.client.set_prompt_alias(name, "live", 1), "no test-result evidence")
    assert shop.aliases(name) == {}
    shop.prove_subjects([subject(shop, name)])
    shop.client.set_prompt_alias(name, "live", 1)
    assert shop.aliases(name) == {"live": "1"}


@pytest.mark.parametrize(
    "key",
    ["mlflow.prompt.text", "_mlflow_prompt_type", "_mlflow_prompt_model_config", "_mlflow_prompt_response_format"],
)
def test_the_text_of_a_prompt_in_use_is_fixed(shop, key):
    text = f"Say {uuid.uuid4().hex}"
    name = made(shop, text)
    shop.set_tag(name, "1", "mlflow.prompt.text", text + "!")  # nothing points at it yet
    shop.prove_subjects([subject(shop, name)])
    shop.client.set_prompt_alias(name, "live", 1)
    shop.refused(lambda: shop.set_tag(name, "1", key, "{}"), "in use")
    shop.refused(lambda: shop.delete_tag(name, "1", key), "in use")
    shop.set_tag(name, "1", "note", "free")
    assert shop.tags(name, "1")["mlflow.prompt.text"] == text + "!"


def test_a_model_cannot_be_declared_a_prompt(shop):
    """Else evidence about a harmless text would carry an alias on files."""
    name, version, _ = shop.model(name=shop.fresh("prompt-{}"))
    shop.refused(
        lambda: shop.client.set_registered_model_tag(name, "mlflow.prompt.is_prompt", "true"),
        "settled when it is created",
    )
    shop.set_tag(name, version, "mlflow.prompt.is_prompt", "true")
    shop.set_tag(name, version, "mlflow.prompt.text", "Say yes")
    shop.prove_subjects([Subject(name, hashlib.sha256(prompts.content({"mlflow.prompt.text": "Say yes"})).hexdigest())])
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "live", version), "no test-result evidence")
    assert shop.aliases(name) == {}


def test_files_in_a_model_that_was_created_as_a_prompt(shop):
    """MLflow's client keeps the two apart, its server does not."""
    name = made(shop, f"Say {uuid.uuid4().hex}")
    shop.prove_subjects([subject(shop, name)])
    source, _ = shop.upload(shop.pyfunc())
    text = [{"key": "mlflow.prompt.text", "value": shop.tags(name, "1")["mlflow.prompt.text"]}]
    body = {"name": name, "source": source, "model_id": source.removeprefix("models:/"), "tags": text}
    answer = shop.post("model-versions/create", **body)
    assert answer.status_code == 200, answer.text
    answer = shop.post("registered-models/alias", name=name, alias="live", version="2")
    assert answer.status_code == 403, answer.text
    assert shop.aliases(name) == {}


def test_settings_and_format_are_part_of_the_subject():
    tags = {"mlflow.prompt.text": "Say", "_mlflow_prompt_type": "text"}
    seen = {
        prompts.content(tags),
        prompts.content({**tags, "_mlflow_prompt_type": "chat"}),
        prompts.content({**tags, "_mlflow_prompt_model_config": '{"temperature": 1}'}),
        prompts.content({**tags, "_mlflow_prompt_response_format": '{"temperature": 1}'}),
    }
    assert len(seen) == 4
    assert prompts.content({**tags, "other": "x"}) == prompts.content(tags)


@pytest.mark.parametrize(
    "tags", [{}, {"mlflow.prompt.text": ""}, {"mlflow.prompt.text": "Say", "_mlflow_prompt_model_config": "{"}]
)
def test_what_is_no_prompt_is_misuse(tags):
    with pytest.raises(Misuse):
        prompts.content(tags)
