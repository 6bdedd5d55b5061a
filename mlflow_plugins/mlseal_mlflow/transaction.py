"""Check and write in one database transaction.

The gate judges bytes, which takes time; meanwhile somebody may delete the model and create another of the same name,
whose version numbers begin again at 1. So the write happens in a transaction that first takes the lock of the
registered model, then reads again what the verdict was about, and writes only if that is still the same row.

The lock is an UPDATE of the registered-model row to itself: a write lock on SQLite, a row lock on PostgreSQL and
MySQL. Every stock method that changes a version also updates that row or deletes it, so they wait. MLflow's own
methods then run inside: sessions that they open on the same thread join the one that holds the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from mlseal.errors import Unchecked
from mlseal_mlflow.prompts import SOURCES as PROMPT_SOURCES

SessionMaker = Callable[..., AbstractContextManager[Any]]


class ChangedMeanwhile(Unchecked):
    """What was judged is no longer what would be promoted; ask again."""

    http_status = 409


class JoiningSessions:
    """Stands in for a stock store's ``ManagedSessionMaker``; inside `locked`, sessions of this thread are one."""

    def __init__(self, stock: SessionMaker) -> None:
        self._stock = stock
        self._here = threading.local()

    @contextmanager
    def __call__(self, read_only: bool = True) -> Iterator[Any]:
        """A session as MLflow asks for it. An inner one is flushed, and committed or rolled back with the outer."""
        outer = getattr(self._here, "session", None)
        if outer is None:
            with self._stock(read_only=read_only) as session:
                yield session
        else:
            yield outer
            outer.flush()

    @contextmanager
    def locked(self) -> Iterator[Any]:
        """One write transaction that the stock methods called inside take part in."""
        if getattr(self._here, "session", None) is not None:
            raise RuntimeError("locked transactions do not nest")
        with self._stock(read_only=False) as session:
            self._here.session = session
            try:
                yield session
            finally:
                self._here.session = None


@dataclass(frozen=True)
class VersionRow:
    """What a verdict about a model version depends on, as the database has it."""

    workspace: str
    name: str
    version: int
    created: int
    source: str
    location: str
    stage: str
    aliases: tuple[str, ...] = ()
    model_tags: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def require_same(self, now: VersionRow) -> None:
        """Raise `ChangedMeanwhile` unless `now` names the same bytes. Stage, aliases and plain tags may have moved."""
        if self.identity != now.identity:
            raise ChangedMeanwhile(
                f"{self.name} version {self.version} changed while it was being judged",
                got=f"created {now.created}, {now.location}",
                expected=f"created {self.created}, {self.location}",
                remedy="look at what it is now, then ask again",
            )

    @property
    def identity(self) -> tuple[object, ...]:
        """The part that decides which bytes, or which prompt text, a consumer gets."""
        prompt = self.source in PROMPT_SOURCES
        content = tuple(item for item in self.tags if prompt and is_prompt_content(item[0]))
        return (self.workspace, self.name, self.version, self.created, self.source, self.location, content)


def is_prompt_content(key: str) -> bool:
    """Whether a version tag is part of what a prompt *is* (MLflow keeps prompts in tags)."""
    return key in _PROMPT_CONTENT


_PROMPT_CONTENT = frozenset(
    {
        "mlflow.prompt.is_prompt",
        "mlflow.prompt.text",
        "_mlflow_prompt_type",
        "_mlflow_prompt_response_format",
        "_mlflow_prompt_model_config",
    }
)


def lock(store: Any, session: Any, name: str) -> None:
    """Take the lock of the registered model `name`; does nothing to a model that does not exist."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel as Model

    rows = store._get_query(session, Model).filter(Model.name == name)  # noqa: SLF001 - vetted in surface.py
    rows.update({Model.last_updated_time: Model.last_updated_time}, synchronize_session=False)


def read(store: Any, session: Any, name: str, version: str) -> VersionRow:
    """The row of a version that is not deleted. Raises MLflow's 404 if there is none.

    Tags and aliases are read where they matter: for what is, by its source, a prompt.
    """
    found = _versions(store, session, name, version)
    if not found:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        store._get_registered_model(session, name)  # noqa: SLF001 - vetted in surface.py; a 404 of its own
        raise MlflowException(f"Model Version (name={name}, version={version}) not found", RESOURCE_DOES_NOT_EXIST)
    return _with_relations(session, found)[0] if found[0].source in PROMPT_SOURCES else found[0]


def read_all(store: Any, session: Any, name: str) -> tuple[VersionRow, ...]:
    """The rows of every version of `name` that is not deleted, by number. Raises MLflow's 404 without such a model."""
    store._get_registered_model(session, name)  # noqa: SLF001 - vetted in surface.py; raises the 404
    return _with_relations(session, _versions(store, session, name, None))


def _versions(store: Any, session: Any, name: str, version: str | None) -> tuple[VersionRow, ...]:
    """Columns, not entities: a session would answer from its memory of a row, and MLflow's load four relations each."""
    from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion as Row

    workspace = store._get_active_workspace()  # noqa: SLF001
    query = session.query(Row.version, Row.creation_time, Row.source, Row.storage_location, Row.current_stage)
    query = query.filter(Row.workspace == workspace, Row.name == name, Row.current_stage != STAGE_DELETED_INTERNAL)
    if version is not None:
        query = query.filter(Row.version == int(version))
    return tuple(
        VersionRow(workspace, name, int(number), int(created), source or "", location or source or "", stage)
        for number, created, source, location, stage in query.order_by(Row.version)
    )


def _with_relations(session: Any, rows: tuple[VersionRow, ...]) -> tuple[VersionRow, ...]:
    from mlflow.store.model_registry.dbmodels import models as db

    if not rows:
        return ()
    workspace, name = rows[0].workspace, rows[0].name
    aliases = _related(session, db.SqlRegisteredModelAlias, workspace, name, "alias", "version")
    model_tags = _related(session, db.SqlRegisteredModelTag, workspace, name, "key", "value")
    tags = _related(session, db.SqlModelVersionTag, workspace, name, "version", "key", "value")
    return tuple(
        replace(
            row,
            aliases=tuple(sorted(alias for alias, of in aliases if int(of) == row.version)),
            model_tags=tuple(sorted((key, value or "") for key, value in model_tags)),
            tags=tuple(sorted((key, value or "") for of, key, value in tags if int(of) == row.version)),
        )
        for row in rows
    )


def _related(session: Any, table: Any, workspace: str, name: str, *columns: str) -> list[tuple[Any, ...]]:
    query = session.query(*(getattr(table, column) for column in columns))
    return [tuple(row) for row in query.filter(table.workspace == workspace, table.name == name)]


def names_like(store: Any, session: Any, key: str) -> list[str]:
    """Names of registered models in the active workspace whose lower-case form is `key`."""
    import sqlalchemy
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModel as Model

    rows = store._get_query(session, Model).filter(sqlalchemy.func.lower(Model.name) == key)  # noqa: SLF001
    return sorted(row.name for row in rows)
