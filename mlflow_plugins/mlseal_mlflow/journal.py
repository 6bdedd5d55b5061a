"""The decision log: one line for each decision of this server, with the name of who asked. Local, and erasable.

The signed verdict holds a pseudonym and a nonce; the line with the same nonce says who that was. It is a help for the
operator and no evidence: nothing is decided by it. Erasing a person removes their lines; the verdicts stay valid.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlseal.errors import Refusal, Unchecked
from mlseal.evidence import paths
from mlseal.evidence.bundle import write_atomic
from mlseal.evidence.clock import Clock, rfc3339, utcnow
from mlseal.evidence.predicates import slsa_vsa
from mlseal_mlflow import requester
from mlseal_mlflow.requester import Requester

MAX_BYTES = 32 << 20
"""Beyond this the log becomes ``decisions.1.jsonl``, and the one before that is dropped."""


def directory() -> Path:
    """Where the decision log of this user's servers lies."""
    return paths.state_dir() / "mlflow-decisions"


class Journal:
    """The decision log in `directory`, shared by the workers of a server.

    Args:
        directory: made if need be (0700).
        clock: the injected clock.
    """

    def __init__(self, directory: Path, *, clock: Clock = utcnow) -> None:
        self._directory, self._clock = paths.private(directory), clock
        self._files = (self._directory / "decisions.jsonl", self._directory / "decisions.1.jsonl")
        self._salt = self._directory / "salt"

    def note(self, who: Requester, action: Mapping[str, str], decision: str, **more: str) -> slsa_vsa.Requester:
        """Write one line; gives what the signed verdict may say about `who`.

        Raises `Unchecked` when it cannot be written: nothing is decided unseen.
        """
        try:
            said = slsa_vsa.Requester(
                source=who.source, pseudonym=requester.pseudonym(who, requester.salt(self._salt)) if who.name else None
            )
            line = {
                "time": rfc3339(self._clock()),
                "requester": who.name,
                **said.to_json(),
                "decision": decision,
                "action": dict(action),
                **more,
            }
            with self._alone():
                self._append(json.dumps(line, sort_keys=True).encode() + b"\n")
        except OSError as error:
            raise Unchecked("the decision log cannot be written", got=str(error)) from error
        return said

    @contextmanager
    def noting_refusals(self, action: Mapping[str, str]) -> Iterator[None]:
        """Write a line about nobody for a `Refusal` raised inside: who it was is what was refused."""
        try:
            yield
        except Refusal:
            self.note(Requester(requester.UNAUTHENTICATED), action, "refused")
            raise

    def require_writable(self) -> None:
        """Raise `Unchecked` when no line could be written now."""
        current = self._files[0]
        if not os.access(self._directory, os.W_OK) or (current.exists() and not current.is_file()):
            raise Unchecked("the decision log cannot be written", got=str(current))

    def forget(self, name: str | None) -> int:
        """Remove the lines of person `name` and say how many; for None all lines, and the salt with them."""
        removed = 0
        with self._alone():
            for file in self._files:
                lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
                kept = [line for line in lines if name is not None and not _may_name(line, name)]
                removed += len(lines) - len(kept)
                if kept != lines:
                    write_atomic(file, b"".join(kept), mode=0o600)
            if name is None:
                self._salt.unlink(missing_ok=True)
        return removed

    def _append(self, line: bytes) -> None:
        current, older = self._files
        if current.exists() and current.stat().st_size + len(line) > MAX_BYTES:
            current.replace(older)
        out = os.open(current, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(out, line) != len(line):
                raise OSError(errno.ENOSPC, "the line was written in part")
        finally:
            os.close(out)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = os.open(self._directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _may_name(line: bytes, name: str) -> bool:
    try:
        return bool(json.loads(line)["requester"] == name)
    except (ValueError, KeyError, TypeError):
        return True  # broken off when the disk was full: whose it was, nobody can say
