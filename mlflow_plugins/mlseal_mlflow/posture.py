"""Is the gate on, and can it decide right now? Answered over the registry's own REST, by a name that no model may have.

``GET /api/2.0/mlflow/registered-models/get?name=mlseal-posture`` is 200 with the policies in force when the gate could
decide, 503 with the reasons when it could not, and 404 from a server without the gate. A route of our own would be
another thing under every web server and login application (under MLflow's FastAPI it would be open to anyone, under its
basic-auth closed to all); this one is asked, logged in for and routed like any other question to the registry.

It says what the server says of itself. That a promotion is really refused shows the canary of ``mlseal mlflow doctor``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, Misuse, ServiceUnavailable

if TYPE_CHECKING:
    from mlseal_mlflow.decision import Decisions

NAME = "mlseal-posture"
REMEMBERED_SECONDS = 2.0
"""An answer serves everybody who asks within: it costs a token and a look at the log."""
BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    name: str
    ok: bool
    detail: str


def asked(name: str, question: Callable[[], str]) -> Check:
    """The answer to `question`; whatever it raises makes it a bad one."""
    try:
        return Check(name, True, question())
    except Error as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - whoever asks how things are is told, whatever it is
        return Check(name, False, f"{type(error).__name__}: {error}"[:300])


class Posture:
    """What the gate of this process needs to decide, tried out now and then."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._lock = threading.Lock()
        self._known: tuple[float, list[Check]] | None = None

    def checks(self) -> list[Check]:
        """What is needed, and whether it is there; no older than `REMEMBERED_SECONDS`."""
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            return [Check("readiness", False, "the check itself does not come back")]
        try:
            if self._known is None or time.monotonic() - self._known[0] > REMEMBERED_SECONDS:
                found = self._look()
                self._known = (time.monotonic(), found)
            return self._known[1]
        finally:
            self._lock.release()

    def _look(self) -> list[Check]:
        return [
            asked("policy", self._policy),
            asked("trust root", self._decisions.require_trust),
            asked("evidence store", self._store),
            asked("log and revocations", self._decisions.require_current),
            asked("identity of the gate", self._decisions.require_identity),
            asked("decision log", self._decisions.require_journal),
        ]

    def _policy(self) -> str:
        return ", ".join(f"{policy.name} sha256:{policy.sha256}" for policy in self._decisions.policies)

    def _store(self) -> str:
        self._decisions.archive.store.require_usable(writing=True)
        return "there"


def answer(checks: list[Check], workspace: str) -> Any:
    """The registered model that stands for a good posture. Raises MLflow's 503 with every reason for a bad one."""
    from mlflow.entities.model_registry import RegisteredModel, RegisteredModelTag
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    told = [vars(check) for check in checks]
    amiss = [check for check in checks if not check.ok]
    if amiss:
        reason = ServiceUnavailable(
            "the gate cannot decide: nothing is promoted",
            got="; ".join(f"{check.name}: {check.detail}" for check in amiss),
        )
        raise MlflowException(
            f"mlseal: {reason}", error_code=TEMPORARILY_UNAVAILABLE, mlseal={**reason.to_dict(), "checks": told}
        )
    now = int(time.time() * 1000)
    tags = [RegisteredModelTag("mlseal.posture", "on")]
    tags += [RegisteredModelTag(f"mlseal.{check.name.replace(' ', '-')}", check.detail) for check in checks]
    return RegisteredModel(NAME, now, now, "the mlseal gate is on", tags=tags, workspace=workspace)


def require_other(canonical: str) -> None:
    """Raise `Misuse` for the one name that asks about the gate."""
    if canonical == NAME:
        raise Misuse("no model may have this name", got=NAME, remedy="it asks whether the gate is on; take another")


def ask(url: str) -> list[Check]:
    """What the server at `url` says of itself; one bad check where it has no gate or does not answer.

    Credentials and workspace are those of MLflow's client (``MLFLOW_TRACKING_USERNAME``, ``MLFLOW_WORKSPACE``, …).
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    reply = http_request(
        host_creds=get_default_host_creds(url),
        endpoint="/api/2.0/mlflow/registered-models/get",
        method="GET",
        params={"name": NAME},
        max_retries=0,
        retry_codes=(),
        raise_on_status=False,
        timeout=90,
    )
    body = reply.json() if reply.headers.get("Content-Type", "").startswith("application/json") else {}
    if reply.status_code == 503 and "mlseal" in body:
        return [Check(str(c["name"]), bool(c["ok"]), str(c["detail"])) for c in body["mlseal"]["checks"]]
    if reply.status_code == 200:
        tags = {tag["key"]: tag["value"] for tag in body["registered_model"].get("tags", [])}
        if tags.pop("mlseal.posture", None) == "on":
            return [Check(key.removeprefix("mlseal."), True, value) for key, value in sorted(tags.items())]
    found = body.get("message", reply.text)[:160]
    return [Check("posture", False, f"no gate answered: {reply.status_code} {found}")]
