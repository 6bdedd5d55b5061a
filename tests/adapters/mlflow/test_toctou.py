"""Between verdict and write somebody else changes what the verdict was about: nothing is written.

The store runs in this process, with the real gate; the change is made at the one moment that matters, right after the
gate said yes.
"""

from __future__ import annotations

import hashlib
import uuid

from mlseal_mlflow import prompts

from mlseal.evidence.digest import Subject


def put(desk, *, proven=True):
    """Files in storage; returns their URI."""
    return desk.put(proven=proven)


def model(desk, uri, name=None):
    name = name or desk.fresh()
    desk.store.create_registered_model(name)
    desk.other.create_model_version(name, uri)
    return name


def after_the_verdict(desk, monkeypatch, act):
    """Do `act` once, right after the next verdict."""
    for name in ("decide_model", "decide_prompt"):
        real = getattr(desk.store.decisions, name)

        def then(*arguments, real=real):
            made = real(*arguments)
            if todo:
                todo.pop()()
            return made

        monkeypatch.setattr(desk.store.decisions, name, then)
    todo = [act]


def recreated(desk, name, uri):
    def act():
        desk.other.delete_registered_model(name)
        desk.other.create_registered_model(name)
        desk.other.create_model_version(name, uri)

    return act


def test_recreated_before_the_alias_is_written(desk, monkeypatch):
    evil = put(desk, proven=False)
    name = model(desk, put(desk))
    after_the_verdict(desk, monkeypatch, recreated(desk, name, evil))
    desk.refused(lambda: desk.store.set_registered_model_alias(name, "champion", "1"), "changed while", status=409)
    assert desk.other.get_registered_model(name).aliases == {}
    assert desk.other.get_model_version_download_uri(name, "1") == evil


def test_recreated_before_the_stage_is_written(desk, monkeypatch):
    name = model(desk, put(desk))
    after_the_verdict(desk, monkeypatch, recreated(desk, name, put(desk, proven=False)))
    desk.refused(
        lambda: desk.store.transition_model_version_stage(name, "1", "Production", False), "changed while", status=409
    )
    assert desk.other.get_model_version(name, "1").current_stage == "None"


def test_deleted_before_the_alias_is_written(desk, monkeypatch):
    name = model(desk, put(desk))
    after_the_verdict(desk, monkeypatch, lambda: desk.other.delete_model_version(name, "1"))
    desk.refused(lambda: desk.store.set_registered_model_alias(name, "champion", "1"), "not found", status=404)
    assert desk.other.get_registered_model(name).aliases == {}


def test_the_source_of_a_copy_is_recreated(desk, monkeypatch):
    source = model(desk, put(desk))
    target = desk.fresh("risk-{}-prod")
    desk.store.create_registered_model(target)
    after_the_verdict(desk, monkeypatch, recreated(desk, source, put(desk, proven=False)))
    desk.refused(lambda: desk.store.create_model_version(target, f"models:/{source}/1"), "changed while", status=409)
    assert list(desk.other.search_model_versions(f"name='{target}'")) == []


def test_a_version_is_added_before_the_rename(desk, monkeypatch):
    name, target = model(desk, put(desk)), desk.fresh("risk-{}-prod")
    evil = put(desk, proven=False)
    after_the_verdict(desk, monkeypatch, lambda: desk.other.create_model_version(name, evil))
    desk.refused(lambda: desk.store.rename_registered_model(name, target), "changed while", status=409)
    assert len(desk.other.search_model_versions(f"name='{name}'")) == 2


def test_an_alias_moves_before_the_rename(desk, monkeypatch):
    name, target = model(desk, put(desk)), desk.fresh("risk-{}-prod")
    after_the_verdict(desk, monkeypatch, lambda: desk.other.set_registered_model_alias(name, "champion", 1))
    desk.refused(lambda: desk.store.rename_registered_model(name, target), "changed while", status=409)
    assert desk.other.get_registered_model(name).aliases == {"champion": 1}


def test_the_text_of_a_prompt_changes_before_the_alias_is_written(desk, monkeypatch):
    from mlflow.entities.model_registry import ModelVersionTag

    name, text = desk.fresh("prompt-{}"), f"Say {uuid.uuid4().hex}"
    desk.store.create_prompt(name)
    desk.store.create_prompt_version(name, text)
    content = prompts.content({"mlflow.prompt.text": text, "_mlflow_prompt_type": "text"})
    desk.prove_subjects([Subject(name, hashlib.sha256(content).hexdigest())])
    tag = ModelVersionTag("mlflow.prompt.text", "Say evil")
    after_the_verdict(desk, monkeypatch, lambda: desk.other.set_model_version_tag(name, "1", tag))
    desk.refused(lambda: desk.store.set_prompt_alias(name, "live", 1), "changed while", status=409)
    assert desk.other.get_registered_model(name).aliases == {}


def test_what_does_not_change_the_bytes_does_not_disturb(desk, monkeypatch):
    name = model(desk, put(desk))
    after_the_verdict(desk, monkeypatch, lambda: desk.other.update_model_version(name, "1", "a description"))
    desk.store.set_registered_model_alias(name, "champion", "1")
    assert desk.other.get_registered_model(name).aliases == {"champion": 1}
