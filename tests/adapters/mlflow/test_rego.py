"""A registry whose policy asks an OPA server: true lets pass, false and silence are 4xx with the reason, in bounded time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.opa.running import running

REGO = """\
package mlseal.gate

decision := {"allow": count(reasons) == 0, "reasons": reasons}

reasons contains sprintf("%v is not for this alias", [input.action.model]) if startswith(input.action.model, "risk-no")
"""
ENGINE = "opa: [{{server: 'URL', decision: mlseal/gate/decision, revision: r1, timeout: 1s}}]\n"


@pytest.mark.slow
def test_promotions_that_opa_judges(new_shop, tmp_path: Path):
    rego = tmp_path / "gate.rego"
    rego.write_text(REGO)
    with running(rego) as opa:
        shop = new_shop(policy=policy_with(opa.url), workers=1)
        files = shop.pyfunc()
        shop.prove(files)
        name, version, _ = shop.model(files)
        other, _, _ = shop.model(files, name=shop.fresh("risk-no-{}"))

        def promote(model):
            return shop.client.set_registered_model_alias(model, "champion", version)

        shop.refused(lambda: promote(other), "OPA refuses", f"{other} is not for this alias")
        with opa.hanging():
            shop.refused(lambda: promote(name), "did not answer", "an answer within 1 s")
            shop.client.set_registered_model_alias(name, "scratch", version)  # what asks nobody goes on
        assert shop.aliases(name) == {"scratch": version}
        promote(name)
        assert shop.aliases(name) == {"scratch": version, "champion": version}
    shop.refused(lambda: promote(other), "did not answer")
    assert shop.aliases(other) == {}
    assert "Traceback" not in shop.log.read_text()


def policy_with(url: str) -> str:
    from tests.adapters.mlflow.conftest import POLICY

    return POLICY + ENGINE.replace("URL", url)
