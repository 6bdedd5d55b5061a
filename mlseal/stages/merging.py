"""Parts of a stage's work, each signed, become one finding about the whole, or none.

Steps, performed under these numbers, for the parts that the caller names:

1. each verifies in full: signature, log, schema, signed by the identity that merges, not revoked by it or a monitor,
   and nothing that either of them signed is withheld; none was signed more than `OLDEST` ago, by verified time, since
   the whole will be as fresh as its merging; each is put into the store, where a gate looks for it;
2. each is of this stage, version, provider, configuration, seed and input digests, as the inputs at hand are now;
3. each states the part of the divided input that belongs to its shard, recomputed here;
4. all have the same count, no two the same index, and none is missing;
5. what each made is at hand, with the digest that it states, and nothing besides (`mlseal.stages.gathered`);
6. the stage merges what they found; the evidence names the parts (``harness.partials``), and began with the oldest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, NoEvidence, RuleBroken, StaleEvidence
from mlseal.evidence import naming, predicates, statement
from mlseal.evidence.bundle import Bundle
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.digest import Measured
from mlseal.evidence.identity import Identity, IdentityMatcher
from mlseal.evidence.naming import Naming
from mlseal.evidence.predicates import partial_result
from mlseal.evidence.predicates.base import Harness, Preflight, Strength
from mlseal.evidence.statement import Statement
from mlseal.evidence.trust import LocalRole
from mlseal.stages.base import Context, Finding, Stage
from mlseal.stages.gathered import gathered
from mlseal.stages.registry import Registered
from mlseal.stages.shard import Shard, missing

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.revocation import Revocations

OLDEST = timedelta(hours=24)
"""How long before the merging a part may have been signed."""
_PARTIAL = "anything about the whole input: this is one part of it"
_WEAKEST: tuple[Strength, ...] = ("inferred", "declared", "measured")


def divided(stage: Stage, measured: Mapping[str, Measured]) -> Measured:
    """The input that is divided. Raises `Misuse` for a stage that does not merge, and for an input that is absent."""
    if stage.merge is None:
        raise Misuse(f"stage {stage.name} does not run in shards", remedy="run it without --shard and --merge")
    if stage.merge.divides not in measured:
        raise Misuse(f"stage {stage.name} divides its input {stage.merge.divides}, and none is given")
    return measured[stage.merge.divides]


def part(
    registered: Registered,
    finding: Finding,
    outputs: Mapping[str, Measured],
    context: Context,
    cleared: Preflight | None,
    shard: Shard,
) -> Statement:
    """The statement of one part, about the divided input, with the digests of the `outputs` that it made."""
    whole = divided(registered.stage, context.measured)
    assert registered.stage.merge is not None
    seed = {} if finding.seed is None else {"seed": finding.seed}
    fields = {
        "partialType": registered.stage.predicate_type,
        "shard": {
            "index": shard.index,
            "count": shard.count,
            "input": registered.stage.merge.divides,
            "inputDigest": whole.sha256,
            "partDigest": shard.part(whole),
        },
        "fields": {**finding.fields, "subjects": list(finding.subjects)},
        **({"outputs": {name: one.sha256 for name, one in outputs.items()}} if outputs else {}),
        "harness": context.harness(finding.libraries).to_json(),
        "strength": "declared" if registered.foreign else finding.strength,
        "runId": context.run_id,
        "startedOn": context.started_on,
        "finishedOn": context.now(),
        "notProven": [_PARTIAL, *dict.fromkeys((*registered.stage.not_proven, *finding.not_proven))],
        **seed,
        **({} if cleared is None else {"preflight": cleared.to_json()}),
    }
    predicates.check(partial_result.URI, fields)
    return statement.make(whole.subjects, partial_result.URI, fields, names=context.naming)


def merged(
    registered: Registered,
    bundles: Sequence[Bundle],
    made: Sequence[Path],
    context: Context,
    calling: Callable[[Context], Finding],
) -> tuple[Finding, Context]:
    """The finding about the whole, from the `bundles` of its parts and what they `made`; the context names the parts.

    `calling` calls the stage, for one that merges by itself. Raises `RuleBroken`, `NoEvidence` or what verifying
    raises; nothing is signed then.
    """
    if context.asking.by is None:
        raise Misuse("parts are merged by who signed them, and nobody signs here")
    by = context.asking.by()
    stage, whole = registered.stage, divided(registered.stage, context.measured)
    archive = context.archive()
    archive.refresh()
    revokers: list[IdentityMatcher] = [by, LocalRole(archive.trust, "monitor")]
    revocations = archive.revocations(revokers)
    read = [(_verified(archive, bundle, whole, by, revocations, context), bundle.evidence_id) for bundle in bundles]
    for bundle in bundles:
        _require_named_alike(bundle, context.naming)
        archive.store.put(bundle)  # made elsewhere, perhaps; a gate wants to see all that the log holds
    archive.refresh()
    archive.require_shown(revokers)
    read.sort(key=lambda one: one[0].shard.index)
    parts = [part for part, _ in read]
    for one in parts:
        _require_same(one, stage, context.harness_base, whole)
    _require_whole(parts, stage.name)
    context.log(f"{len(parts)} parts verified")
    if len({tuple(one.fields["subjects"]) for one in parts}) != 1 or len({one.seed for one in parts}) != 1:
        raise RuleBroken("the parts are not about the same things", expected="the same subjects and seed in each")
    libraries = {name: version for one in parts for name, version in one.harness.libraries.items()}
    if any(one.harness.libraries.items() - libraries.items() for one in parts):
        raise RuleBroken("the parts were measured by different versions of a library", expected="the same everywhere")
    said = [text for one in parts for text in one.not_proven if text != _PARTIAL]
    found = _together(stage, parts, made, context, calling)
    finding = replace(
        found,
        not_proven=tuple(dict.fromkeys((*said, *found.not_proven))),
        libraries={**found.libraries, **libraries},
        seed=parts[0].seed,
        strength=min((found.strength, *(one.strength for one in parts)), key=_WEAKEST.index),
    )
    named = context.harness_base.model_copy(update={"partials": [evidence_id for _, evidence_id in read]})
    began = min(one.started_on for one in parts)  # of one format, so in the order of time
    return finding, replace(context, harness_base=named, started_on=began)


def _together(
    stage: Stage,
    parts: Sequence[partial_result.Predicate],
    made: Sequence[Path],
    context: Context,
    calling: Callable[[Context], Finding],
) -> Finding:
    """What the stage makes of its parts."""
    outputs = [parameter.name for parameter in stage.parameters if parameter.role == "output"]
    found = gathered(parts, outputs, made, context)
    assert stage.merge is not None
    if stage.merge.function is None:
        return calling(replace(context, parts=found))
    return Finding(tuple(parts[0].fields["subjects"]), stage.merge.function([one.fields for one in found]))


def _verified(
    archive: Archive, bundle: Bundle, whole: Measured, by: Identity, revocations: Revocations, context: Context
) -> partial_result.Predicate:
    verified = archive.verifier.verify(
        bundle,
        predicate_type=partial_result.URI,
        identities=[by],
        subjects=[subject.sha256 for subject in whole.subjects],
        revocations=revocations,
    )
    part = verified.predicate
    assert isinstance(part, partial_result.Predicate)
    if context.clock() - verified.time > OLDEST:
        shard = f"{part.shard.index}/{part.shard.count}"
        raise StaleEvidence(
            f"part {shard} was made too long ago to be merged",
            got=f"signed {rfc3339(verified.time)}",
            expected=f"within {OLDEST.total_seconds() / 3600:g} h of the merging",
            remedy=f"run that part again, with --shard {shard}",
        )
    return part


def _require_named_alike(bundle: Bundle, names: Naming) -> None:
    """Raise `RuleBroken` unless the part hides names of files just where the whole will: its report holds them too."""
    committed = naming.is_commitment(bundle.statement.subjects[0].name)
    if committed != names.committed:
        words = {True: "committed", False: "plain"}
        raise RuleBroken(
            "a part writes names of files otherwise",
            got=words[committed],
            expected=words[names.committed],
            remedy=f"set {naming.VARIABLE} alike for the parts and the merging",
        )


def _require_same(part: partial_result.Predicate, stage: Stage, here: Harness, whole: Measured) -> None:
    name = f"part {part.shard.index}/{part.shard.count}"
    wanted = {key: value for key, value in here.to_json().items() if key not in {"libraries", "resumed"}}
    stated = part.harness.to_json()
    for key, value in wanted.items():
        if stated.get(key) != value:
            raise RuleBroken(
                f"{name} is of another {key}",
                got=stated.get(key),
                expected=value,
                remedy="run that part again with these arguments",
            )
    shard = Shard(part.shard.index, part.shard.count)
    assert stage.merge is not None
    same: dict[str, tuple[Any, Any]] = {
        "type of evidence": (part.partial_type, stage.predicate_type),
        "input": (part.shard.input, stage.merge.divides),
        "input digest": (part.shard.input_digest, whole.sha256),
        "division": (part.shard.part_digest, shard.part(whole)),
    }
    for what, (got, expected) in same.items():
        if got != expected:
            raise RuleBroken(f"{name} has another {what}", got=got, expected=expected)


def _require_whole(parts: Sequence[partial_result.Predicate], stage: str) -> None:
    if not parts:
        raise NoEvidence("there is no part to merge", remedy=f"mlseal run {stage} --shard 1/2, then --shard 2/2")
    counts = {part.shard.count for part in parts}
    if len(counts) != 1:
        raise RuleBroken("the parts are of different divisions", got=", ".join(map(str, sorted(counts))))
    indices = [part.shard.index for part in parts]
    if twice := sorted({index for index in indices if indices.count(index) > 1}):
        raise RuleBroken("a part is there twice", got=", ".join(map(str, twice)), expected="each part once")
    count = counts.pop()
    absent = missing([Shard(index, count) for index in indices], count)
    if absent:
        raise NoEvidence(
            "parts are missing",
            got=f"{len(parts)} of {count}",
            expected="also " + ", ".join(f"{index}/{count}" for index in absent[:10]),
            remedy=f"mlseal run {stage} --shard {absent[0]}/{count}",
        )
