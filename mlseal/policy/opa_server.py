"""Asking OPA servers over HTTP: once, with one deadline for everything, and what the machine's owner says of them.

A policy names server and decision. How a server is known and what it is told besides is not the policy's to say, or
whoever writes one could have any file of this machine sent anywhere. It stands in ``opa.json`` of the configuration
directory of the user or machine, or in the file that ``$MLSEAL_OPA`` names::

    {"servers": {"https://opa.example:8181": {"tokenFile": "/etc/opa/token", "caFile": "/etc/opa/ca.pem"}}}

1. The token goes to that server alone. Proxies of the environment are not used, redirects are not followed.
2. Nothing is asked twice: a server that failed to answer is taken to be down for the rest of the judgement.
3. ``strict-builtin-errors``, or an error inside a rule would leave a reason to refuse undefined, which looks like none.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import MalformedEvidence, Misuse, ServiceUnavailable, Unreadable
from mlseal.evidence import canonical, paths
from mlseal.evidence.signing.transport import Connection
from mlseal.policy import opa_answer
from mlseal.policy.document import Document
from mlseal.policy.opa_answer import Said
from mlseal.policy.schema import Opa

VARIABLE = "MLSEAL_OPA"
_QUERY = "?provenance=true&strict-builtin-errors=true"  # (3)
_MEMBERS = {"tokenFile", "caFile"}
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_MOST = 64 * 1024


@dataclass(frozen=True)
class Access:
    """What this machine knows of one server: whose certificates count, and where its token lies."""

    token_file: Path | None = None
    ca_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """The header that tells the server who asks; read anew each time, since tokens are rotated."""
        if self.token_file is None:
            return {}
        token = _read(self.token_file, "the token for OPA").decode("utf-8", "replace").strip()
        if not _TOKEN.fullmatch(token):
            raise Misuse(
                f"{self.token_file} holds no bearer token", expected="one word", remedy="put the token there, alone"
            )
        return {"Authorization": f"Bearer {token}"}


class Servers:
    """Asks servers for the length of one judgement; remembers which of them did not answer."""

    def __init__(self) -> None:
        self._failed: dict[str, ServiceUnavailable] = {}

    def ask(self, engine: Opa, document: Document) -> Said:
        """What the decision says about `document`. Raises `Error` for everything that does not count."""
        if engine.server in self._failed:  # (2)
            raise self._failed[engine.server]
        access = _listed().get(engine.server, Access())
        headers = {"Content-Type": "application/json", "Connection": "close", **access.headers()}
        connection = Connection(
            engine.server,
            engine.timeout.total_seconds(),
            ca_file=str(access.ca_file) if access.ca_file else None,
            most=opa_answer.LARGEST,
        )
        body = b'{"input":' + document.raw + b"}"
        try:
            response = connection.request("POST", f"/v1/data/{engine.decision}{_QUERY}", body, headers)
        except (ServiceUnavailable, ValueError) as error:  # the latter for names that DNS cannot have
            told = error if isinstance(error, ServiceUnavailable) else None
            failed = ServiceUnavailable(
                f"the OPA server {engine.server} did not answer",
                got=told.got if told else error,
                expected=told.expected if told else "a host name",
                remedy="start it, or see whether this machine reaches it and trusts its certificate (opa.json)",
            )
            self._failed[engine.server] = failed
            raise failed from error
        return opa_answer.read(engine, response)


def _listed() -> dict[str, Access]:
    """What this machine knows of servers, by URL as policies write it; nothing where nobody wrote it down."""
    named = os.environ.get(VARIABLE)
    places = [Path(named)] if named else [folder / "opa.json" for folder in _folders()]
    file = next((place for place in places if named or place.is_file()), None)
    if file is None:
        return {}
    try:
        document = canonical.parse(_read(file, "what is known of OPA servers"), what=str(file), limit=_MOST)
    except MalformedEvidence as error:
        raise Misuse(error.message, got=error.got, remedy="correct that file") from error
    servers = document.get("servers") if isinstance(document, dict) and set(document) == {"servers"} else None
    if not isinstance(servers, dict) or not all(map(_is_access, servers.values())):
        raise Misuse(
            f"{file} does not describe servers",
            expected='{"servers": {URL: {"tokenFile": "/…", "caFile": "/…"}}}, with whole paths',
            remedy="correct that file",
        )
    return {
        url: Access(*(Path(e[k]) if k in e else None for k in ("tokenFile", "caFile"))) for url, e in servers.items()
    }


def _folders() -> tuple[Path, Path]:
    return paths.config_dir(), paths.machine_config_dir()


def _is_access(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) <= _MEMBERS
        and all(isinstance(path, str) and path.startswith("/") for path in entry.values())
    )


def _read(file: Path, what: str) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_MOST)
    except OSError as error:
        raise Unreadable(f"cannot read {what}, {file}", got=error.strerror, remedy="put the file there") from error
