"""Names in evidence: as they are, or as salted commitments.

``patients/0231_smith.dcm`` tells who is in the data, and a plain hash of it tells the same: few names are possible, and
everybody can hash a guess. A commitment is ``name:hmac-sha256:`` and the HMAC-SHA256 of the name under a secret salt of
32 bytes. Whoever has the salt can check a guess; whoever has not can neither guess nor link. When the salt is erased
(`mlseal.evidence.salts`), what was signed still binds the same bytes, and its names are gone for good.

A subject's name decides nothing when evidence is verified: the digest does. So committed names need no salt to be
verified, except where a name is part of the question, as for the path of a DVC output (`mlseal_dvc.names`).

Who signs decides, with ``MLSEAL_NAMES``: ``plain`` (default) or ``committed``; never the tree that is signed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from mlseal.errors import Misuse
from mlseal.evidence import salts
from mlseal.evidence.digest import Subject

VARIABLE = "MLSEAL_NAMES"
PREFIX = "name:hmac-sha256:"
Kind = Literal["path", "subject", "stage", "command"]
"""What a name is the name of. Two kinds never share a commitment, so one cannot be passed off as the other."""
KINDS: tuple[Kind, ...] = ("path", "subject", "stage", "command")
_DOMAIN = b"mlseal names v1"
_MANIFEST = "#manifest"
_COMMITMENT = re.compile(re.escape(PREFIX) + "[0-9a-f]{64}")


@dataclass(frozen=True)
class Naming:
    """How names are written: `PLAIN`, or committed with a salt.

    Args:
        salt: 32 bytes, or None for names as they are. It is kept out of `repr`, so out of messages too.
    """

    salt: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.salt is not None and len(self.salt) != salts.BYTES:
            raise Misuse("a salt of names has the wrong length", got=len(self.salt), expected=f"{salts.BYTES} bytes")

    @property
    def committed(self) -> bool:
        """Whether names are hidden."""
        return self.salt is not None

    @property
    def salt_id(self) -> str | None:
        """Tells salts apart without telling anything about them (32 hex digits); None for plain names."""
        return None if self.salt is None else _mac(self.salt, b"salt id", b"")[:32]

    def of(self, kind: Kind, name: str) -> str:
        """`name` as evidence has it. Exact: NFC and NFD, or names that are no UTF-8, are different names."""
        if self.salt is None:
            return name
        # The bytes that a POSIX name has survive in the text as lone surrogates; this keeps them apart.
        return PREFIX + _mac(self.salt, kind.encode(), name.encode("utf-8", "surrogatepass"))

    def subject(self, name: str) -> str:
        """The name of a subject; ``#manifest``, which says what the digest is of, stays readable behind it."""
        if not self.committed:
            return name
        base = name.removesuffix(_MANIFEST)
        return self.of("subject", base) + name[len(base) :]

    def subjects(self, subjects: Iterable[Subject]) -> tuple[Subject, ...]:
        """The same digests under names as evidence has them."""
        return tuple(Subject(self.subject(s.name), s.sha256) for s in subjects)


PLAIN = Naming()


def in_force() -> Naming:
    """What ``$MLSEAL_NAMES`` asks for, with the salt of the project in the current directory, made if there is none.

    Raises `Misuse` for any other word: a misspelt wish for privacy must not end as plain names.
    """
    return Naming(salts.of_project().create()) if wished() == "committed" else PLAIN


def wished() -> Literal["plain", "committed"]:
    """The word in ``$MLSEAL_NAMES``; ``plain`` if it is not set. Raises `Misuse` for any other."""
    word = os.environ.get(VARIABLE, "") or "plain"
    if word == "committed":
        return "committed"
    if word != "plain":
        raise Misuse(f"${VARIABLE} is not understood", got=word[:40], expected="plain or committed")
    return "plain"


def is_commitment(text: str) -> bool:
    """Whether `text` is written like a commitment."""
    return bool(_COMMITMENT.fullmatch(text.removesuffix(_MANIFEST)))


def matches(commitment: str, names: Iterable[str], namings: Iterable[Naming]) -> list[tuple[Kind, str]]:
    """Which of `names` the `commitment` stands for under any of `namings`, and as what."""
    wanted, every = commitment.removesuffix(_MANIFEST), list(names)
    return [
        (kind, name)
        for naming in namings
        if naming.committed
        for name in every
        for kind in KINDS
        if hmac.compare_digest(naming.of(kind, name), wanted)
    ]


def _mac(salt: bytes, kind: bytes, name: bytes) -> str:
    return hmac.new(salt, b"\0".join((_DOMAIN, kind, name)), hashlib.sha256).hexdigest()
