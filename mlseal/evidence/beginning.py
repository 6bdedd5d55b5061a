"""What a person typed of a long digest: its unique beginning stands for it, everywhere in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from mlseal.errors import Misuse, NoEvidence

SHORTEST = 8
_WHOLE = 64


def full(
    typed: str,
    known: Callable[[str], Iterable[str]],
    *,
    what: str = "evidence",
    where: str = "here",
    remedy: str = "run 'mlseal log show' to find it",
) -> str:
    """The one digest that begins with `typed`; a trailing ``…`` is no matter. `known` lists those of a beginning.

    Raises `Misuse` for anything but 8 to 64 hex digits and for a beginning of several, `NoEvidence` where none is
    meant. `what` they are, `where` they were looked for and what lists them are for the message.
    """
    beginning = typed.strip().rstrip("….").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},{_WHOLE}}}", beginning):
        raise Misuse(
            f"{typed[:80]!r} names no {what}",
            got=f"{len(beginning)} characters",
            expected=f"its {_WHOLE} hex digits, or the first {SHORTEST} or more",
        )
    found = sorted({one for one in known(beginning) if one.startswith(beginning)})
    if len(found) > 1:
        raise Misuse(
            f"{beginning} is the beginning of {len(found)} {where}",
            got=", ".join(f"{one[:16]}…" for one in found[:3]),
            expected=f"the beginning of one {what}",
            remedy="give more digits",
        )
    if not found:
        raise NoEvidence(f"no {what} {where} begins with {beginning[:16]}", remedy=remedy)
    return found[0]
