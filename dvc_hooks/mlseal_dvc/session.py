"""What the person who runs the command decided: trust root, expected signers, token. Never read from a repository."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlseal.errors import Error
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.identity import IdentityMatcher


@dataclass
class Session:
    """Settings of this process.

    Attributes:
        identities: signers named on the command line; they replace the policy's.
        trust: path or fingerprint of a trust root; resolved as everywhere when absent.
        policy: path of a policy, in place of the user's.
        token_file: identity token for signing.
        role: role that the embedded issuer is asked for.
        names: ``plain`` or ``committed`` for what this command signs; None leaves it to the others who may say.
        purpose: why this push hands data on, as the owner's data policy writes it; else ``$MLSEAL_PURPOSE``.
        forced: act although nothing marks the repository as protected (``mlseal dvc …``).
        stopped: the error that ended a DVC command, kept for the exit code.
        messages: what happened, for ``--json``.
    """

    identities: tuple[IdentityMatcher, ...] = ()
    trust: str | None = None
    policy: str | None = None
    token_file: str | None = None
    role: str = "producer"
    names: str | None = None
    purpose: str | None = None
    forced: bool = False
    clock: Clock = utcnow
    stopped: Error | None = None
    messages: list[str] = field(default_factory=list)


_CURRENT = Session()


def current() -> Session:
    """The settings in force."""
    return _CURRENT


def use(session: Session) -> None:
    """Put `session` in force for the rest of this process."""
    global _CURRENT  # noqa: PLW0603 - one command per process, like DVC's own configuration
    _CURRENT = session
