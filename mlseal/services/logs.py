"""Appending to a log of this authority, with its failures told as what they are to a caller: not the caller's fault."""

from __future__ import annotations

from mlseal.errors import Refusal, ServiceUnavailable
from mlseal.tlog.writer import Appended, LogWriter


def append(writer: LogWriter, body: bytes, identity: bytes) -> Appended:
    """Append `body` under `identity`, durable and public when this returns; see `LogWriter.append_all`.

    A log that contradicts itself raises `ServiceUnavailable` here: towards a client nothing was refused, the service
    cannot work until its operator looks. A full disk stays `Unchecked`.
    """
    try:
        return writer.append(body, identity)
    except Refusal as error:
        raise ServiceUnavailable(
            "the log does not reproduce what it signed and takes nothing more",
            got=str(error),
            remedy="its operator restores the log's directory",
        ) from error
