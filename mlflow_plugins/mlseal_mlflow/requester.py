"""Who asked: known by name here, by a pseudonym in what is signed.

The name comes from MLflow's own basic-auth application, which checked a password; what a client says about itself
(headers, ``mlflow.user`` tags) is no identity and is not looked at. The log is public and for ever, so no name goes
there: the statement holds HMAC-SHA256(salt, name) under a salt that only this server has, and the local decision log
(`mlseal_mlflow.journal`), from which a person can be erased, holds both.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

UNAUTHENTICATED = "unauthenticated"
BASIC_AUTH = "basic-auth"


@dataclass(frozen=True)
class Requester:
    """Who asked: ``source`` is what vouches for ``name``; without a source that was tried there is no name."""

    source: str
    name: str | None = None


def current() -> Requester:
    """Who asked for what this thread is doing. Must run on the request's thread."""
    from flask import g, has_request_context

    name = getattr(g, "mlflow_authenticated_user", None) if has_request_context() else None
    return Requester(BASIC_AUTH, str(name)) if name else Requester(UNAUTHENTICATED)


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
