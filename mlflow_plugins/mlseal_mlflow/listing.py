"""Everything that a registry holds and points at, read over REST: workspaces, models, prompts, all their versions.

MLflow's searches hide prompts, and a model is hidden as one by a tag that anyone may set: a version with the tag hides
the other versions of its model too. So both kinds are asked for, and the numbers that are missing one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from mlseal.errors import Unchecked
from mlseal_mlflow import names

LIVE_STAGES = frozenset({"staging", "production"})
"""In canonical spelling."""
PAGE = 1_000
MAX_HIDDEN = 10_000
"""Numbers that are asked for one by one in one model."""


@dataclass(frozen=True)
class Held:
    """One version and what points at it: pairs of ``alias`` or ``stage`` (or ``create``) and a name."""

    model: str
    version: str
    source: str
    tags: dict[str, str]
    model_tags: dict[str, str]
    promotions: tuple[tuple[str, str], ...] = ()

    def promoted(self, what: str, value: str) -> Held:
        """The same with one more promotion."""
        return replace(self, promotions=(*self.promotions, (what, value)))


def current() -> str:
    """The workspace that this process asks for now."""
    from mlflow.utils.workspace_context import get_request_workspace

    return get_request_workspace() or "default"


def inside(workspace: str | None) -> AbstractContextManager[Any]:
    """For the length of a ``with``, this process asks in `workspace`; None changes nothing."""
    from mlflow.utils.workspace_context import WorkspaceContext

    return nullcontext() if workspace is None else WorkspaceContext(workspace)


def workspaces(client: Any, tracking_uri: str) -> Sequence[str | None]:
    """The workspaces that the server shows to this login; ``[None]`` for a server that has none.

    Raises `Unchecked` when it has some and shows none: then nothing would be looked at.
    """
    from mlflow import MlflowClient

    if not _has_workspaces(client):
        return [None]
    shown = MlflowClient(tracking_uri, tracking_uri, workspace_store_uri=tracking_uri).list_workspaces()
    if not shown:
        raise Unchecked(
            "the server shows no workspace",
            expected="at least one",
            remedy="use a login that may see them, or name one with --workspace",
        )
    return sorted(str(workspace.name) for workspace in shown)


def versions(client: Any, only: str | None = None) -> list[Held]:
    """Every version in the workspace that is asked for now (of the model `only`), with what points at it.

    What changes meanwhile may be missed or shown as it was; the next look sees it.
    """
    models = _models(client, only)
    rows = _rows(client, only)
    for name, model in models.items():
        for version in model.aliases.values():
            if (name, str(version)) not in rows:
                rows[name, str(version)] = _version(client, name, str(version))
    return [
        _held(name, version, row, models.get(name))
        for (name, version), row in sorted(rows.items(), key=lambda item: (item[0][0], int(item[0][1])))
    ]


def _held(name: str, version: str, row: Any, model: Any) -> Held:
    """`row` is None for a version that an alias names and nobody finds."""
    tags, source = ({}, "") if row is None else (dict(row.tags), str(row.source))
    held = Held(name, version, source, tags, dict(model._tags) if model else {})  # noqa: SLF001 - .tags hides prompts
    for alias, number in sorted(model.aliases.items()) if model else ():
        if str(number) == version:
            held = held.promoted("alias", alias)
    if row is not None and names.canonical(row.current_stage or "") in LIVE_STAGES:
        held = held.promoted("stage", row.current_stage)
    return held


def _models(client: Any, only: str | None) -> dict[str, Any]:
    if only is not None:
        model = _unless_gone(partial(client.get_registered_model, only))
        return {} if model is None else {only: model}
    found = {}
    for prompts in ("false", "true"):
        where = f"tags.`mlflow.prompt.is_prompt` = '{prompts}'"
        for model in _pages(client.search_registered_models, where):
            if (whole := _unless_gone(partial(client.get_registered_model, model.name))) is not None:
                found[model.name] = whole
    return found


def _rows(client: Any, only: str | None) -> dict[tuple[str, str], Any]:
    """Every version by model and number."""
    rows, hiding = {}, set()
    for prompts in ("false", "true"):
        where = f"tags.`mlflow.prompt.is_prompt` = '{prompts}'" + (f" and name = '{only}'" if only else "")
        for row in _pages(client.search_model_versions, where):
            rows[row.name, str(row.version)] = row
            if prompts == "true":
                hiding.add(row.name)
    for name in sorted(hiding):
        rows.update(_hidden(client, name, {version for model, version in rows if model == name}))
    return rows


def _hidden(client: Any, name: str, known: set[str]) -> dict[tuple[str, str], Any]:
    """The versions of `name` that no search shows."""
    newest = _unless_gone(partial(client.get_latest_versions, name)) or []
    last = max((int(version.version) for version in newest), default=0)
    if last - len(known) > MAX_HIDDEN:
        raise Unchecked(
            f"too many versions of {name} are hidden by the tag of prompts",
            got=last - len(known),
            expected=f"at most {MAX_HIDDEN}",
            remedy="delete the tag mlflow.prompt.is_prompt from versions that are no prompts",
        )
    asked = {
        (name, str(number)): _version(client, name, str(number))
        for number in range(1, last + 1)
        if str(number) not in known
    }
    return {key: row for key, row in asked.items() if row is not None}


def _version(client: Any, name: str, version: str) -> Any:
    return _unless_gone(partial(client.get_model_version, name, version))


def _pages(search: Callable[..., Any], where: str) -> Iterator[Any]:
    token = None
    while True:
        page = search(filter_string=where, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _unless_gone(ask: Callable[[], Any]) -> Any:
    """What `ask` gives; None for what is not there (any more)."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the second: no such number
            raise
        return None


def _has_workspaces(client: Any) -> bool:
    """False also for a server that is too old to be asked."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(getattr(client.store, "supports_workspaces", False))
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":  # what MLflow's client makes of 404 to both questions
            raise
        return False
