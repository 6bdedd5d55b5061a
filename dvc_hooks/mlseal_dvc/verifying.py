"""Verify the objects in the cache, before anyone uses them, and put what is refused out of reach.

1. For every selected output: verified evidence (`checking`), then every byte of it that is in the cache.
2. A differing object goes to quarantine, with the directory object when that is what differs.
3. An output without valid evidence is refused; what this very fetch brought of it goes to quarantine. Objects that
   were there before stay: they may be the only copy of the user's own, not yet pushed data.
4. DVC's index of directories is dropped, for it may remember what was refused.
5. One error for all of them, a refusal before a missing check.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mlseal.errors import DigestMismatch, Error, NoEvidence, NotInitialised, Refusal
from mlseal_dvc import checking, halt, objects, progress, upstream
from mlseal_dvc.checking import Attested, Comparison
from mlseal_dvc.desk import Desk
from mlseal_dvc.pointers import Pointer


@dataclass
class Outcome:
    """What became of one output. ``error`` is None when it is verified as far as its bytes are here."""

    pointer: Pointer
    attested: Attested | None
    comparison: Comparison
    error: Error | None
    quarantined: list[str] = field(default_factory=list)


def examine(
    desk: Desk, work: Iterable[Pointer], *, since: int | None = None, read: Callable[[Pointer], Any] | None = None
) -> list[Outcome]:
    """Steps 1 to 3 for each pointer.

    Args:
        since: when the fetch began, in nanoseconds; objects changed later were brought by it.
        read: makes a reader of absent objects (`checking.ReadObject`) for a pointer; None leaves absent ones absent.
    """
    with progress.shown("Verifying"):
        return [_examine(desk, pointer, since, read) for pointer in work]


def require(desk: Desk, outcomes: list[Outcome], when: str, *, quiet: bool = False) -> None:
    """Steps 4 and 5: raise if any outcome is an error."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        if not quiet and outcomes:
            halt.say(f"verified {sum(outcome.attested is not None for outcome in outcomes)} outputs {when}")
        return
    desk.repo.drop_data_index()
    for outcome in failed:
        for kept in outcome.quarantined:
            halt.say(f"quarantined an object of {outcome.pointer.path}: {kept}")
    ordered = sorted(failed, key=lambda o: not isinstance(o.error, Refusal))
    first = ordered[0].error
    assert first is not None
    more = f" (and {len(failed) - 1} further outputs)" if len(failed) > 1 else ""
    raise (
        type(first)(f"{when}: {first.message}{more}", got=first.got, expected=first.expected, remedy=first.remedy)
        if _plain(first)
        else first
    )


def _plain(error: Error) -> bool:
    """Whether the error class takes just the four parts of `Error`."""
    return type(error).__init__ is Error.__init__


def _examine(desk: Desk, pointer: Pointer, since: int | None, read: Callable[[Pointer], Any] | None) -> Outcome:
    outcome = Outcome(pointer, None, Comparison(), None)
    try:
        if not _something_here(pointer) and read is None:
            return outcome  # nothing of it is here, so nothing of it can be used
        outcome.attested = attested(desk, pointer)  # (1)
    except Error as error:
        if isinstance(error, NoEvidence | NotInitialised) and _excused(desk, pointer):
            return outcome
        outcome.error = error
        if since is not None:
            outcome.quarantined = _quarantine(desk, _brought_by_fetch(pointer, since))  # (3)
        return outcome
    try:
        outcome.comparison = checking.compare(outcome.attested, pointer, read(pointer) if read else None)
    except Error as error:
        outcome.error = error
        return outcome
    _settle(desk, outcome)
    return outcome


def attested(desk: Desk, pointer: Pointer) -> Attested:
    """Verified evidence about an output; of an import, its source's. Raises as `Checker.attested`."""
    return upstream.attested(desk, pointer) if pointer.repo_import else desk.checker(pointer, "pull").attested(pointer)


def _excused(desk: Desk, pointer: Pointer) -> bool:
    """Whether a policy takes this import without evidence, said aloud each time."""
    who = upstream.exempted(desk, *upstream.source_of(pointer)) if pointer.repo_import else None
    if who is not None:
        halt.say(f"{pointer.path} was imported without evidence, by decision of {who}")
    return who is not None


def contradiction(desk: Desk, pointer: Pointer) -> Outcome | None:
    """The outcome if evidence that this user keeps is contradicted by the cache; None if it agrees or there is none."""
    try:
        attested = upstream.kept(desk, pointer) if pointer.repo_import else desk.local_checker().attested(pointer)
        outcome = Outcome(pointer, attested, checking.compare(attested, pointer), None)
    except Error:
        return None  # nothing known about it here
    _settle(desk, outcome)
    return outcome if outcome.error is not None else None


def _settle(desk: Desk, outcome: Outcome) -> None:
    """Step 2."""
    bad = outcome.comparison.bad
    if bad:
        more = f" (and {len(bad) - 1} further objects)" if len(bad) > 1 else ""
        outcome.error = DigestMismatch(
            f"{bad[0][2]}{more}",
            remedy="tell the owner of the remote; nothing of it was placed in the workspace",
        )
        outcome.quarantined = _quarantine(desk, [(oid, path) for oid, path, _ in bad])


def _something_here(pointer: Pointer) -> bool:
    """Whether DVC could place anything of it: of a directory listed in its ``.dvc`` file, any file will do."""
    if pointer.listed is None:
        return os.path.lexists(pointer.cache_path(pointer.oid))
    try:
        oids = objects.read_tree(pointer.listed, pointer.path).values()
    except Refusal:  # nobody can have signed such a list
        return True
    return any(os.path.lexists(pointer.cache_path(oid)) for oid in oids)


def _brought_by_fetch(pointer: Pointer, since: int) -> list[tuple[str, str]]:
    oids = [pointer.oid]
    raw = pointer.directory_object() if pointer.isdir else None
    if raw is not None:
        with contextlib.suppress(Refusal):  # unreadable, and on its way out itself
            oids += objects.read_tree(raw, pointer.path).values()
    found = []
    for oid in oids:
        path = pointer.cache_path(oid)
        try:
            if os.stat(path).st_ctime_ns >= since:
                found.append((oid, path))
        except FileNotFoundError:
            continue
    return found


def _quarantine(desk: Desk, bad: list[tuple[str, str]]) -> list[str]:
    moved = [objects.quarantine(path, desk.quarantine, oid) for oid, path in dict(bad).items()]
    return [str(path) for path in moved if path is not None]


def own_and_unpushed(outcome: Outcome) -> bool:
    """Whether nothing can happen to the workspace: no evidence, but it already holds exactly this version."""
    return isinstance(outcome.error, NoEvidence) and outcome.pointer.unchanged()
