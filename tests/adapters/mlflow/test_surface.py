"""A registry method that nobody examined stops the server at start."""

from __future__ import annotations

import importlib.metadata

import pytest
from mlflow.prompt import constants
from mlflow.server import handlers
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore
from mlseal_mlflow import prompts, surface, transaction
from mlseal_mlflow.store import SealedStore, build_store
from mlseal_mlflow.surface import Kind

from mlseal.errors import Unchecked

STOCK = [SqlAlchemyStore, WorkspaceAwareSqlAlchemyStore]


def sealed(stock):
    return type("Sealed", (SealedStore, stock), {})


@pytest.mark.parametrize("stock", STOCK)
def test_every_public_method_of_this_mlflow_is_classified(stock):
    surface.require_known(stock, AbstractStore, sealed(stock))
    surface.require_handlers(handlers)


@pytest.mark.parametrize("stock", STOCK)
def test_a_new_method_is_refused(stock):
    later = type("Later", (stock,), {"promote_everything": lambda self, name: None})
    with pytest.raises(Unchecked, match="new: promote_everything"):
        surface.require_known(later, AbstractStore, sealed(later))


def test_a_method_with_other_arguments_is_refused():
    later = type(
        "Later", (SqlAlchemyStore,), {"rename_registered_model": lambda self, name, new_name, force=False: None}
    )
    with pytest.raises(Unchecked, match="rename_registered_model takes other arguments"):
        surface.require_known(later, AbstractStore, sealed(later))


def test_a_composite_that_begins_to_write_by_itself_is_refused():
    def set_prompt_alias(self, name, alias, version):
        """Writes to the database directly."""

    later = type("Later", (SqlAlchemyStore,), {"set_prompt_alias": set_prompt_alias})
    with pytest.raises(Unchecked, match="set_prompt_alias no longer goes through the primitives"):
        surface.require_known(later, AbstractStore, sealed(later))


@pytest.mark.parametrize("name", [name for name, (kind, _) in surface.SURFACE.items() if kind is Kind.PROMOTE])
def test_each_promotion_must_be_overridden(name):
    hole = type("Hole", (SealedStore, SqlAlchemyStore), {name: getattr(SqlAlchemyStore, name)})
    with pytest.raises(Unchecked, match=f"{name} is not gated"):
        surface.require_known(SqlAlchemyStore, AbstractStore, hole)


def test_an_unexamined_mlflow_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.0.0")
    with pytest.raises(Unchecked, match=r"never examined; got 4\.0\.0"):
        surface.require_known(SqlAlchemyStore, AbstractStore, sealed(SqlAlchemyStore))


def test_another_minor_starts_only_by_its_name_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.99.1")
    monkeypatch.setenv("MLSEAL_MLFLOW_UNVETTED", "3.98")
    with pytest.raises(Unchecked, match=r"never examined; got 3\.99\.1.*MLSEAL_MLFLOW_UNVETTED=3\.99"):
        surface.require_known(SqlAlchemyStore, AbstractStore, sealed(SqlAlchemyStore))
    monkeypatch.setenv("MLSEAL_MLFLOW_UNVETTED", "3.99")
    surface.require_known(SqlAlchemyStore, AbstractStore, sealed(SqlAlchemyStore))
    assert "MLflow 3.99.1 was never examined" in caplog.text
    hole = type(
        "Hole", (SealedStore, SqlAlchemyStore), {"rename_registered_model": SqlAlchemyStore.rename_registered_model}
    )
    with pytest.raises(Unchecked, match="rename_registered_model is not gated"):
        surface.require_known(SqlAlchemyStore, AbstractStore, hole)


def test_every_route_of_this_mlflow_is_classified():
    surface.require_routes(handlers.get_endpoints())
    kinds = set(surface.ROUTES.values())
    assert kinds == {Kind.READ, Kind.DEMOTE, Kind.WRITE, Kind.PROMOTE, Kind.ELSEWHERE}


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/2.0/mlflow/registered-models/promote-everything", ["POST"]),
        ("/prefix/ajax-api/2.0/mlflow/model-versions/get", ["PUT"]),
        ("/api/3.0/mlflow/workspaces/<workspace_name>/merge", ["POST"]),
        ("/api/4.0/mlflow/webhooks", ["DELETE"]),
    ],
)
def test_a_new_route_is_refused(path, methods):
    with pytest.raises(Unchecked, match=f"new: {methods[0]} "):
        surface.require_routes([*handlers.get_endpoints(), (path, None, methods)])


def test_a_route_that_is_gone_is_refused():
    left = [entry for entry in handlers.get_endpoints() if not entry[0].endswith("registered-models/alias")]
    with pytest.raises(Unchecked, match="gone: DELETE registered-models/alias"):
        surface.require_routes(left)


def test_missing_server_functions_are_refused():
    with pytest.raises(Unchecked, match="_get_artifact_repo_mlflow_artifacts"):
        surface.require_handlers(object())


def test_mlflow_still_keeps_prompts_where_we_look():
    assert constants.IS_PROMPT_TAG_KEY == prompts.IS_PROMPT
    known = getattr(constants, "_PROMPT_SOURCE_PLACEHOLDERS", prompts.SOURCES)  # 3.16 has them as literals
    assert known == prompts.SOURCES
    for key in (
        constants.IS_PROMPT_TAG_KEY,
        constants.PROMPT_TEXT_TAG_KEY,
        constants.PROMPT_TYPE_TAG_KEY,
        constants.RESPONSE_FORMAT_TAG_KEY,
        constants.PROMPT_MODEL_CONFIG_TAG_KEY,
    ):
        assert transaction.is_prompt_content(key)


# --- the call that the server makes at its start -----------------------------------------------------------------------


def a_version(patch):
    patch.setattr(importlib.metadata, "version", lambda name: "3.99.1")
    return "never examined; got 3.99.1"


def a_method(patch):
    patch.setattr(SqlAlchemyStore, "promote_everything", lambda self, name: None, raising=False)
    return "new: promote_everything"


def a_route(patch):
    found = [*handlers.get_endpoints(), ("/api/2.0/mlflow/registered-models/promote-everything", None, ["POST"])]
    patch.setattr(handlers, "get_endpoints", lambda *_: found)
    return "new: POST registered-models/promote-everything"


def a_function(patch):
    patch.delattr(handlers, "_get_proxied_run_artifact_destination_path")
    return "no _get_proxied_run_artifact_destination_path"


@pytest.mark.parametrize("later", [a_version, a_method, a_route, a_function])
def test_no_store_is_built_on_an_unexamined_mlflow(later, module_desk, monkeypatch, tmp_path):
    """All else is as it must be: the same call passes as soon as this MLflow is the one that was examined."""
    with monkeypatch.context() as patch:
        said = later(patch)
        with pytest.raises(Unchecked) as refused:
            build_store(f"mlseal:sqlite:///{tmp_path}/registry.db")
        assert said in str(refused.value)
        assert not (tmp_path / "registry.db").exists()
    assert isinstance(build_store(f"mlseal:{module_desk.database}"), SealedStore)


def test_the_risk_that_an_operator_takes_stands_in_the_log(module_desk, monkeypatch, caplog):
    a_version(monkeypatch)
    monkeypatch.setenv("MLSEAL_MLFLOW_UNVETTED", "3.99")
    built = build_store(f"mlseal:{module_desk.database}")
    assert "MLflow 3.99.1 was never examined; MLSEAL_MLFLOW_UNVETTED says to start all the same" in caplog.text
    module_desk.refused(  # and it is gated
        lambda: built.create_model_version(module_desk.fresh(), "s3://elsewhere/x"), "no policy governs this action"
    )
