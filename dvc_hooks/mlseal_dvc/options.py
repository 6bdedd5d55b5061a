"""Options and output that the commands of ``mlseal dvc`` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from mlseal.errors import Misuse
from mlseal_dvc import session

_F = TypeVar("_F", bound=Callable[..., Any])
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def who(command: _F) -> _F:
    """Options that say who is trusted and who signs; they become the session."""

    @click.option("--identity", "san", help="Expected signer (SAN), with --issuer; replaces the policy.")
    @click.option("--issuer", help="Issuer of the expected signer's token.")
    @click.option("--policy", help="Policy to use instead of $MLSEAL_POLICY or the user's.")
    @click.option("--trust", help="Trust root: file, directory or pinned fingerprint.")
    @wraps(command)
    def with_session(
        *args: Any, san: str | None, issuer: str | None, policy: str | None, trust: str | None, **kwargs: Any
    ) -> Any:
        from mlseal.evidence.identity import Identity

        if (san is None) != (issuer is None):
            raise Misuse("a signer is named by two things", expected="--identity SAN together with --issuer URL")
        identities = (Identity(issuer, san),) if san and issuer else ()
        session.use(session.Session(identities=identities, policy=policy, trust=trust, forced=True))
        return command(*args, **kwargs)

    return with_session  # type: ignore[return-value]


def say(as_json: bool, facts: dict[str, Any], *lines: str) -> None:
    """Print `facts` as JSON, or `lines`."""
    if as_json:
        click.echo(json.dumps(facts))
        return
    for line in lines:
        click.echo(line)
