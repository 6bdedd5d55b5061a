"""The tree of everything that stops mlseal.

Error:
    ├─ Refusal     evidence is present and wrong          exit 10   HTTP 403
    │   ├─ UntrustedSigner    the signer is not one that the policy names, or the CA refused the token
    │   ├─ ForgedEvidence     a signature, proof, timestamp or certificate does not verify
    │   ├─ SplitView          two checkpoints of one log that no single tree can hold
    │   ├─ DigestMismatch     the bytes are not the bytes that were attested
    │   ├─ MalformedEvidence  a bundle, statement or predicate breaks its own format
    │   ├─ Revoked            the evidence was withdrawn by a listed identity
    │   └─ RuleBroken         a policy condition is false
    ├─ Unchecked   the check could not be made            exit 11   HTTP 403
    │   ├─ NoEvidence         nothing attests this subject
    │   ├─ StaleEvidence      evidence, revocations or trust root are older than allowed
    │   ├─ Withheld           the log holds an entry whose bundle nobody can show
    │   ├─ ServiceUnavailable CA, time-stamping authority or log did not answer in time
    │   ├─ Unreadable         a file or directory cannot be read
    │   ├─ MissingExtra       an optional library is not installed
    │   ├─ Cancelled          the run was stopped from outside    exit 130
    │   └─ Pending            the answer is being computed         HTTP 409
    └─ Misuse      the caller is wrong                    exit 2    HTTP 400
        ├─ PolicyInvalid      a policy that cannot be loaded
        ├─ NotInitialised     no trust root, token or service was configured
        ├─ DuplicateName      a name that is taken already
        └─ UnknownName        a stage, predicate, role or file that does not exist

All of them stop; they differ in whose turn it is. Every message is one sentence that says what was found,
what was expected and what to do. Traps that fail open are why ``Unchecked`` is not a warning.
"""

from __future__ import annotations

from typing import ClassVar


class Error(Exception):
    """Base of all errors that mlseal raises on purpose.

    Args:
        message: what happened, without a full stop.
        got: what was found, if that can be named.
        expected: what would have been accepted.
        remedy: the command or action that mends it.
        brief: the same for a narrow place, where what is said of several things at once would be lost.

    ``str(error)`` is one sentence holding all four; it never spans lines, so it can be a log line, an HTTP
    message or the last line of a terminal.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 403

    def __init__(
        self,
        message: str,
        *,
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
        brief: str | None = None,
    ) -> None:
        self.message = _one_line(message)
        self.got = None if got is None else _one_line(str(got))
        self.expected = None if expected is None else _one_line(str(expected))
        self.remedy = None if remedy is None else _one_line(remedy)
        self.brief = None if brief is None else _one_line(brief)
        super().__init__(self.message)

    def __str__(self) -> str:
        text = self.message
        if self.got is not None:
            text += f"; got {self.got}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.remedy is not None:
            text += f"; remedy: {self.remedy}"
        return text

    def to_dict(self) -> dict[str, object]:
        """The error as JSON for ``--json`` and HTTP bodies."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "got": self.got,
            "expected": self.expected,
            "remedy": self.remedy,
            "exitCode": self.exit_code,
        }


def _one_line(text: str) -> str:
    """One line that every encoding can say: half a surrogate pair, which JSON and file names may hold, is escaped."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")


class Refusal(Error):
    """Evidence is present and wrong, bytes differ, or an identity is not the expected one."""

    exit_code = 10


class UntrustedSigner(Refusal):
    """The signer is not an identity that may make this statement, or its token was not accepted."""


class ForgedEvidence(Refusal):
    """A signature, certificate, timestamp or inclusion proof does not verify."""


class SplitView(ForgedEvidence):
    """A checkpoint cannot belong to the same append-only log as the one pinned before."""


class DigestMismatch(Refusal):
    """The bytes at hand are not the bytes that the statement is about."""


class MalformedEvidence(Refusal):
    """A bundle, statement or predicate breaks its own format."""


class Revoked(Refusal):
    """The evidence was withdrawn, expired or superseded by a listed identity."""


class RuleBroken(Refusal):
    """A policy condition is false for verified evidence."""


class Unchecked(Error):
    """The check could not be made; nothing is known, so nothing is allowed."""

    exit_code = 11


class NoEvidence(Unchecked):
    """No evidence of the wanted kind exists for this subject."""


class StaleEvidence(Unchecked):
    """Evidence, a revocation snapshot or a trust root is older than allowed."""


class Withheld(Unchecked):
    """The log holds an entry for which nobody shows the bundle."""


class ServiceUnavailable(Unchecked):
    """A remote part did not answer, or not in time."""


class Unreadable(Unchecked):
    """A file or directory is missing, cannot be read, or changed while it was read."""


class MissingExtra(Unchecked):
    """An optional library is not installed; the remedy names the extra."""


class Cancelled(Unchecked):
    """The run was stopped from outside, by a signal or its caller; nothing was signed about it."""

    exit_code = 130


class Pending(Unchecked):
    """The answer is being computed; ask again."""

    http_status = 409


class Misuse(Error):
    """The caller asked for something that cannot be done as asked."""

    exit_code = 2
    http_status = 400


class PolicyInvalid(Misuse):
    """A policy file that cannot be loaded: typo, unknown key, bad condition, duplicate key."""


class NotInitialised(Misuse):
    """No trust root, token or service is configured for this user."""


class DuplicateName(Misuse):
    """A name is already taken."""


class UnknownName(Misuse):
    """A stage, predicate, role, alias or file that does not exist."""
