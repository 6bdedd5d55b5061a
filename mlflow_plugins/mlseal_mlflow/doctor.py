"""Is the gate really there? Asked of the configuration here, and of a running server by trying it.

A server whose operator forgot ``--registry-store-uri``, or whose plugin could not be imported, works and says OK to
health checks. So the server is asked what it says of its gate (`mlseal_mlflow.posture`), and to do what must be
refused: point an alias at a version that nothing proves, in a model made for this and deleted afterwards. Where no
policy lets versions be registered freely, that is refused already.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

from mlseal.errors import Refusal, Unchecked
from mlseal_mlflow import posture
from mlseal_mlflow.posture import Check, asked


def local() -> list[Check]:
    """What a server started with this environment would meet at its start."""
    return [
        asked("mlflow surface", _surface),
        asked("trust root", _trust),
        asked("gate identity", _gate),
        asked("policy, store and token", _decisions),
    ]


def server(url: str) -> list[Check]:
    """What the server at `url` says of its gate, and whether it refuses what nothing proves."""
    return [asked("server's own posture", lambda: _posture(url)), refuses(url)]


def refuses(url: str) -> Check:
    """Whether the server at `url` refuses what nothing proves: the canary alone."""
    return asked("server refuses what nothing proves", lambda: _canary(url))


def _surface() -> str:
    import importlib.metadata

    from mlflow.server import handlers
    from mlflow.store.model_registry.abstract_store import AbstractStore
    from mlflow.store.model_registry.sqlalchemy_workspace_store import WorkspaceAwareSqlAlchemyStore as Stock

    from mlseal_mlflow import surface
    from mlseal_mlflow.store import SealedStore

    surface.require_known(Stock, AbstractStore, type("Sealed", (SealedStore, Stock), {}))
    surface.require_handlers(handlers)
    surface.require_routes(handlers.get_endpoints())
    classified = f"{len(surface.SURFACE)} registry methods and {len(surface.ROUTES)} routes classified"
    return f"mlflow {importlib.metadata.version('mlflow')}, {classified}"


def _trust() -> str:
    from mlseal.evidence import trust
    from mlseal.evidence.clock import utcnow

    root = trust.resolve()
    root.require_current(utcnow())
    return f"{root.fingerprint} from {root.source}"


def _gate() -> str:
    from mlseal.evidence import trust
    from mlseal_mlflow.identity import gates

    return ", ".join(map(str, gates(trust.resolve())))


def _decisions() -> str:
    from mlseal_mlflow import decision

    found = decision.from_environment()
    return ", ".join(f"{policy.name} sha256:{policy.sha256[:12]}" for policy in found.policies)


def _posture(url: str) -> str:
    checks = posture.ask(url)
    amiss = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
    if amiss:
        raise Unchecked("the gate of this server cannot decide", got="; ".join(amiss))
    return ", ".join(f"{check.name} {check.detail}" for check in checks)


def _canary(url: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client: Any = MlflowClient(url, url)
    name = f"mlseal-canary-{uuid.uuid4().hex[:12]}"
    logged = None
    try:
        client.create_registered_model(name)
        logged = client.create_logged_model("0", name=name).model_id  # without files: nothing could prove it
        try:
            source = f"models:/{logged}"
            version = client.create_model_version(name, source, model_id=logged, await_creation_for=0).version
            client.set_registered_model_alias(name, "mlseal-canary", version)
        except MlflowException as error:
            if error.get_http_status_code() == 403 and "mlseal" in str(error):
                return f"refused as it must be: {str(error)[:160]}"
            raise Unchecked("the server failed otherwise than by refusing", got=str(error)[:200]) from error
        raise Refusal(
            "the server let an unproven alias through",
            got=url,
            expected="403 from mlseal",
            remedy="start it with --registry-store-uri mlseal:DATABASE-URI",
        )
    finally:
        with contextlib.suppress(MlflowException):  # left behind, it points at nothing
            client.delete_registered_model(name)
        with contextlib.suppress(MlflowException):
            if logged:
                client.delete_logged_model(logged)
