"""Rules about file names: an OMS signature is compared with the files themselves, by the gate and by the loader."""

from __future__ import annotations

import pytest

POLICY = """\
policy: files/1
applies:
  - {{tool: mlflow, action: alias, alias: champion, model: "*", workspace: "*"}}
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "{issuer}", san: "{monitor}"}}]
require:
  - predicate: oms-signature
    by: [{{issuer: "{issuer}", san: "{evaluator}"}}]
ungoverned:
  - {{tool: mlflow, action: create, model: "*", owner: tests, until: "2100-01-01T00:00:00Z"}}
"""


@pytest.fixture(scope="module")
def _shops(module_shop):
    made = {}

    def shop(**env):
        key = tuple(env.items())
        made[key] = made.get(key) or module_shop(policy=POLICY, workers=1, **env)
        return made[key]

    return shop


@pytest.fixture(params=["at once", "in the background"])
def shop(request, _shops, enter):
    """Small models are hashed while the caller waits; in the second run, none is small."""
    return enter(_shops(**({} if request.param == "at once" else {"MLSEAL_MLFLOW_INLINE_BYTES": "1"})))


def promote(shop, name, version):
    """The answer to a promotion, once it is not "pending" any more."""
    import time

    end = time.monotonic() + 60
    while True:
        answer = shop.post("registered-models/alias", name=name, alias="champion", version=version)
        if answer.status_code != 409 or "pending" not in answer.text:
            return answer
        assert time.monotonic() < end
        time.sleep(0.1)


def test_files_are_compared_by_name(shop, monkeypatch, tmp_path):
    import mlflow

    from mlseal.evidence import oms

    files = shop.pyfunc("fine")
    renamed = {("model.pkl2" if name == "model.pkl" else name): data for name, data in files.items()}
    name, version, _ = shop.model(files)
    before = promote(shop, name, version)
    assert before.status_code == 403
    assert "no oms-signature evidence" in before.text
    assert "mlseal sign" in before.text
    shop.authority.signer("evaluator").sign(oms.make(shop.measured(files)))
    assert promote(shop, name, version).status_code == 200
    assert shop.aliases(name) == {"champion": version}

    # The same bytes under another name have the same OMS root: only the list of files tells them apart.
    assert shop.measured(renamed).manifest.oms_root == shop.measured(files).manifest.oms_root
    other, number, _ = shop.model(renamed)
    after = promote(shop, other, number)
    assert after.status_code == 403
    assert "files differ from the OMS signature" in after.text
    assert "model.pkl" in after.text
    assert shop.aliases(other) == {}

    policy = tmp_path / "load.yaml"
    policy.write_text(shop.policy.read_text().replace("action: alias, alias: champion", "action: load"))
    monkeypatch.setenv("MLSEAL_POLICY", str(policy))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for uri in (mlflow.set_tracking_uri, mlflow.set_registry_uri):
        uri(shop.url)
    try:
        assert mlflow.artifacts.download_artifacts(f"attested:/{name}@champion", dst_path=str(tmp_path))
        shop.refused(
            lambda: mlflow.artifacts.download_artifacts(f"attested:/{other}/{number}", dst_path=str(tmp_path)),
            "files differ from the OMS signature",
        )
    finally:
        mlflow.set_registry_uri(None)
        mlflow.set_tracking_uri(None)
