"""A Sigstore bundle as bytes: what travels, rests in stores and is handed to verifiers.

Nothing here is verified. `Bundle.statement` is what the bundle *says*; only `mlseal.evidence.verifying` turns it into
something that may be believed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlseal.errors import MalformedEvidence, Unreadable
from mlseal.evidence import canonical, statement
from mlseal.evidence.statement import PAYLOAD_TYPE, Statement

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """The bytes of one bundle; equal bytes are equal bundles."""

    raw: bytes

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the file. Names this encoding; the evidence itself is named by `evidence_id`."""
        return hashlib.sha256(self.raw).hexdigest()

    @cached_property
    def document(self) -> dict[str, Any]:
        """The parsed JSON, strict (no duplicate keys, no NaN). Raises `MalformedEvidence`."""
        value = canonical.parse(self.raw, what="bundle", limit=MAX_BYTES)
        if not isinstance(value, dict) or value.get("mediaType") != MEDIA_TYPE:
            got = value.get("mediaType") if isinstance(value, dict) else type(value).__name__
            raise MalformedEvidence("not a Sigstore bundle v0.3", got=str(got)[:80], expected=MEDIA_TYPE)
        return value

    @cached_property
    def statement(self) -> Statement:
        """The statement inside, unverified. Raises `MalformedEvidence`."""
        envelope = self.document.get("dsseEnvelope")
        if not isinstance(envelope, dict) or envelope.get("payloadType") != PAYLOAD_TYPE:
            raise MalformedEvidence("bundle holds no in-toto envelope", expected=PAYLOAD_TYPE)
        return statement.parse(unbase64(envelope.get("payload"), "payload"))

    @property
    def evidence_id(self) -> str:
        """Hex SHA-256 of the signed bytes; the same for every encoding of this evidence."""
        return self.statement.evidence_id

    @property
    def claimed_tree(self) -> tuple[str, int]:
        """Origin and size of the log's tree that its proof is about, unverified. Raises `MalformedEvidence`."""
        try:
            note = self.document["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"]
            origin, size = note.split("\n")[:2]
            return str(origin), int(size)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise MalformedEvidence(
                "the bundle holds no checkpoint", got=f"{type(error).__name__}: {error}"[:80]
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Bundle:
        """The bundle in a file. Raises `Unreadable` if it is missing, empty or too large."""
        try:
            with Path(path).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise Unreadable(f"cannot read bundle {path}", got=error.strerror, remedy="check the path") from error
        if not raw or len(raw) > MAX_BYTES:
            raise Unreadable(
                f"bundle {path} is {'empty' if not raw else 'too large'}", expected="a Sigstore bundle v0.3"
            )
        return cls(raw)

    def write(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""
        write_atomic(path, self.raw)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path` so that a reader sees the old file or all of the new one, even after a crash.

    Raises `Unreadable` when the directory cannot be written or the disk is full; then nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    except OSError as error:
        raise Unreadable(f"cannot write {path}", got=error.strerror, remedy="check space and permissions") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise Unreadable(f"cannot write {path}", got=error.strerror, remedy="check space and permissions") from error


def unbase64(value: object, what: str) -> bytes:
    """Strict standard base64. Raises `MalformedEvidence` naming `what`."""
    if not isinstance(value, str):
        raise MalformedEvidence(f"{what} is missing or not text", expected="base64")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEvidence(f"{what} is not base64") from error
    # Several texts decode to equal bytes when padding bits are set; only the canonical one is accepted.
    if base64.b64encode(decoded).decode() != value:
        raise MalformedEvidence(f"{what} is not canonical base64")
    return decoded
