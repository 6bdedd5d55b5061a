"""What a file system of fsspec raises, told in one sentence of ours. Every scheme has errors of its own.

Only a missing object is ``NoEvidence``. Everything else that keeps the store from being read is `ServiceUnavailable`:
an answer that says nothing about the bundle must not be taken for one.
"""

from __future__ import annotations

import errno
import re

from mlseal.errors import Error, MissingExtra, NoEvidence, ServiceUnavailable, Unreadable

_EXISTS = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
_NO_CONDITIONS = {"NotImplemented", "501"}
_EMPTY = {"InvalidRange", "416"}
_DENIED = {"AccessDenied", "403"}
_AFTER_MARK = re.compile(r"[?&]\S*")
_USER = re.compile(r"//[^/@\s]*@")


def told(error: BaseException, store: str, what: str) -> Error:
    """`error`, raised while `what` was read or written at `store`, as ours."""
    if isinstance(error, Error):
        return error
    code = code_of(error)
    if isinstance(error, ImportError):
        return MissingExtra(
            f"the evidence store {store} needs the extra 'remote' and fsspec's part for its scheme",
            got=_words(error),
            remedy="pip install 'mlseal[remote]', and beside it s3fs, gcsfs or adlfs, whichever the scheme asks for",
        )
    if code == "NoSuchBucket":
        return ServiceUnavailable(f"there is no bucket for the store {store}", got=code, remedy="check the URL")
    if isinstance(error, FileNotFoundError):
        return NoEvidence(f"the store {store} has no {what}", remedy="copy its bundle there")
    if code in _EMPTY:
        return Unreadable(f"{what} in {store} is empty", expected="a Sigstore bundle v0.3")
    if isinstance(error, PermissionError) or code in _DENIED:
        return ServiceUnavailable(
            f"the store {store} refuses {what}",
            got=code or _words(error),
            expected="the rights to get, to list (without it, what is missing is forbidden) and, for who signs, to put",
            remedy="see 'Evidence in a bucket' in docs/operator.md for who needs which",
        )
    if isinstance(error, (NotImplementedError, TypeError)):
        return ServiceUnavailable(f"the file system of {store} cannot do this to {what}", got=_words(error))
    return ServiceUnavailable(
        f"the store {store} cannot be reached for {what}",
        got=code or _words(error),
        remedy="check URL, endpoint, credentials and network: mlseal doctor --store URL",
    )


def exists(error: BaseException) -> bool:
    """Whether a write that must be the first one found another there."""
    return isinstance(error, FileExistsError) or code_of(error) in _EXISTS


def no_conditions(error: BaseException) -> bool:
    """Whether the file system or service knows no write that must be the first one."""
    unknown = isinstance(error, (NotImplementedError, TypeError, ValueError)) or code_of(error) in _NO_CONDITIONS
    return unknown or (isinstance(error, OSError) and error.errno == errno.ENOSYS)


def code_of(error: BaseException) -> str | None:
    """The service's own word for what went wrong (botocore's ``Error.Code``), if there is one."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            found = response.get("Error", {}).get("Code")
            return None if found is None else str(found)[:40]
    return None


def _words(error: BaseException) -> str:
    """Its type and first words. Of URLs in it nothing that may be secret: no query (signatures), no user."""
    said = _USER.sub("//", _AFTER_MARK.sub("", str(error)))
    return f"{type(error).__name__}: {said}"[:160]
