"""What MLflow's registry store can do, method by method, and a refusal to start where that changed.

A subclass inherits every method that a later MLflow adds, ungated. So each public method of the stock store is named
here with what it does; one that is not named, whose arguments changed, or that now writes by itself instead of
through the primitives, stops the server at start.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import os
import re
from collections.abc import Iterable
from enum import Enum
from typing import Any

from mlseal.errors import MissingExtra, Unchecked

OLDEST, NEWEST = (3, 16), (3, 17)
"""First and last MLflow minor that the surface below was read from, and that the table of attacks was tried on."""

UNVETTED = "MLSEAL_MLFLOW_UNVETTED"
"""Names another minor, such as ``3.18``, whose risk the operator takes; a changed surface still stops the start."""

_log = logging.getLogger(__name__)


class Kind(Enum):
    """What a store method does to what consumers get."""

    READ = "changes nothing"
    DEMOTE = "takes something out of use; always possible, so that a bad model can be stopped at any time"
    WRITE = "changes what no consumer resolves by; checked for reserved names only"
    PROMOTE = "changes what a consumer gets; goes to the gate"
    ELSEWHERE = "changes what a consumer gets without asking the registry store; the reconciler finds the result"
    COMPOSITE = "defined by MLflow's abstract store in terms of the methods above"


_R, _D, _W, _P, _C = Kind.READ, Kind.DEMOTE, Kind.WRITE, Kind.PROMOTE, Kind.COMPOSITE

SURFACE: dict[str, tuple[Kind, str]] = {
    "get_registered_model": (_R, "name"),
    "get_latest_versions": (_R, "name stages"),
    "search_registered_models": (_R, "filter_string max_results order_by page_token"),
    "get_model_version": (_R, "name version"),
    "get_model_version_by_alias": (_R, "name alias"),
    "get_model_version_download_uri": (_R, "name version"),
    "search_model_versions": (_R, "filter_string max_results order_by page_token"),
    "get_webhook": (_R, "webhook_id"),
    "list_webhooks": (_R, "max_results page_token"),
    "list_webhooks_by_event": (_R, "event max_results page_token"),
    "delete_registered_model": (_D, "name"),
    "delete_model_version": (_D, "name version"),
    "delete_registered_model_alias": (_D, "name alias"),
    "delete_webhook": (_D, "webhook_id"),
    "create_registered_model": (_W, "name tags description deployment_job_id"),
    "update_registered_model": (_W, "name description deployment_job_id"),
    "set_registered_model_tag": (_W, "name tag"),
    "delete_registered_model_tag": (_W, "name key"),
    "update_model_version": (_W, "name version description"),
    "set_model_version_tag": (_W, "name version tag"),
    "delete_model_version_tag": (_W, "name version key"),
    "create_webhook": (_W, "name url events description secret status"),
    "update_webhook": (_W, "webhook_id name description url events secret status"),
    "set_registered_model_alias": (_P, "name alias version"),
    "transition_model_version_stage": (_P, "name version stage archive_existing_versions"),
    "create_model_version": (_P, "name source run_id tags run_link description local_model_path model_id"),
    "rename_registered_model": (_P, "name new_name"),
    "copy_model_version": (_C, "src_mv dst_name"),
    "create_prompt": (_C, "name description tags"),
    "create_prompt_version": (_C, "name template description tags response_format model_config"),
    "delete_prompt": (_C, "name"),
    "delete_prompt_alias": (_C, "name alias"),
    "delete_prompt_tag": (_C, "name key"),
    "delete_prompt_version": (_C, "name version"),
    "delete_prompt_version_tag": (_C, "name version key"),
    "get_prompt": (_C, "name"),
    "get_prompt_version": (_C, "name version"),
    "get_prompt_version_by_alias": (_C, "name alias"),
    "link_prompt_version_to_model": (_C, "name version model_id"),
    "link_prompt_version_to_run": (_C, "name version run_id"),
    "link_prompts_to_trace": (_C, "prompt_versions trace_id"),
    "search_prompt_versions": (_C, "name max_results page_token"),
    "search_prompts": (_C, "filter_string max_results order_by page_token"),
    "set_prompt_alias": (_C, "name alias version"),
    "set_prompt_tag": (_C, "name key value"),
    "set_prompt_version_tag": (_C, "name version key value"),
    "test_webhook": (_C, "webhook_id event"),
}

NOT_METHODS = frozenset({"CREATE_MODEL_VERSION_RETRIES", "supports_workspaces"})

INTERNALS = ("_get_active_workspace", "_get_query", "_get_registered_model")
"""Methods of the stock store that the locked transaction rests on."""

HANDLERS = (
    "_is_servable_proxied_run_artifact_root",
    "_get_artifact_repo_mlflow_artifacts",
    "_get_proxied_run_artifact_destination_path",
    "_get_workspace_scoped_repo_path_if_enabled",
    "get_artifact_repository",
)
"""Functions of ``mlflow.server.handlers`` that find a model's files from inside the server."""

_GUARDED_REPOSITORY = "_get_artifact_repository_for_uri"
"""From 3.17 on: the same as ``get_artifact_repository``, after a look at the host."""

