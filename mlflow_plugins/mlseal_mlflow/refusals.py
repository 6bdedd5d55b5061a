"""Between mlseal's errors and MLflow's: every refusal is a 4xx with its reason.

MLflow's client retries a 5xx for minutes and then shows "Max retries exceeded" instead of the message, so even a
failure of our own is answered 403: nothing was checked, nothing is allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlseal.errors import Error, Misuse, Pending, Unchecked

_log = logging.getLogger(__name__)


def to_mlflow(error: Error, what: str) -> Exception:
    """The MLflow exception for `error`: 403, 409 while pending, 400 for misuse; its raw body carries ``mlseal``."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, RESOURCE_CONFLICT

    if isinstance(error, Misuse):
        code = INVALID_PARAMETER_VALUE
    elif isinstance(error, Pending) or error.http_status == 409:
        code = RESOURCE_CONFLICT
    else:
        code = PERMISSION_DENIED
    verb = "is pending" if isinstance(error, Pending) else "refused"
    return MlflowException(f"mlseal: {what} {verb}: {error.brief or error}", error_code=code, mlseal=error.to_dict())


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a 4xx that names `what`.

    MLflow's own 4xx pass as they are. Its 5xx, and anything unforeseen, become 403.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except Error as error:
        raise to_mlflow(error, what) from error
    except MlflowException as error:
        if error.get_http_status_code() < 500:
            raise
        raise to_mlflow(_unforeseen(error), what) from error
    except Exception as error:
        _log.exception("mlseal: unforeseen failure during %s", what)
        raise to_mlflow(_unforeseen(error), what) from error


def _unforeseen(error: Any) -> Unchecked:
    return Unchecked(
        "the check itself failed",
        got=f"{type(error).__name__}: {error}"[:300],
        remedy="see the server's log; nothing was changed",
    )
