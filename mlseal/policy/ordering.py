"""Stricter or looser: one relation for each kind of value that a policy holds.

A relation says what the second of two values is beside the first. ``changed`` is a difference of which nothing here can
say which way it goes; whoever needs *not looser* must treat it as looser. ``noted`` is one that decides nothing, such
as the words of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from mlseal.evidence.identity import Identity
from mlseal.evidence.keyholder import KeyHolder
from mlseal.policy.model import Matcher
from mlseal.policy.names import covers
from mlseal.policy.schema import Applies, Signer, patterns

Relation = Literal["same", "stricter", "looser", "changed", "noted"]
Order = Callable[[Any, Any], Relation]

LEVELS = {
    "identity": ("local", "key", "verified-token"),
    "log": ("unwitnessed", "pinned", "witnessed"),
    "time": ("local", "independent"),
    "strength": (None, "inferred", "declared", "measured"),
}
"""Scales, the strictest last."""


def exact(before: object, after: object) -> Relation:
    """Nothing but the same is known to be no looser."""
    return "same" if before == after else "changed"


def words(before: object, after: object) -> Relation:
    """Texts for people; they decide nothing."""
    return "same" if before == after else "noted"


def scale(name: str) -> Order:
    """By place on one of `LEVELS`."""
    steps = LEVELS[name]
    return lambda before, after: _by(steps.index(after) - steps.index(before))


def at_most(before: timedelta | None, after: timedelta | None) -> Relation:
    """An age that may not be exceeded: the younger the stricter, and none is the loosest."""
    if before is None or after is None:
        return "same" if before is after else "stricter" if before is None else "looser"
    return _by((before - after).total_seconds())


def at_least(before: int | None, after: int | None) -> Relation:
    """A count of people; absent stands for one."""
    return _by((after or 1) - (before or 1))


def sooner(before: datetime | None, after: datetime | None) -> Relation:
    """When a demand begins, or an indulgence ends: the sooner the stricter; absent is strictest (always, never)."""
    if before is None or after is None:
        return "same" if before is after else "looser" if before is None else "stricter"
    return _by((before - after).total_seconds())


def pinned(before: str | None, after: str | None) -> Relation:
    """One exact thing instead of whatever there is: naming one is stricter, another one cannot be ordered."""
    if before == after:
        return "same"
    return "stricter" if before is None else "looser" if after is None else "changed"


def demanded(before: bool, after: bool) -> Relation:
    """A switch that demands something when on."""
    return _by(int(after) - int(before))


def permitted(before: bool, after: bool) -> Relation:
    """A switch that permits something when on."""
    return _by(int(before) - int(after))


def fewer(before: Sequence[Signer] | None, after: Sequence[Signer] | None) -> Relation:
    """Who may do something that lets pass: a subset is stricter; absent stands for nobody."""
    return _both(_within(after or (), before or ()), _within(before or (), after or ()))


def more(before: Iterable[str] | None, after: Iterable[str] | None) -> Relation:
    """What is demanded by name: a superset is stricter."""
    old, new = set(before or ()), set(after or ())
    return _both(old <= new, new <= old)


def same_people(before: Sequence[Signer] | None, after: Sequence[Signer] | None) -> Relation:
    """Lists that forbid in one place and permit in another, so that neither more nor fewer is stricter."""
    return "same" if fewer(before, after) == "same" else "changed"


def within(inner: Applies, outer: Applies, *, stated: bool) -> bool:
    """Whether `outer` means every action that `inner` means.

    `stated`: for exemptions, which an action only falls under if it states every fact that they name.
    """
    mine, theirs = patterns(inner), patterns(outer)
    return all(
        covers(pattern, mine[key]) if key in mine else not stated and pattern == "*" for key, pattern in theirs.items()
    )


def _within(these: Sequence[Signer], those: Sequence[Signer]) -> bool:
    """Whether everybody among `these` is among `those`.

    A person is within a domain or role that holds the person; a key within the same key of at least its time.
    """
    known = [signer.matcher for signer in those]
    return all(any(_holds(other, signer.matcher) for other in known) for signer in these)


def _holds(outer: Matcher, inner: Matcher) -> bool:
    if isinstance(outer, KeyHolder) and isinstance(inner, KeyHolder):
        return outer.fingerprint == inner.fingerprint and _spans(outer, inner)
    return outer == inner or (isinstance(inner, Identity) and outer.matches(inner))


def _spans(outer: KeyHolder, inner: KeyHolder) -> bool:
    begins = outer.since is None or (inner.since is not None and outer.since <= inner.since)
    return begins and (outer.until is None or (inner.until is not None and inner.until <= outer.until))


def _by(difference: float) -> Relation:
    return "same" if difference == 0 else "stricter" if difference > 0 else "looser"


def _both(not_looser: bool, not_stricter: bool) -> Relation:
    if not_looser:
        return "same" if not_stricter else "stricter"
    return "looser" if not_stricter else "changed"
