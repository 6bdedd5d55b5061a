"""What the parts of a stage made, beside their evidence: found by digest, copied, proven, before anybody reads it.

The evidence of a part states the digest of each of its outputs. Where a file is called and which part it is said to
belong to decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlseal.errors import NoEvidence, RuleBroken
from mlseal.evidence.digest import Measured, measure
from mlseal.evidence.predicates import partial_result
from mlseal.stages.context import Context, copy, require_same
from mlseal.stages.shard import Found, Shard


def gathered(
    parts: Sequence[partial_result.Predicate], outputs: Sequence[str], made: Sequence[Path], context: Context
) -> tuple[Found, ...]:
    """Every part with private copies of its `outputs`, which are among the files and directories `made`.

    Raises `NoEvidence` for an output that is not at hand; `RuleBroken` for a part that states others than `outputs`,
    and for something at hand that no part made, which is how a changed file shows.
    """
    at_hand = {one.sha256: one for one in map(measure, made)}
    stated = {sha256 for part in parts for sha256 in part.outputs.values()}
    foreign = sorted(set(at_hand) - stated)
    found = []
    for part in parts:
        shard = Shard(part.shard.index, part.shard.count)
        if set(part.outputs) != set(outputs):
            raise RuleBroken(
                f"part {shard} made other outputs",
                got=", ".join(sorted(part.outputs)) or "none",
                expected=", ".join(outputs) or "none",
            )
        taken = {name: _taken(shard, name, sha256, at_hand, foreign) for name, sha256 in part.outputs.items()}
        fields = {key: value for key, value in part.fields.items() if key != "subjects"}
        found.append(Found(shard, fields, _copies(shard, taken, context)))
    if foreign:
        raise RuleBroken("no part made this", got=at_hand[foreign[0]].name, expected="what the parts made, and no more")
    return tuple(found)


def _taken(shard: Shard, name: str, sha256: str, at_hand: Mapping[str, Measured], foreign: Sequence[str]) -> Measured:
    if sha256 in at_hand:
        return at_hand[sha256]
    what = f"output {name} of part {shard}"
    if foreign:
        raise RuleBroken(f"{what} is not among what is given", got=foreign[0], expected=sha256)
    raise NoEvidence(f"{what} is not at hand", expected=sha256, remedy="--made PATH, for what each part made")


def _copies(shard: Shard, taken: Mapping[str, Measured], context: Context) -> dict[str, Path]:
    copies = {}
    for name, measured in taken.items():
        target = context.workspace / f"part-{shard.index}" / name
        copy(measured, target)
        require_same(name, measured.sha256, measure(target).sha256)
        copies[name] = target
    return copies
