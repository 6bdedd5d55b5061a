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
from mlseal_mlflow.store import SealedStore
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


def test_missing_server_functions_are_refused():
    with pytest.raises(Unchecked, match="_get_artifact_repo_mlflow_artifacts"):
        surface.require_handlers(object())


def test_mlflow_still_keeps_prompts_where_we_look():
    assert constants.IS_PROMPT_TAG_KEY == prompts.IS_PROMPT
    assert constants._PROMPT_SOURCE_PLACEHOLDERS == prompts.SOURCES
    for key in (
        constants.IS_PROMPT_TAG_KEY,
        constants.PROMPT_TEXT_TAG_KEY,
        constants.PROMPT_TYPE_TAG_KEY,
        constants.RESPONSE_FORMAT_TAG_KEY,
        constants.PROMPT_MODEL_CONFIG_TAG_KEY,
    ):
        assert transaction.is_prompt_content(key)
