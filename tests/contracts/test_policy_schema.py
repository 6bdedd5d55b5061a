"""The schema that editors complete and check by, and the loader, say the same about policies; the loader says more."""

import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

from mlseal.errors import PolicyInvalid
from mlseal.policy import editor, plainyaml
from mlseal.policy.load import load, parse
from mlseal.services import starter_policy

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = jsonschema.Draft202012Validator(editor.document())


def of_unit(name):
    spec = importlib.util.spec_from_file_location(f"corpus_{name}", ROOT / "tests/unit/policy" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOADING, LAYERS = of_unit("test_load"), of_unit("test_layers")
FINER = {  # what no schema says: meaning, other places of the file, other files
    "unknown predicate under another name",
    "misspelt field",
    "misspelt metric field",
    "id taken twice",
    "reserved id",
    "of something later",
    "of something without inputs",
    "input without of",
    "distinct on evidence",
    "reviewed of nothing",
    "measured without strength",
    "test of a misspelt field",
}


def fits(text):
    return VALIDATOR.is_valid(plainyaml.parse(text.encode(), "p").value)


def test_the_copy_that_ships_is_the_one_that_is_made():
    assert editor.FILE.read_text() == editor.text(), "python docs/make_predicates.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(editor.FILE.read_text()))


def test_every_key_is_explained_where_one_types_it():
    schema = editor.document()
    for name, shape in (("PolicyPart", schema), ("RequirementPart", schema["$defs"]["RequirementPart"])):
        assert {f"{name}.{key}" for key in shape["properties"]} == {k for k in editor.KEYS if k.startswith(name + ".")}
        assert all(part["description"] for part in shape["properties"].values())


@pytest.mark.parametrize("name", LOADING.CHANGES)
def test_what_the_loader_refuses_the_schema_refuses_or_cannot_say(name):
    old, new, _ = LOADING.CHANGES[name]
    text = LOADING.TEXT.replace(old, new, 1)
    assert fits(LOADING.TEXT)
    assert fits(text) is (name in FINER), list(VALIDATOR.iter_errors(plainyaml.parse(text.encode(), "p").value))[:2]


POLICIES = sorted(
    file for folder in ("examples", "tests/unit/policy") for file in (ROOT / folder).rglob("*.yaml")
    if file.read_text().startswith("policy: ") or "\npolicy: " in file.read_text()
)  # fmt: skip


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.name)
def test_every_policy_here_fits(file):
    assert load(file).name
    assert fits(file.read_text())


def test_the_starter_and_all_layers_fit():
    assert fits(starter_policy.text("lab.example"))
    assert fits(LAYERS.ORG)
    for body in LAYERS.TIGHTER.values():
        assert fits(LAYERS.layer(body)), body


HEAD = "policy: a/1\n"
RULE = "require: [{predicate: fairness, by: [{issuer: i, san: s}]}]\n"
ACTS = "applies: [{tool: t, action: a}]\n"
WINDOW = (
    "freeze: [{tool: t, action: a, from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, owner: o, reason: r}]\n"
)
CORPUS = {
    "a requirement": (HEAD + ACTS + RULE, True),
    "windows alone": (HEAD + WINDOW, True),
    "data policies alone": (HEAD + "dataPolicy: {by: [{issuer: i, san: s}]}\n", True),
    "unused keys": (HEAD + ACTS + RULE + "observe:\nwaivers: null\n", True),
    "any fact": (HEAD + 'applies: [{tool: t, action: a, model: "x y-*"}]\n' + RULE, True),
    "a URI": (HEAD + ACTS + RULE.replace("fairness", "https://mlseal.dev/fairness/v0.1"), True),
    "an offset": (HEAD + WINDOW.replace("2026-12-20T00:00:00Z", "2026-12-20T00:00:00.5+01:00"), True),
    "nothing": (HEAD, False),
    "nothing but nulls": (HEAD + "require:\nfreeze:\n", False),
    "requirements without actions": (HEAD + RULE, False),
    "actions without requirements": (HEAD + ACTS, False),
    "actions and null": (HEAD + ACTS + WINDOW + "require: null\n", False),
    "unsigned without requirements": (
        HEAD + WINDOW + "unsigned: [{name: a, owner: o, until: 2027-01-01T00:00:00Z}]\n",
        False,
    ),
    "unsigned by pattern": (
        HEAD + ACTS + RULE + "unsigned: [{name: a*, owner: o, until: 2027-01-01T00:00:00Z}]\n",
        False,
    ),
    "a window without reason": (HEAD + WINDOW.replace(", reason: r", ""), False),
    "a window in days": (HEAD + WINDOW.replace("2026-12-20T00:00:00Z", "2026-12-20"), False),
    "outer spaces": (HEAD + 'applies: [{tool: t, action: " a"}]\n' + RULE, False),
    "a line break": (HEAD + 'applies: [{tool: t, action: "a\\nb"}]\n' + RULE, False),
    "two ways to name": (HEAD + ACTS + RULE.replace("san: s", "san: s, role: r"), False),
    "no way to name": (HEAD + ACTS + RULE.replace("san: s", "san: null"), False),
    "duration in another unit": (HEAD + ACTS + RULE + "revocationMaxAge: 24s\n", False),
    "digest cut": (HEAD + "extends: {policy: b/1, sha256: abc}\n", False),
    "waivable as text": (
        HEAD + ACTS + RULE.replace("}]}]", "}], when: [{id: a, message: m, check: 'p.runId == \"a\"', waivable: 'no'}]}]"),
        False,
    ),
    "tests of unknown samples' keys": (HEAD + ACTS + RULE + "tests: [{name: n, expect: refused, ages: {'1': 1d}}]\n", False),
    "strength by half": (HEAD + ACTS + RULE.replace("}]}]", "}], strength: certain}]"), False),
}  # fmt: skip


@pytest.mark.parametrize(("text", "good"), CORPUS.values(), ids=CORPUS.keys())
def test_both_agree(text, good):
    try:
        parse(text.encode())
        loaded = True
    except PolicyInvalid:
        loaded = False
    assert (loaded, fits(text)) == (good, good), list(VALIDATOR.iter_errors(plainyaml.parse(text.encode(), "p").value))
