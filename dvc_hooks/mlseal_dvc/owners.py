"""What the owners of data allow, asked before a push signs or uploads anything (`mlseal.policy.preflight`).

A push hands data on, so an owner's data policy governs it as it governs a run: the output's own, and those of
everything that DVC tracks and that the output was made from, step by step, with SHA-256 from verified evidence or from
the cache. A file inside of a tracked directory is taken for the whole directory.

The push states its purpose (``mlseal dvc push --purpose``, ``$MLSEAL_PURPOSE``). It puts out a ``dataset`` where the
governed data themselves are pushed; what was made from them is what its ``type`` in DVC's files says, and both a
dataset and a model where that says nothing. ``minimumPrivacy`` bounds what a run tells of the data: it is judged there.

Nothing is asked where neither the store nor a policy in force knows of any data policy. What an owner signed and nobody
shows stops the push, as it stops a run.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, Unchecked
from mlseal.evidence import planning
from mlseal.evidence.digest import Measured, Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import data_policy
from mlseal.evidence.tiles import service_tiles
from mlseal_dvc import pointers, upstream
from mlseal_dvc.pointers import Pointer

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.statement import Statement
    from mlseal.evidence.store import BundleStore
    from mlseal_dvc.checking import Checker
    from mlseal_dvc.desk import Desk
    from mlseal_dvc.objects import Content

PURPOSE = "MLSEAL_PURPOSE"
STAGE = "dvc.push"
_HOW = "mlseal dvc push --purpose PURPOSE, or MLSEAL_PURPOSE=PURPOSE dvc push"
_KINDS = ("dataset", "model")
NOBODY = Identity("https://nobody.invalid", "nobody")

Subjects = Callable[[Pointer], "tuple[Subject, ...] | None"]


@dataclass(frozen=True)
class Owners:
    """Asks the owners of what is pushed.

    Attributes:
        store: where data policies are looked for.
        subjects: gives an output's digests, from verified evidence or from the cache; None if neither has any.
        by: who pushes; asked only where a data policy has to be judged.
    """

    desk: Desk
    store: BundleStore
    subjects: Subjects
    by: Callable[[], Identity]

    def ask(self, work: Sequence[Pointer]) -> list[Statement]:
        """The verdicts, to be signed by whoever pushes; none where nothing is governed.

        Raises `RuleBroken` or `Unchecked` with the reasons, `Withheld` for an owner's evidence that nobody shows.
        """
        archive = self._archive() if work else None
        if archive is None:
            return []
        from mlseal.policy import preflight

        policies = {pointer.path: self.desk.governance.applicable("push", pointer.path) for pointer in work}
        everybody = list({policy.sha256: policy for found in policies.values() for policy in found}.values())
        preflight.require_shown(_plan({}, {}), everybody, archive)
        if not archive.of_type([data_policy.URI]) and not any(policy.part.data_policy for policy in everybody):
            return []
        tracked = _Tracked(self.desk, work)
        verdicts = []
        for pointer in work:
            judge = preflight.Preflight(policies[pointer.path], self.desk.session.clock)
            plan = self._plan(pointer, tracked, archive)
            asked = any(policy.part.data_policy for policy in policies[pointer.path])
            if plan is not None and (asked or _governed(archive, plan.inputs.values())):
                verdict = judge(replace(plan, by=self.by()), archive).verdict
                verdicts += [verdict] if verdict is not None else []
        return verdicts

    def _plan(self, pointer: Pointer, tracked: _Tracked, archive: Archive) -> planning.Plan | None:
        """The push of `pointer` as a plan; None if nothing of it is here to be pushed. ``by`` is filled in later."""
        own = self._measured(pointer)
        if own is None:
            return None
        inputs = {
            f"{earlier.path} ({earlier.oid})": self._required(pointer, earlier)
            for earlier in tracked.ancestors(pointer)
        }
        itself = _governed(archive, [own])
        if itself or not inputs:
            inputs[pointer.path] = own
        kinds = {pointer.kind} if pointer.kind in _KINDS else set(_KINDS)
        outputs = {f"{pointer.path} ({kind})": kind for kind in kinds | ({"dataset"} if itself else set())}
        return _plan(inputs, outputs, self.desk.session.purpose or os.environ.get(PURPOSE))

    def _measured(self, pointer: Pointer) -> Measured | None:
        subjects = self.subjects(pointer)
        return Measured(Path(pointer.path), subjects, None) if subjects else None

    def _required(self, pointer: Pointer, earlier: Pointer) -> Measured:
        found = self._measured(earlier)
        if found is None:
            raise Unchecked(
                f"it cannot be told whether {pointer.path} was made from data with a data policy",
                got=f"no evidence of {earlier.path} at {earlier.oid[:12]}…, and not in the cache",
                remedy=f"dvc fetch {earlier.path}, or have it pushed first",
            )
        return found

    def _archive(self) -> Archive | None:
        """The evidence known here; None where no log can be read because the trust root names no service.

        Who has the public root only signs nothing, and uploads what somebody signed, who was asked.
        """
        from mlseal.evidence.archive import Archive

        if not service_tiles(self.desk.trust):
            return None
        archive = Archive.open(self.desk.trust, self.store, clock=self.desk.session.clock)
        archive.refresh()
        return archive


class _Tracked:
    """Everything that DVC tracks in the revisions at hand, to find what an output was made from."""

    def __init__(self, desk: Desk, work: Sequence[Pointer]) -> None:
        revs = {pointer.rev for pointer in work}
        named = sorted(rev for rev in revs if rev is not None)
        call: dict[str, Any] = {"workspace": None in revs, **({"revs": named} if named else {})}
        self._all = {p.key: p for p in [*pointers.selected(desk.repo, call), *work]}

    def ancestors(self, pointer: Pointer) -> Iterator[Pointer]:
        """What `pointer` was made from, and that in turn, each once."""
        seen, waiting = {pointer.key}, [pointer]
        while waiting:
            for found in self._parents(waiting.pop()):
                if found.key not in seen:
                    seen.add(found.key)
                    waiting.append(found)
                    yield found

    def _parents(self, pointer: Pointer) -> Iterator[Pointer]:
        if pointer.imported:
            return
        for dep in pointer.dependencies:
            same = [p for p in self._all.values() if p.path == dep.path]
            exact = [p for p in same if p.oid == dep.oid]
            if exact or not same:
                yield from exact or (p for p in self._all.values() if _overlap(p.path, dep.path))
            elif dep.oid and dep.hash_name:
                # Tracked in another version: whatever made that one is not known here, its evidence may be.
                yield replace(same[0], oid=dep.oid, hash_name=dep.hash_name, dependencies=())


def _plan(inputs: Mapping[str, Measured], outputs: Mapping[str, str], purpose: str | None = None) -> planning.Plan:
    """A push as a plan; who pushes is filled in where it matters."""
    return planning.Plan(
        stage=STAGE,
        purpose=planning.purpose(purpose),
        by=NOBODY,
        inputs=inputs,
        outputs=dict(sorted(outputs.items())),
        releases="digests",
        run_id=secrets.token_hex(8),
        how=_HOW,
    )


def _overlap(one: str, other: str) -> bool:
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _governed(archive: Archive, measured: Iterable[Measured]) -> bool:
    digests = {subject.sha256 for each in measured for subject in each.subjects}
    return bool(digests and archive.candidates(sorted(digests), [data_policy.URI]))


def subjects_of(
    desk: Desk, pointer: Pointer, checker: Callable[[Pointer], Checker], content: Callable[[Pointer], Content | None]
) -> tuple[Subject, ...] | None:
    """Digests of an output that is not part of this push: from its evidence, else from the cache; None for neither."""
    try:
        found = upstream.attested(desk, pointer) if pointer.repo_import else checker(pointer).attested(pointer)
    except Error:
        made = content(pointer)
        return made.subjects if made is not None else None
    return found.verified.subjects
