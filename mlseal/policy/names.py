"""Names of models, aliases and workspaces, compared so that look-alikes are equal or refused.

``Champion`` and ``champion`` are one name (NFKC, casefolded). A name with any character outside printable ASCII is
refused: a Cyrillic letter must not make an alias that nobody governs. How versions are written is for the adapter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Action:
    """What is about to happen: a tool, an action of it, and facts such as alias, model and workspace."""

    tool: str
    action: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def items(self) -> dict[str, str]:
        """Tool, action and facts in one mapping, as given; a fact cannot replace the tool or the action."""
        return {**self.facts, "tool": self.tool, "action": self.action}

    def __str__(self) -> str:
        facts = " ".join(f"{key}={value}" for key, value in sorted(self.facts.items()))
        return f"{self.tool}/{self.action}" + (f" {facts}" if facts else "")


def canonical(name: str, *, what: str = "name") -> str:
    """The form in which names are compared. Raises `ValueError` unless printable ASCII without outer spaces."""
    form = unicodedata.normalize("NFKC", name).casefold()
    if not name.isascii() or not name.isprintable() or name != name.strip() or not name:
        raise ValueError(f"{what} {name[:60]!r} is not printable ASCII without outer spaces")
    return form


def canonical_facts(action: Action) -> dict[str, str]:
    """All facts of `action` in canonical form. Raises `ValueError` naming the first that has none."""
    return {canonical(key): canonical(value, what=key) for key, value in action.items.items()}


def matches(patterns: Mapping[str, str], facts: Mapping[str, str], *, absent: bool) -> bool:
    """Whether every pattern covers its fact. ``*`` stands for any text, slashes too; the whole name must match.

    A fact that the action does not state counts as `absent`: covered for policies (the stricter reading), not covered
    for exemptions.
    """
    return all(covers(pattern, facts[key]) if key in facts else absent for key, pattern in patterns.items())


def covers(pattern: str, name: str) -> bool:
    """Whether `pattern` covers the whole of `name`.

    Of two patterns, whether the first covers all that the second does: a ``*`` of the second is a character that no
    name holds, so only a ``*`` of the first covers it. Never true by mistake; false for some that do overlap wholly.
    """
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
