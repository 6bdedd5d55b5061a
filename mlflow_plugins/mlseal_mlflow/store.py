"""The registry store ``mlseal:``: MLflow's SQL store, with the gate in front of everything that promotes.

``mlflow server --registry-store-uri mlseal:sqlite:////path/registry.db`` (or ``mlseal:postgresql://…``). A scheme of
our own, because MLflow falls back to its stock store in silence when a plugin that *replaces* ``sqlite`` cannot be
imported.

For each promotion, in this order:

1. Names in their one spelling; reserved tags refused.
2. What is to be promoted is read from the database.
3. Its files are copied into a private directory and hashed (`mlseal_mlflow.files`).
4. The gate judges; an allowing verdict is signed and stored (`mlseal_mlflow.decision`).
5. One transaction: lock, read again, compare with 2, write (`mlseal_mlflow.transaction`).

Demotions go through untouched, and leave a line in the decision log. What the registry store is never asked about (a
workspace dissolved into another, the database itself, loads by storage URI) is named in ``docs/mlflow.md``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from mlseal.errors import DuplicateName, Error, Misuse, Refusal
from mlseal_mlflow import names, posture, prompts, transaction
from mlseal_mlflow.posture import Posture
from mlseal_mlflow.refusals import refusing, to_mlflow
from mlseal_mlflow.transaction import ChangedMeanwhile, JoiningSessions, VersionRow

if TYPE_CHECKING:
    from mlseal_mlflow.decision import Decisions

_log = logging.getLogger(__name__)

SCHEME = "mlseal:"
LIVE_STAGES = frozenset({"Staging", "Production"})
MAX_RENAMED_VERSIONS = 100


def build_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """The store for ``mlseal:DATABASE-URI``, as MLflow's entry point asks for it.

    Raises `mlseal.errors.Error` when trust root, policy, evidence store, token, MLflow's version or its surface are
    not as they must be; ``mlflow server`` then exits instead of starting ungated.
    """
    from mlflow.environment_variables import MLFLOW_ENABLE_WORKSPACES
    from mlflow.server import handlers
    from mlflow.store.model_registry.abstract_store import AbstractStore
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore

    from mlseal_mlflow import decision, surface

    del tracking_uri
    database = store_uri.removeprefix(SCHEME)
    if database == store_uri or database.startswith(SCHEME):
        raise Misuse(
            "not an mlseal registry URI", got=urlparse(store_uri).scheme, expected="mlseal:sqlite:////path/registry.db"
        )
    stock = WorkspaceAwareSqlAlchemyStore if MLFLOW_ENABLE_WORKSPACES.get() else SqlAlchemyStore
    sealed = type(f"Sealed{stock.__name__}", (SealedStore, stock), {})
    surface.require_known(stock, AbstractStore, sealed)
    surface.require_handlers(handlers)
    surface.require_routes(handlers.get_endpoints())
    store = sealed(database)
    store.decisions = decision.from_environment()
    store.posture = posture.Posture(store.decisions)
    return store


class SealedStore:
    """What changes what a consumer gets, behind the gate. Mixed into MLflow's SQL store by `build_store`."""

    decisions: Decisions
    posture: Posture
    _get_active_workspace: Any
    _get_query: Any

    def __init__(self, database: str) -> None:
        super().__init__(database)  # type: ignore[call-arg]
        self.ManagedSessionMaker = JoiningSessions(self.ManagedSessionMaker)  # type: ignore[has-type]

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Point `alias` at `version`, if the gate allows it for the bytes of that version."""
        with refusing(f"alias {alias!a} of {name!a} version {version!a}"):
            key, alias_key = self._key(name), names.alias(alias)
            seen = self._look(name, names.version(version))
            self._judge(seen, "alias", key, alias=alias_key)
            with self._unchanged([seen]):
                super().set_registered_model_alias(name, alias, version)  # type: ignore[misc]

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool
    ) -> Any:
        """Move `version` to `stage`; Staging and Production go to the gate, None and Archived do not."""
        from mlflow.entities.model_registry.model_version_stages import get_canonical_stage

        target = get_canonical_stage(stage)
        if target not in LIVE_STAGES:
            done = super().transition_model_version_stage(name, version, stage, archive_existing_versions)  # type: ignore[misc]
            self._note_demotion("stage", name, stage=names.canonical(target), version=str(version))
            return done
        with refusing(f"stage {target} of {name!a} version {version!a}"):
            key = self._key(name)
            seen = self._look(name, names.version(version))
            self._judge(seen, "stage", key, stage=names.canonical(target))
            with self._unchanged([seen]):
                return super().transition_model_version_stage(name, version, target, archive_existing_versions)  # type: ignore[misc]

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> Any:
        """Create a version.

        Where a policy governs ``create`` for the model, it goes to the gate. Where one lists it as ungoverned, the
        version is a candidate that nothing points at, and that nothing vouches for; else it is refused. A large
        model begins to be hashed in either case.
        """
        with refusing(f"new version of {name!a}"):
            key = self._key(name)
            _require_unreserved(tag.key for tag in tags or ())
            origin = self._copied_from(source)
            asked = (name, source, run_id, tags, run_link, description, local_model_path, model_id)
            facts = {"source": names.printable(source)}
            if not self.decisions.governs("create", _facts(key, **facts)):
                self.decisions.require_exempt("create", _facts(key, **facts))
                return self._measured_ahead(super().create_model_version(*asked), key)  # type: ignore[misc]
            location = origin.location if origin else self._location_of(source)
            planned = _planned(name, key, source, location, self._model_tags(name), tags)
            self._judge(planned, "create", key, **facts)
            with self._unchanged([origin] if origin else []) as session:
                made = super().create_model_version(*asked)  # type: ignore[misc]
                now = transaction.read(self, session, name, str(made.version))
                if now.location != location:
                    raise to_mlflow(
                        ChangedMeanwhile("the source leads elsewhere now", got=now.location, expected=location), "copy"
                    )
            return self._measured_ahead(made, key)

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Rename a model, if the gate allows each of its versions, aliases and stages under the new name."""
        with refusing(f"rename of {name!a} to {new_name!a}"):
            key = self._key(new_name)
            with self.ManagedSessionMaker(read_only=False) as session:
                seen = transaction.read_all(self, session, name)
            self._require_no_twin(key, new_name, besides=name)
            if len(seen) > MAX_RENAMED_VERSIONS:
                raise Misuse(
                    "too many versions to judge at once",
                    got=len(seen),
                    expected=f"at most {MAX_RENAMED_VERSIONS}",
                    remedy="delete old versions, or register the one you need under the new name",
                )
            for row in seen:
                self._judge_renamed(row, key, old=names.canonical(name))
            with self._unchanged(seen, all_of=name):
                return super().rename_registered_model(name, new_name)  # type: ignore[misc]

    def get_registered_model(self, name: str) -> Any:
        """A registered model; under the one reserved name, what `mlseal_mlflow.posture` says of the gate."""
        if name == posture.NAME:
            return posture.answer(self.posture.checks(), self._get_active_workspace())
        return super().get_registered_model(name)  # type: ignore[misc]

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Take an alias away; always possible, and a line in the decision log."""
        super().delete_registered_model_alias(name, alias)  # type: ignore[misc]
        self._note_demotion("delete-alias", name, alias=str(alias))

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version; always possible, and a line in the decision log."""
        super().delete_model_version(name, version)  # type: ignore[misc]
        self._note_demotion("delete-version", name, version=str(version))

    def delete_registered_model(self, name: str) -> None:
        """Delete a model; always possible, and a line in the decision log."""
        super().delete_registered_model(name)  # type: ignore[misc]
        self._note_demotion("delete-model", name)

    def create_registered_model(
        self, name: str, tags: Any = None, description: str | None = None, deployment_job_id: str | None = None
    ) -> Any:
        """Create a model whose name no reader can take for another one's."""
        with refusing(f"new model {name!a}"):
            key = self._key(name)
            _require_unreserved(tag.key for tag in tags or ())
            self._require_no_twin(key, name)
            return super().create_registered_model(name, tags, description, deployment_job_id)  # type: ignore[misc]

    def set_registered_model_tag(self, name: str, tag: Any) -> None:
        """Set a tag; not a reserved one, and not the one that makes a model a prompt."""
        with refusing(f"tag {tag.key!a} of {name!a}"):
            _require_unreserved([tag.key])
            _require_not_prompt_switch(tag.key)
            super().set_registered_model_tag(name, tag)  # type: ignore[misc]

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag; not a reserved one, and not the one that makes a model a prompt."""
        with refusing(f"tag {key!a} of {name!a}"):
            _require_unreserved([key])
            _require_not_prompt_switch(key)
            super().delete_registered_model_tag(name, key)  # type: ignore[misc]

    def set_model_version_tag(self, name: str, version: str, tag: Any) -> None:
        """Set a tag; not a reserved one, and not the text of a prompt that something points at."""
        with refusing(f"tag {tag.key!a} of {name!a} version {version!a}"), self._tag_may_change(name, version, tag.key):
            super().set_model_version_tag(name, version, tag)  # type: ignore[misc]

    def delete_model_version_tag(self, name: str, version: str, key: str) -> None:
        """Delete a tag; not a reserved one, and not the text of a prompt that something points at."""
        with refusing(f"tag {key!a} of {name!a} version {version!a}"), self._tag_may_change(name, version, key):
            super().delete_model_version_tag(name, version, key)  # type: ignore[misc]

    def create_webhook(self, name: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Create a webhook to a host that the operator listed; else anyone may have the registry report to them."""
        with refusing(f"webhook {name!a}"):
            self.decisions.require_webhook(url)
            return super().create_webhook(name, url, *args, **kwargs)  # type: ignore[misc]

    def update_webhook(
        self,
        webhook_id: str,
        name: str | None = None,
        description: str | None = None,
        url: str | None = None,
        events: Any = None,
        secret: str | None = None,
        status: Any = None,
    ) -> Any:
        """Change a webhook; its address only to a host that the operator listed."""
        with refusing(f"webhook {webhook_id!a}"):
            if url is not None:
                self.decisions.require_webhook(url)
            return super().update_webhook(webhook_id, name, description, url, events, secret, status)  # type: ignore[misc]

    def _note_demotion(self, action: str, name: str, **facts: str) -> None:
        workspace = names.canonical(self._get_active_workspace())
        self.decisions.note_demotion(action, {"workspace": workspace, "model": names.canonical(str(name)), **facts})

    def _key(self, name: object) -> names.ModelKey:
        key = names.model(self._get_active_workspace(), name)
        posture.require_other(key.name)
        return key

    def _look(self, name: str, version: str) -> VersionRow:
        with self.ManagedSessionMaker(read_only=False) as session:  # the primary, never a replica that lags behind
            return transaction.read(self, session, name, version)

    def _model_tags(self, name: str) -> dict[str, str]:
        return dict(self.get_registered_model(name)._tags)  # noqa: SLF001 - .tags hides prompts

    def _measured_ahead(self, made: Any, key: names.ModelKey) -> Any:
        """`made`, whose files begin to be hashed; whatever goes wrong with that, the version is there."""
        try:
            row = self._look(made.name, str(made.version))
            if row.source not in prompts.SOURCES:
                self.decisions.measure_ahead(row.location, row.identity, key.name)
        except Exception as error:  # noqa: BLE001 - a promotion hashes it, and says what is wrong
            _log.info("mlseal: %s version %s is hashed when it is promoted: %s", made.name, made.version, error)
        return made

    def _judge(self, row: VersionRow, action: str, key: names.ModelKey, **facts: str) -> None:
        """Steps 3 and 4 for one version; raises unless the gate allows it."""
        told = _facts(key, **({"version": str(row.version)} if row.version else {}), **facts)
        model_tags = dict(row.model_tags)
        if prompts.is_prompt(row.source, model_tags):
            self.decisions.decide_prompt(prompts.content(dict(row.tags)), action, told)
        else:
            self.decisions.decide_model(row.location, row.identity, action, told)

    def _judge_renamed(self, row: VersionRow, key: names.ModelKey, old: str) -> None:
        self._judge(row, "rename", key, renamedFrom=old)
        for alias in row.aliases:
            self._judge(row, "alias", key, alias=names.alias(alias))
        if row.stage in LIVE_STAGES:
            self._judge(row, "stage", key, stage=names.canonical(row.stage))

    @contextmanager
    def _unchanged(self, seen: Iterable[VersionRow], *, all_of: str | None = None) -> Iterator[Any]:
        """Step 5: the locked transaction, once what was judged is found to be what is there."""
        rows = list(seen)
        with self.ManagedSessionMaker.locked() as session:
            for model in sorted({row.name for row in rows} | ({all_of} if all_of else set())):
                transaction.lock(self, session, model)
            with _refusing_inside("write"):
                for row in rows:
                    row.require_same(transaction.read(self, session, row.name, str(row.version)))
                if all_of is not None and _promoted(transaction.read_all(self, session, all_of)) != _promoted(rows):
                    raise ChangedMeanwhile(f"{all_of} changed while it was being judged", remedy="ask again")
            yield session

    @contextmanager
    def _tag_may_change(self, name: str, version: str, key: str) -> Iterator[None]:
        _require_unreserved([key])
        if not transaction.is_prompt_content(key):
            yield
            return
        with self.ManagedSessionMaker.locked() as session:
            transaction.lock(self, session, name)
            row = transaction.read(self, session, name, names.version(version))
            if row.aliases or row.stage in LIVE_STAGES:
                reason = Refusal(
                    "this prompt version is in use",
                    got=", ".join(row.aliases) or row.stage,
                    expected="a version that nothing points at",
                    remedy="register a new version",
                )
                raise to_mlflow(reason, f"tag {key!a}")
            yield

    def _copied_from(self, source: str) -> VersionRow | None:
        """The version that `source` (``models:/NAME/VERSION``) copies; None for any other kind of source."""
        from mlflow.store.artifact.utils.models import _parse_model_uri

        if urlparse(source).scheme != "models":
            return None
        parsed = _parse_model_uri(source)
        if parsed.model_id is not None:
            return None
        if parsed.name is None or parsed.version is None:
            raise Misuse("the source of a copy names no version", got=source[:200], expected="models:/NAME/VERSION")
        return self._look(parsed.name, names.version(parsed.version))

    def _location_of(self, source: str) -> str:
        """Where stock MLflow will say that a version made from `source` lies."""
        from mlflow import MlflowClient
        from mlflow.store.artifact.utils.models import _parse_model_uri

        if urlparse(source).scheme != "models":
            return source
        return str(MlflowClient().get_logged_model(_parse_model_uri(source).model_id).artifact_location)

    def _require_no_twin(self, key: names.ModelKey, name: str, besides: str | None = None) -> None:
        with self.ManagedSessionMaker(read_only=False) as session:
            twins = [n for n in transaction.names_like(self, session, key.name) if n not in (name, besides)]
        if twins:
            raise DuplicateName(
                f"a model {twins[0]!a} exists whose name differs in case only",
                got=name,
                remedy="use that model, or a name that differs otherwise",
            )