ROUTES: dict[str, Kind] = {
    "GET registered-models/get": _R,
    "GET registered-models/get-latest-versions": _R,
    "POST registered-models/get-latest-versions": _R,
    "GET registered-models/search": _R,
    "GET registered-models/alias": _R,
    "GET model-versions/get": _R,
    "GET model-versions/get-download-uri": _R,
    "GET model-versions/search": _R,
    "GET webhooks": _R,
    "GET webhooks/<webhook_id>": _R,
    "GET workspaces": _R,
    "GET workspaces/<workspace_name>": _R,
    "DELETE registered-models/delete": _D,
    "DELETE registered-models/alias": _D,
    "DELETE model-versions/delete": _D,
    "DELETE webhooks/<webhook_id>": _D,
    "POST registered-models/create": _W,
    "PATCH registered-models/update": _W,
    "POST registered-models/set-tag": _W,
    "DELETE registered-models/delete-tag": _W,
    "PATCH model-versions/update": _W,
    "POST model-versions/set-tag": _W,
    "DELETE model-versions/delete-tag": _W,
    "POST webhooks": _W,
    "PATCH webhooks/<webhook_id>": _W,
    "POST webhooks/<webhook_id>/test": _W,
    "POST workspaces": _W,
    "PATCH workspaces/<workspace_name>": _W,
    "POST registered-models/alias": _P,
    "POST model-versions/transition-stage": _P,
    "POST model-versions/create": _P,
    "POST registered-models/rename": _P,
    "DELETE workspaces/<workspace_name>": Kind.ELSEWHERE,
}
"""Routes of models, versions, webhooks and workspaces, under both of their prefixes and in any version of the API."""


def require_known(stock: type, abstract: type, sealed: type) -> None:
    """Raise `Unchecked` unless `sealed` covers all that `stock` can do.

    Args:
        stock: MLflow's SQL store, the one that is about to be used.
        abstract: MLflow's abstract store.
        sealed: our class on top of `stock`.
    """
    _require_version()
    problems = [*_unknown(stock), *_changed(stock), *_uncovered(stock, abstract, sealed)]
    problems += [f"internal {name} is gone" for name in INTERNALS if not hasattr(stock, name)]
    if problems:
        raise Unchecked(
            "this MLflow is not the one that was examined",
            got="; ".join(problems[:6]),
            expected="every registry method known to mlseal_mlflow/surface.py",
            remedy=f"install mlflow {_text(OLDEST)} to {_text(NEWEST)}, or upgrade mlseal",
        )


def require_handlers(handlers: object) -> None:
    """Raise `Unchecked` unless the server functions that find a model's files exist."""
    missing = [name for name in HANDLERS if not callable(getattr(handlers, name, None))]
    if missing:
        raise Unchecked("MLflow's server cannot be asked for a model's files", got=f"no {', '.join(missing)}")


def repository_for(handlers: Any, uri: str) -> Any:
    """The artifact repository of `uri` as this MLflow's server makes it; looks at the host where MLflow does."""
    make = getattr(handlers, _GUARDED_REPOSITORY, handlers.get_artifact_repository)
    return make(uri)


def require_routes(endpoints: Iterable[tuple[str, object, Iterable[str]]]) -> None:
    """Raise `Unchecked` unless each of MLflow's REST routes about models, webhooks and workspaces is in `ROUTES`.

    Args:
        endpoints: (path, handler, methods) of each route, as ``mlflow.server.handlers.get_endpoints()`` gives them.
    """
    known = {f"{method} {route}" for path, _, methods in endpoints if (route := _route(path)) for method in methods}
    problems = [f"new: {route}" for route in sorted(known - set(ROUTES))]
    problems += [f"gone: {route}" for route in sorted(set(ROUTES) - known)]
    if problems:
        raise Unchecked(
            "this MLflow has other registry routes than the one that was examined",
            got="; ".join(problems[:6]),
            expected="the routes in mlseal_mlflow/surface.py",
            remedy=f"install mlflow {_text(OLDEST)} to {_text(NEWEST)}, or upgrade mlseal",
        )


def _route(path: str) -> str | None:
    """``registered-models/get`` of ``/PREFIX/ajax-api/2.0/mlflow/registered-models/get``; None for other subjects."""
    found = re.search(r"/mlflow/((?:registered-models|model-versions|webhooks|workspaces)(?:/.*)?)$", path)
    return found[1] if found else None


def _require_version() -> None:
    try:
        text = importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtra("MLflow is not installed", remedy="pip install 'mlseal[mlflow]'") from error
    major, minor = (int(part) for part in text.split(".")[:2])
    if OLDEST <= (major, minor) <= NEWEST:
        return
    if os.environ.get(UNVETTED) == _text((major, minor)):
        _log.warning("mlseal: MLflow %s was never examined; %s says to start all the same", text, UNVETTED)
        return
    raise Unchecked(
        "this MLflow was never examined",
        got=text,
        expected=f"{_text(OLDEST)} to {_text(NEWEST)}",
        remedy=f"install an examined MLflow, upgrade mlseal, or take the risk with {UNVETTED}={_text((major, minor))}",
    )


def _unknown(stock: type) -> list[str]:
    public = {name for name in dir(stock) if not name.startswith("_")}
    gone = set(SURFACE) - public
    new = public - set(SURFACE) - NOT_METHODS
    return [f"new: {name}" for name in sorted(new)] + [f"gone: {name}" for name in sorted(gone)]


def _changed(stock: type) -> list[str]:
    found = []
    for name, (_, arguments) in SURFACE.items():
        method = getattr(stock, name, None)
        if method is not None and list(inspect.signature(method).parameters)[1:] != arguments.split():
            found.append(f"{name} takes other arguments")
    return found


def _uncovered(stock: type, abstract: type, sealed: type) -> list[str]:
    found = []
    for name, (kind, _) in SURFACE.items():
        ours, theirs = getattr(sealed, name, None), getattr(stock, name, None)
        if kind is Kind.PROMOTE and ours is theirs:
            found.append(f"{name} is not gated")
        if kind is Kind.COMPOSITE and theirs is not getattr(abstract, name, None):
            found.append(f"{name} no longer goes through the primitives")
    return found


def _text(minor: tuple[int, int]) -> str:
    return ".".join(map(str, minor))
