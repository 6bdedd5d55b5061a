"""The same name in two workspaces is two models; a rule for one does not speak for the other."""

from __future__ import annotations

import pytest

POLICY = """\
policy: spaces/1
applies:
  - {{tool: mlflow, action: alias, model: "risk-*", workspace: team-a}}
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
require:
  - predicate: test-result
    by: [{{issuer: "{issuer}", san: "{evaluator}"}}]
ungoverned: [{{tool: mlflow, action: create, workspace: "team-*", owner: tests, until: "2100-01-01T00:00:00Z"}}]
"""


@pytest.fixture
def spaces(new_shop):
    import requests

    shop = new_shop(
        policy=POLICY, workers=1, arguments=("--enable-workspaces",), MLFLOW_ENABLE_WORKSPACES="true", start=False
    )
    shop.snapshot()
    shop.start()
    for name in ("team-a", "team-b"):
        answer = requests.post(f"{shop.url}/api/3.0/mlflow/workspaces", json={"name": name}, timeout=30)
        assert answer.status_code < 300, answer.text
    return shop


def test_workspaces(spaces):
    shop = spaces
    files = shop.pyfunc()
    name = shop.fresh()

    def ask(space, route, method="POST", **body):
        return shop.call(method, route, body, headers={"X-MLFLOW-WORKSPACE": space})

    import requests

    for space in ("team-a", "team-b"):
        logged = ask(space, "logged-models", experiment_id=experiment(ask, space), name="m").json()["model"]["info"]
        for file, data in files.items():
            place = logged["artifact_uri"].removeprefix("mlflow-artifacts:/")
            answer = requests.put(
                f"{shop.url}/api/2.0/mlflow-artifacts/artifacts/{place}/{file}",
                data=data,
                headers={"X-MLFLOW-WORKSPACE": space},
                timeout=30,
            )
            assert answer.status_code == 200, answer.text
        ask(space, "registered-models/create", name=name)
        answer = ask(
            space,
            "model-versions/create",
            name=name,
            source=f"models:/{logged['model_id']}",
            model_id=logged["model_id"],
        )
        assert answer.status_code == 200, answer.text
    refused = ask("team-a", "registered-models/alias", name=name, alias="champion", version="1")
    assert refused.status_code == 403, refused.text
    assert "no test-result evidence" in refused.text
    shop.prove(files)
    other = ask("team-b", "registered-models/alias", name=name, alias="champion", version="1")
    assert other.status_code == 403, other.text
    assert "workspace=team-b" in other.text
    assert ask("team-a", "registered-models/alias", name=name, alias="champion", version="1").status_code == 200
    for space, aliases in (("team-a", 1), ("team-b", 0)):
        model = ask(space, f"registered-models/get?name={name}", method="GET").json()["registered_model"]
        assert len(model.get("aliases", [])) == aliases, space


def experiment(ask, space):
    return ask(space, "experiments/create", name=f"e-{space}").json()["experiment_id"]