def _facts(key: names.ModelKey, **more: str) -> dict[str, str]:
    return {"workspace": key.workspace, "model": key.name, **more}


def _planned(
    name: str, key: names.ModelKey, source: str, location: str, model_tags: dict[str, str], tags: Any
) -> VersionRow:
    """The row that a creation would make; version 0, which no version has."""
    given = tuple(sorted((tag.key, tag.value or "") for tag in tags or ()))
    return VersionRow(key.workspace, name, 0, 0, source, location, "None", (), tuple(sorted(model_tags.items())), given)


def _promoted(rows: Iterable[VersionRow]) -> list[tuple[object, ...]]:
    return [(row.identity, row.aliases, row.stage) for row in rows]


def _require_unreserved(keys: Iterable[str]) -> None:
    for key in keys:
        if names.reserved_tag(key):
            raise Refusal(
                "tags in mlseal's name space cannot be set or deleted",
                got=key,
                expected=f"a key outside {names.RESERVED_TAG_PREFIX}*",
                remedy="evidence is signed, not tagged",
            )


def _require_not_prompt_switch(key: str) -> None:
    if key == prompts.IS_PROMPT:
        raise Refusal(
            "what is a prompt is settled when it is created", got=key, remedy="create the prompt under another name"
        )


@contextmanager
def _refusing_inside(what: str) -> Iterator[None]:
    """Our errors as MLflow's, inside a session: MLflow turns any other exception there into a 500."""
    try:
        yield
    except Error as error:
        raise to_mlflow(error, what) from error
