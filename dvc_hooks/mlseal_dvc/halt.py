"""How mlseal's errors end a DVC command: as an exception that DVC prints in one line and never takes for "missing"."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from mlseal.errors import Error, Misuse
from mlseal_dvc import session


@lru_cache(maxsize=1)
def stopped_type() -> type[Exception]:
    """`DvcException` with the mlseal error as ``.error``. Made on first use, since DVC is imported for it."""
    from dvc.exceptions import DvcException

    class Stopped(DvcException):  # type: ignore[misc,unused-ignore]
        """A DVC command was stopped by mlseal."""

        def __init__(self, error: Error) -> None:
            self.error = error
            super().__init__(f"mlseal: {error}")

    return Stopped


def of(error: Error) -> Exception:
    """The exception to raise into DVC for `error`; remembers it for the exit code of ``mlseal dvc``."""
    session.current().stopped = error
    made: Any = stopped_type()
    result: Exception = made(error)
    return result


@contextmanager
def told_to_dvc() -> Iterator[None]:
    """Turn every mlseal error inside into one that DVC understands."""
    try:
        yield
    except Error as error:
        raise of(error) from None  # DVC prints the chain of causes, which would say everything twice


@contextmanager
def told_by_dvc() -> Iterator[None]:
    """The way back, for ``mlseal dvc`` commands: DVC's own complaints become a wrong call, ours become themselves."""
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        yield
    except stopped_type() as stop:
        error: Error = stop.error  # type: ignore[attr-defined]
        raise error from None
    except (DvcException, SCMError) as complaint:
        raise Misuse(f"DVC says: {complaint}", remedy="check targets, revisions and the remote") from complaint


def say(message: str) -> None:
    """One line on standard error, where DVC's progress goes too."""
    session.current().messages.append(message)
    with_newline = f"mlseal: {message}\n"
    if sys.stderr is not None and not sys.stderr.closed:
        sys.stderr.write(with_newline)
        sys.stderr.flush()
