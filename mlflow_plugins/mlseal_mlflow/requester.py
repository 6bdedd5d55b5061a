"""Who asked: known by name here, by a pseudonym in what is signed.

Sources of a name, each of which checked something:

* ``basic-auth``: MLflow's own application, which checked a password.
* ``oidc``: mlflow-oidc-auth, which checked a token of an identity provider and leaves the user in the request's
  environment, where no client can put anything.
* ``proxy``: a header set by a login proxy, only from an address that the operator listed (``MLSEAL_MLFLOW_PROXY``).

What a client says about itself (any other header, ``mlflow.user`` tags) is no identity and is not looked at. The log
is public and for ever, so no name goes there: the statement holds HMAC-SHA256(salt, name) under a salt that only this
server has, and the local decision log (`mlseal_mlflow.journal`), from which a person can be erased, holds both.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse, Refusal

UNAUTHENTICATED = "unauthenticated"
BASIC_AUTH, OIDC, PROXY = "basic-auth", "oidc", "proxy"
OIDC_KEY = "mlflow_oidc_auth"
"""Where mlflow-oidc-auth leaves its AuthContext in the WSGI environment."""

REQUIRED, PROXY_VARIABLE = "MLSEAL_MLFLOW_IDENTITY", "MLSEAL_MLFLOW_PROXY"
_NAME = re.compile(r"[^\x00-\x20\x7f,;]+")
_HEADER = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Requester:
    """Who asked: ``source`` is what vouches for ``name``; without a source that was tried there is no name."""

    source: str
    name: str | None = None


@dataclass(frozen=True)
class Proxy:
    """A login proxy: the header in which it names the user, and the addresses that it connects from."""

    header: str
    addresses: frozenset[str]

    def named(self, environ: Mapping[str, Any]) -> str | None:
        """The user in the header; None without one.

        Raises `Refusal` for a header from anywhere else, for one that two senders may have written into, and where the
        address is not known to be the connection's own.
        """
        value = environ.get("HTTP_" + self.header.upper().replace("-", "_"))
        if value is None:
            return None
        address = str(environ.get("REMOTE_ADDR", ""))
        if address not in self.addresses:
            raise _spoofed(f"{self.header} from {address or 'nowhere'}", ", ".join(sorted(self.addresses)))
        if "HTTP_X_FORWARDED_FOR" in environ and not _own_address(environ):
            raise _spoofed("X-Forwarded-For, by which uvicorn lets an address be claimed", "FORWARDED_ALLOW_IPS=none")
        if not _NAME.fullmatch(value):  # two headers, or its twin with underscores, arrive as one value with a comma
            raise _spoofed(f"{self.header}: {value[:60]!a}", "one name without spaces and commas")
        return str(value)


def _own_address(environ: Mapping[str, Any]) -> bool:
    """Whether the address is the connection's own whatever headers say.

    gunicorn never takes it from one; uvicorn does, unless told to believe nobody. Clients cannot write SERVER_SOFTWARE:
    what they send begins with ``HTTP_`` here.
    """
    gunicorn = str(environ.get("SERVER_SOFTWARE", "")).startswith("gunicorn/")
    return gunicorn or os.environ.get("FORWARDED_ALLOW_IPS") == "none"


@dataclass(frozen=True)
class Asking:
    """Where this server learns who asks, and whether it must.

    Args:
        required: refuse to decide for somebody whom nothing vouches for.
        proxy: the login proxy in front, if the operator named one.
    """

    required: bool = False
    proxy: Proxy | None = None

    def current(self) -> Requester:
        """Who asked for what this thread is doing. Must run on the request's thread.

        Raises `Refusal` for a forged proxy header, and for nobody where somebody is required.
        """
        who = self._found()
        if self.required and who.name is None:
            raise Refusal(
                "this server decides only for a user whom a login vouches for",
                got=who.source,
                expected=f"a user of {BASIC_AUTH}, mlflow-oidc-auth or the listed proxy",
                remedy="log in, and ask again",
            )
        return who

    def anyone(self) -> Requester:
        """Who asked, where nobody need be known and nothing is refused; who forges a header is nobody."""
        try:
            return self._found()
        except Refusal:
            return Requester(UNAUTHENTICATED)

    def _found(self) -> Requester:
        from flask import g, has_request_context, request

        if not has_request_context():
            return Requester(UNAUTHENTICATED)
        if name := getattr(g, "mlflow_authenticated_user", None):
            return Requester(BASIC_AUTH, str(name))
        if name := getattr(request.environ.get(OIDC_KEY), "username", None):
            return Requester(OIDC, str(name))
        if self.proxy is not None and (name := self.proxy.named(request.environ)):
            return Requester(PROXY, name)
        return Requester(UNAUTHENTICATED)


def configured() -> Asking:
    """As the environment says: ``MLSEAL_MLFLOW_IDENTITY=required`` and ``MLSEAL_MLFLOW_PROXY="HEADER ADDRESS,…"``.

    Raises `Misuse` for anything else.
    """
    wanted, proxy = os.environ.get(REQUIRED, "optional"), os.environ.get(PROXY_VARIABLE)
    if wanted not in ("required", "optional"):
        raise Misuse(f"{REQUIRED} cannot be read", got=wanted[:40], expected="required or optional")
    return Asking(wanted == "required", None if proxy is None else _proxy(proxy))


def _proxy(text: str) -> Proxy:
    header, _, listed = text.partition(" ")
    try:
        addresses = frozenset(str(ipaddress.ip_address(part.strip())) for part in listed.split(","))
    except ValueError as error:
        raise Misuse(f"{PROXY_VARIABLE} lists no addresses", got=str(error), expected="HEADER ADDRESS,…") from error
    if not _HEADER.fullmatch(header):
        raise Misuse(f"{PROXY_VARIABLE} names no header", got=header[:60], expected="such as X-Forwarded-User")
    return Proxy(header, addresses)


def _spoofed(got: str, expected: str) -> Refusal:
    return Refusal(
        "a header names a user, and nothing shows that the login proxy set it",
        got=got,
        expected=expected,
        remedy="ask through the proxy, which must replace the header that clients send",
    )


def pseudonym(who: Requester, salt: bytes) -> str | None:
    """The same for the same name under the same salt; says nothing to whoever lacks the salt. None without a name."""
    if who.name is None:
        return None
    return hmac.new(salt, f"{who.source}\0{who.name}".encode(), hashlib.sha256).hexdigest()


def salt(file: Path) -> bytes:
    """The salt in `file` (0600), made on first use; two workers that make it at once agree on one."""
    if not file.exists():
        mine = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(secrets.token_bytes(32))
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(mine, file)  # whole or not at all, and never over another's
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return file.read_bytes()
