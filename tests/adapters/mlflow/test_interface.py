"""MLflow's own interface in a browser: whoever clicks is told why not, and what would help; state is asked for apart."""

from __future__ import annotations

import json
import time

import pytest

from tests import browser
from tests.adapters.mlflow import conftest

FIRST, REST = conftest.POLICY.split("require:\n")
EACH = REST.replace("    by:", "    id: tests-{n}\n    by:").replace("id: passed", "id: passed-{n}")
SEVEN = FIRST + "require:\n" + "".join(EACH.replace("{n}", str(n)) for n in range(1, 8))
"""As many requirements as a ready pack has; one piece of evidence serves them all."""


@pytest.fixture(scope="module")
def _shop(module_shop):
    return module_shop(policy=SEVEN, workers=1)


@pytest.fixture
def shop(_shop, enter):
    return enter(_shop)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("pictures")) as one:
        yield one


def refusal(shop, window, do, model, version, **what):
    """What the page says against it; all of it can be read."""
    answer = window.ask(do, url=shop.url, model=model, version=version, **what)
    assert answer["alert"], "the page says nothing against it"
    assert answer["whole"], "the message runs out of the window"
    return answer["alert"]


def done(shop, window, do, model, version, **what):
    answer = window.ask(do, url=shop.url, model=model, version=version, **what)
    assert answer["alert"] is None, answer["alert"]


def tells_all(said, model):
    """Every reason beside its remedy, and who must have signed."""
    assert f"refused: undecided by tests/1: 7 reasons against {model} (sha256 " in said
    for number in range(1, 8):
        remedy = f"mlseal sign {model} --type test-result"
        assert f"({number}) tests-{number}: no test-result evidence; remedy: {remedy}" in said
    assert "expected, where nothing else is said: signed by https://demo.mlseal.local/roles/evaluator" in said


def test_an_alias_is_refused_with_reasons_and_given_once_they_are_gone(shop, window):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    tells_all(refusal(shop, window, "aliases", name, version, add=["champion"]), name)
    assert shop.aliases(name) == {}
    shop.prove(files)
    done(shop, window, "aliases", name, version, add=["champion"])
    assert shop.aliases(name) == {"champion": version}


def test_a_stage_too(shop, window):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    tells_all(refusal(shop, window, "stage", name, version, stage="Production"), name)
    assert shop.client.get_model_version(name, version).current_stage == "None"
    shop.prove(files)
    done(shop, window, "stage", name, version, stage="Production")
    assert shop.client.get_model_version(name, version).current_stage == "Production"


def test_a_copy_into_another_model_too(shop, window):
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    to = shop.fresh("a{}-prod")
    shop.client.create_registered_model(to)
    tells_all(refusal(shop, window, "promote", name, version, to=to), to)
    assert shop.client.search_model_versions(f"name='{to}'") == []
    shop.prove(files)
    done(shop, window, "promote", name, version, to=to)
    assert [v.source for v in shop.client.search_model_versions(f"name='{to}'")] == [f"models:/{name}/{version}"]


def test_a_refused_alias_stays_where_it_was(shop, window):
    name, version, _ = shop.model(proven=True)
    shop.client.set_registered_model_alias(name, "champion", version)
    source, _ = shop.upload(shop.pyfunc())
    model_id = source.removeprefix("models:/")
    second = shop.client.create_model_version(name, source, model_id=model_id, await_creation_for=0).version
    tells_all(refusal(shop, window, "aliases", name, second, add=["champion"]), name)
    assert shop.aliases(name) == {"champion": version}


def test_what_one_dialog_removes_is_gone_though_what_it_adds_is_refused(shop, window):
    """MLflow's dialog sends each change by itself: a removal stops a model, and that nobody is kept from."""
    name, version, _ = shop.model(proven=True)
    shop.client.set_registered_model_alias(name, "champion", version)
    said = refusal(shop, window, "aliases", name, version, add=["live"], remove=["champion"])
    assert "no policy governs this action" in said
    end = time.monotonic() + 60
    while shop.aliases(name) != {}:  # the other request may still be on its way
        assert time.monotonic() < end
        time.sleep(0.1)
    log = shop.authority.home.path / ".local/state/mlseal/mlflow-decisions/decisions.jsonl"
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if line["action"]["model"] == name]
    ends = {(line["action"]["alias"], line["decision"]) for line in lines if "alias" in line["action"]}
    assert ends == {("champion", "allowed"), ("champion", "demoted"), ("live", "refused")}
