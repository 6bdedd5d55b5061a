"""The gate, its loader and its commands with the evidence in a bucket: a real server, a real S3 service, a relay before it."""

from __future__ import annotations

import pytest

from mlseal.errors import Misuse
from mlseal.evidence import store
from tests.adapters.mlflow import ways
from tests.adapters.mlflow.conftest import build
from tests.adapters.mlflow.conftest import enter as enter_shop
from tests.adapters.remote.conftest import _client, _relay, enter, remote  # noqa: F401 - fixtures
from tests.adapters.remote.elsewhere import Elsewhere
from tests.adapters.remote.relay import Lie


@pytest.fixture
def shop(new_authority, remote, tmp_path, monkeypatch):  # noqa: F811
    authority = Elsewhere(new_authority(), store.resolve(remote.url))
    one = build(
        authority, tmp_path / "shop", workers=1, MLSEAL_STORE=remote.url, MLSEAL_STORE_SECONDS="5", **remote.env
    )
    enter_shop(one, monkeypatch)
    enter(remote, monkeypatch)
    monkeypatch.setenv("MLSEAL_STORE", remote.url)
    authority.store = store.resolve(remote.url)  # with the environment that reaches it
    one.snapshot()
    one.start()
    yield one
    one.stop()


@pytest.mark.slow
def test_allowed_refused_and_away(shop, remote):  # noqa: F811
    """One server, one story."""
    import mlflow

    mlflow.set_tracking_uri(shop.url)
    mlflow.set_registry_uri(shop.url)
    files = shop.pyfunc()
    name, version, _ = shop.model(files)
    answer = ways.champion(shop, name)
    assert (answer.status_code, shop.aliases(name)) == (403, {}), answer.text
    shop.prove(files)
    answer = ways.champion(shop, name)
    assert answer.status_code == 200, answer.text
    assert shop.aliases(name) == {"champion": version}
    assert mlflow.artifacts.download_artifacts(f"attested:/{name}@champion")
    assert shop.call("GET", "registered-models/get?name=mlseal-posture", {}).status_code == 200

    other, _, _ = shop.model(proven=True)
    for lie, words in (
        (Lie(500, "InternalError"), "cannot be reached"),
        (Lie(403, "AccessDenied"), "refuses"),
        (Lie(drop=True), "cannot be reached"),
    ):
        remote.relay.lie = lambda *_, lie=lie: lie
        answer = ways.champion(shop, other)  # in time: this client waits for a minute
        assert 400 <= answer.status_code < 500, answer.text
        assert words in answer.text, answer.text
        assert shop.aliases(other) == {}
    remote.relay.lie = lambda *_: None

    # A decision that could be signed and logged, and not kept: the next ones are not undecided for ever.
    answer = ways.champion(shop, other)
    assert answer.status_code == 200, answer.text
    remote.relay.lie = lambda method, _: Lie(500, "InternalError") if method == "PUT" else None
    third, _, _ = shop.model()
    remote.relay.lie = lambda method, path: Lie(500, "InternalError") if method == "PUT" and "bundles" in path else None
    answer = ways.champion(shop, other)
    assert 400 <= answer.status_code < 500, answer.text
    remote.relay.lie = lambda *_: None
    answer = ways.champion(shop, other)
    assert answer.status_code == 200, answer.text
    assert third != other

    done = shop.authority.call("mlflow", "history", name, "--store", remote.url, "--json")
    assert done.returncode == 0, done.stderr
    assert '"champion"' in done.stdout
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(None)


@pytest.mark.parametrize(
    ("url", "words"), [("nothing-like-this://b/x", "no file system"), ("s3://k:p@b/x", "a user or password")]
)
def test_a_gate_does_not_start_without_its_bucket(monkeypatch, url, words):
    from mlseal_mlflow import decision

    monkeypatch.setenv("MLSEAL_STORE", url)
    with pytest.raises(Misuse, match=words):
        decision._store()
