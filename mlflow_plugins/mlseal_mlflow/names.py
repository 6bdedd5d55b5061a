r"""One spelling per thing: the names that decide are ASCII, compared without case, together with their workspace.

MLflow takes an alias in full-width letters or with a Cyrillic a, and a version ``"\uff11"`` or ``" 1"`` (``int()``
accepts them). Each is another key to a rule that compares text, and the same thing to a reader. A promotion under such
a spelling is refused, not translated: nobody needs it who means well.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from mlseal.errors import Misuse

_NAME = re.compile(
    r"(?!.*  )[A-Za-z0-9_](?:[^\x00-\x1f\x7f-\U0010ffff%?#\\\"'*]*[^\x00-\x20\x7f-\U0010ffff%?#\\\"'*])?"
)
_ALIAS = re.compile(r"[A-Za-z0-9_.-]+")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")

RESERVED_TAG_PREFIX = "mlseal."


@dataclass(frozen=True, order=True)
class ModelKey:
    """What a rule is about: workspace and canonical model name. Two spellings of one name have one key."""

    workspace: str
    name: str


def canonical(name: str) -> str:
    """`name` as rules compare it: NFKC, case-folded."""
    return unicodedata.normalize("NFKC", name).casefold()


def model(workspace: str, name: object) -> ModelKey:
    """The key of a registered model; `Misuse` for a spelling that a reader could take for another."""
    return ModelKey(
        canonical(workspace),
        canonical(_matching(_NAME, name, "model name", "ASCII, single spaces, none of %?#*\\ or quotes")),
    )


def alias(name: object) -> str:
    """The canonical alias; `Misuse` for anything but ASCII letters, digits and ``_.-``."""
    return canonical(_matching(_ALIAS, name, "alias", "ASCII letters, digits and '_.-'"))


def version(number: object) -> str:
    """The version in its one spelling: decimal ASCII digits without leading zero or space."""
    text = str(number) if isinstance(number, int) and not isinstance(number, bool) else number
    return _matching(_VERSION, text, "model version", "ASCII digits without leading zero, such as '1'")


def reserved_tag(key: object) -> bool:
    """Whether a tag lies in mlseal's name space, where anyone with edit rights could fake a decision."""
    return canonical(str(key)).lstrip().startswith(RESERVED_TAG_PREFIX)


def printable(source: str) -> str:
    """A version's source as a fact: one spelling, printable ASCII, cut to what fits a verdict."""
    return ascii(source)[1:-1].strip()[:300] or "-"


def _matching(pattern: re.Pattern[str], value: object, what: str, expected: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Misuse(
            f"this {what} has a spelling that could be mistaken for another", got=ascii(value)[:100], expected=expected
        )
    return value
