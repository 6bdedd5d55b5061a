"""Spellings that a reader takes for another name, or a database for the same."""

from __future__ import annotations

import pytest
from mlseal_mlflow import names

from mlseal.errors import Misuse


@pytest.mark.parametrize("text", ["champion", "Champion", "a", "v2.1_x-y"])
def test_plain_aliases_are_compared_without_case(text):
    assert names.alias(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "ｃｈａｍｐｉｏｎ",
        "chаmpion",
        "champion ",
        " champion",
        "cham\u200bpion",
        "champion\n",
        "",
        "cham pion",
        "ﬁnal",
        None,
        7,
    ],
)
def test_lookalike_aliases_are_misuse(text):
    with pytest.raises(Misuse):
        names.alias(text)


@pytest.mark.parametrize(
    "number", ["01", " 1", "1 ", "１", "+1", "1.0", "1_0", "٣", "0", "-1", "", "1\n", True, None, 1.0]
)
def test_other_spellings_of_a_version_are_misuse(number):
    with pytest.raises(Misuse):
        names.version(number)


@pytest.mark.parametrize(("number", "text"), [(1, "1"), ("12", "12"), (10**17, str(10**17))])
def test_a_version_has_one_spelling(number, text):
    assert names.version(number) == text


@pytest.mark.parametrize(
    "name",
    [
        "rіsk",
        "risk ",
        " risk",
        "ri\tsk",
        "riſk",
        "risk\u202e",
        "",
        "-risk",
        "a  b",
        "ri*k",
        "ri'sk",
        "r%69sk",
        "risk\n",
        "ri\\sk",
    ],
)
def test_lookalike_model_names_are_misuse(name):
    with pytest.raises(Misuse):
        names.model("default", name)


def test_a_model_is_keyed_by_workspace_and_name_without_case():
    assert names.model("Team-A", "Risk Model") == names.model("team-a", "risk model")
    assert names.model("a", "risk") != names.model("b", "risk")


@pytest.mark.parametrize("key", ["mlseal.ok", "MLSEAL.OK", "ｍｌｓｅａｌ.ok", " mlseal.x", "mlseal."])
def test_reserved_tags_are_known_in_every_spelling(key):
    assert names.reserved_tag(key)


@pytest.mark.parametrize("key", ["mlsealed", "team", "x.mlseal.y"])
def test_other_tags_are_free(key):
    assert not names.reserved_tag(key)


@pytest.mark.parametrize("name", ["risk", "Risk Model", "risk (v2)", "a", "risk.en-GB_1", "a+b=c", "_x"])
def test_plain_model_names_are_free(name):
    assert names.model("default", name).name == name.lower()
