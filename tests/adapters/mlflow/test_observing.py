"""A policy that observes: the promotion goes on, and the signed verdict says what stood against it, and the mode."""

from __future__ import annotations

import json

import pytest

from mlseal.errors import Error
from mlseal.evidence.digest import measure
from tests.adapters.mlflow.conftest import POLICY, at_desk


def verdicts(desk, files):
    archive = desk.archive()
    archive.refresh()
    found = archive.candidates([desk.measured(files).sha256], ["slsa-vsa"])
    return [bundle.statement.predicate for bundle in found]


@pytest.mark.slow
@pytest.mark.parametrize("until", ["2100-01-01T00:00:00Z", "2020-01-01T00:00:00Z"])
def test_an_observing_policy_lets_pass_and_says_so(new_shop, monkeypatch, until, tmp_path):
    observe = f'observe: {{{{until: "{until}", owner: tests}}}}\nrequire:\n'
    shop = new_shop(start=False, policy=POLICY.replace("require:\n", observe))
    shop.snapshot()
    with at_desk(shop, monkeypatch):
        files, name = shop.pyfunc(), shop.fresh()
        shop.store.create_registered_model(name)
        shop.other.create_model_version(name, shop.put(files, proven=False))

        def promote():
            shop.store.set_registered_model_alias(name, "champion", "1")

        if until != "2100-01-01T00:00:00Z":
            shop.refused(promote, "no test-result evidence")
            assert shop.other.get_registered_model(name).aliases == {}
            return
        promote()
        assert shop.other.get_registered_model(name).aliases == {"champion": 1}
        (predicate,) = verdicts(shop, files)
        said = predicate["mlseal"]
        assert (said["verdict"], said["mode"], predicate["verificationResult"]) == ("undecided", "observe", "FAILED")
        assert any("no test-result evidence" in reason["message"] for reason in said["reasons"])
        assert said["action"]["model"] == name
        (line,) = _lines(shop, name)
        assert (line["decision"], line["nonce"]) == ("undecided", said["nonce"])
        with pytest.raises(Error, match="no test-result evidence|does not allow it"):  # the loader observes nothing
            _load(shop, name, files, tmp_path)


def _lines(shop, name):
    file = shop.authority.home.path / ".local/state/mlseal/mlflow-decisions/decisions.jsonl"
    return [line for line in map(json.loads, file.read_text().splitlines()) if line["action"]["model"] == name]


def _load(shop, name, files, place):
    from mlseal_mlflow import loading

    use = loading.Use(f"models:/{name}/1", "default", name, "1", alias="champion")
    loading.require_allowed(measure(shop.measured(files).path), use, place / "none")
