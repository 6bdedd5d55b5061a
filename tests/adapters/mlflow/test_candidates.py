"""Registering a version: judged where a policy governs it, free where one says so and until when, refused otherwise."""

from __future__ import annotations

import json

import pytest
from mlflow.exceptions import MlflowException

POLICY = """\
policy: strict/1
applies: [{{tool: mlflow, action: alias, alias: champion, model: "*", workspace: "*"}}]
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
require:
  - predicate: test-result
    by: [{{issuer: "{issuer}", san: "{evaluator}"}}]
ungoverned:
  - {{tool: mlflow, action: create, model: "risk-*", source: "models:/m-*", owner: lead, until: "2100-01-01T00:00:00Z"}}
  - {{tool: mlflow, action: create, model: "past-*", owner: lead, until: "2020-01-01T00:00:00Z"}}
"""


@pytest.fixture(scope="module")
def _strict(module_shop):
    return module_shop(policy=POLICY, workers=1)


@pytest.fixture
def shop(_strict, enter):
    return enter(_strict)


def register(shop, name, source=None):
    source = source or shop.upload(shop.pyfunc())[0]
    shop.client.create_registered_model(name)
    return shop.client.create_model_version(
        name, source, model_id=source.removeprefix("models:/"), await_creation_for=0
    )


def versions(shop, name):
    return [int(v.version) for v in shop.client.search_model_versions(f"name='{name}'")]


def decisions(shop):
    file = next(shop.authority.home.path.glob(".local/state/mlseal/mlflow-decisions/decisions.jsonl"))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_exempted_version_is_a_candidate_without_a_verdict(shop):
    name = shop.fresh()
    archive = shop.archive()
    archive.refresh()
    before = len(list(archive.index.leaves()))
    register(shop, name)
    assert versions(shop, name) == [1]
    line = decisions(shop)[-1]
    assert line["decision"] == "ungoverned"
    assert line["exemptedBy"] == "lead until 2100-01-01T00:00:00Z"
    assert line["action"]["model"] == name
    archive.refresh()
    assert len(list(archive.index.leaves())) == before
    shop.refused(lambda: shop.client.set_registered_model_alias(name, "champion", "1"), "no test-result evidence")


@pytest.mark.parametrize("pattern", ["else-{}", "past-{}"])
def test_what_no_policy_names_and_what_was_exempted_until_yesterday(shop, pattern):
    name = shop.fresh(pattern)
    message = shop.refused(lambda: register(shop, name), "no policy governs this action", "under ungoverned")
    assert f'{{tool: mlflow, action: create, model: "{name}", owner: WHO, until: WHEN}}' in message
    assert versions(shop, name) == []
    assert decisions(shop)[-1]["decision"] == "refused"


def test_an_exemption_by_source_does_not_cover_a_copy(shop):
    name, target = shop.fresh(), shop.fresh()
    register(shop, name)
    with pytest.raises(MlflowException, match="no policy governs this action"):  # MLflow's client wraps what it got
        shop.client.copy_model_version(f"models:/{name}/1", target)
    assert versions(shop, target) == []


def test_the_remedy_is_one(new_shop):
    """The line that the refusal names, put where it says."""
    shop = new_shop(policy=POLICY, workers=1, start=False)
    entry = '  - {tool: mlflow, action: create, model: "else-x", owner: me, until: "2100-01-01T00:00:00Z"}\n'
    shop.policy.write_text(shop.policy.read_text() + entry)
    shop.snapshot()
    shop.start()
    register(shop, "else-x")
    assert versions(shop, "else-x") == [1]
    name = shop.fresh("else-{}")
    shop.refused(lambda: register(shop, name), "no policy governs this action")


def test_what_mlseal_init_and_the_demo_ship_lets_versions_be_registered():
    from datetime import UTC, datetime
    from pathlib import Path

    from mlseal.policy import load
    from mlseal.services import starter_policy

    now = datetime(2026, 6, 1, tzinfo=UTC)
    facts = {"tool": "mlflow", "action": "create", "model": "outreach", "workspace": "default", "source": "x"}
    demo = Path(__file__).parents[3] / "examples/demo/policies/champion.yaml"
    assert load.load(demo).exempts(facts, now) is not None
    starter = load.parse(starter_policy.text("lab.example", clock=lambda: now).encode())
    assert starter.exempts(facts, now) is not None
    assert starter.exempts(facts, datetime(2027, 7, 1, tzinfo=UTC)) is None
    assert starter.exempts({**facts, "action": "alias"}, now) is None
