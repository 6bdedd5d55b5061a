"""Who vouches for a model's bytes, and could loading them do more than an ordinary model does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse
from mlseal.evidence.identity import Identity
from mlseal.stages import provenance as verified
from mlseal.stages.base import DIGESTS, Context, Finding, Merge, ModelPath, OutputFile, require, stage
from mlseal.stages.testing import allowlist, formats, looked, mlmodel, opinions, sarif
from mlseal.stages.testing.auditing import sha256_of
from mlseal.stages.testing.looked import Looked
from mlseal.stages.testing.mlmodel import Described, Part
from mlseal.stages.testing.opcodes import Unsafe
from mlseal.stages.testing.opinions import Opinion
from mlseal.stages.testing.sarif import Place

NOT_PROVEN = (
    "that the model predicts what it should: weights can be poisoned without any code",
    "that the libraries that read it are free of faults: a file can be crafted to crash or corrupt them",
    "that memory and time suffice to load it",
    "that the program that loads it does not treat harmless content as code",
)


@stage(
    "testing.model_file",
    predicate="test-result",
    extra="scan",
    reusable=None,  # withdrawals of the provenance must count
    releases=DIGESTS,
    cost="seconds: each opcode is read once, without executing it",
    not_proven=NOT_PROVEN,
    merge=Merge("model"),
)
def model_file(
    model: ModelPath,  # noqa: ARG001 - read through the context, as a proven copy
    report: OutputFile,
    flavour: str = "",
    producer_issuer: str = "",
    producer_san: str = "",
    provenance: str = "slsa-provenance",
    second_opinions: str = "picklescan,fickling",
    *,
    context: Context,
) -> Finding:
    """Check a model's files without loading them: whose they are, and whether they name only what such models need.

    Args:
        model: the model, a file or a directory such as MLflow writes; a private copy is read, nothing of it runs.
        report: where the findings go, as SARIF 2.1.0; the evidence holds its digest.
        flavour: plain, sklearn or torch; from MLmodel if there is one, else by the format of each file.
        producer_issuer: OIDC issuer of the identity that must have signed the model.
        producer_san: subject alternative name of that identity; without both nobody is asked for.
        provenance: what that identity must have signed about these bytes, such as slsa-provenance or oms-signature.
        second_opinions: other scanners to ask, separated by commas, of picklescan, fickling, modelaudit; may be empty.

    Guarantees:
        The test allow-list passes only if every byte of every file is accounted for and every global of every pickle,
        nested ones included, is on the list of the flavour with arguments that its rule allows. Nothing is imported,
        unpickled or executed. The test signature passes only if the named identity's newest evidence verifies now.

    Edge cases:
        A file that cannot be parsed, or whose format is unknown, fails the test, with its reason. A named identity
        that did not sign these bytes raises `NoEvidence` or `UntrustedSigner`: there is no evidence then. A second
        opinion never fails the run; a scanner that flags a file, or cannot read one, stands among the warned tests.
        In shards the files are divided; the description of the model is judged, and its signature asked for, once,
        when they are merged. modelaudit judges files together and does not run in shards.
    """
    require("picklescan", opinions.EXTRA)
    if flavour and flavour not in allowlist.FLAVOURS:
        raise Misuse("there is no such flavour", got=flavour, expected="one of " + ", ".join(allowlist.FLAVOURS))
    wanted = opinions.asked(second_opinions)
    if context.shard is not None:
        return _share(context, _look(context, mlmodel.describe(context, flavour), wanted), report)
    signature = _signature(context, producer_issuer, producer_san, provenance)
    described = mlmodel.describe(context, flavour)
    if context.parts is None:
        found = _look(context, described, wanted)
    else:
        found = looked.together([looked.from_part(part, context.measured["model"]) for part in context.parts])
    where = _place(context, described.parts[0])
    found = found.also([looked.not_allowed(flaw, where) for flaw in described.flaws])
    found.write(report)
    context.log(f"allow-list: {f'FAILED, {found.reason}' if found.results else 'passed'}")
    return _finding(report, described.flavour, signature, found)


def _signature(context: Context, issuer: str, san: str, provenance: str) -> dict[str, Any] | None:
    """The entry for verified evidence about these bytes; None when nobody was asked for."""
    if not issuer and not san:
        return None
    found = verified.newest(context, context.measured["model"], provenance, Identity(issuer, san))
    return {
        "name": "signature",
        "annotations": {
            "evidenceId": found.evidence_id,
            "predicateType": found.predicate_type,
            "issuer": found.identity.issuer,
            "san": found.identity.san,
        },
    }


def _look(context: Context, described: Described, wanted: Sequence[str]) -> Looked:
    """What the allow-list and the scanners `wanted` say of the files that this run looks at."""
    if context.shard is not None and "modelaudit" in wanted:
        raise Misuse("modelaudit judges files together", remedy="run it without --shard, or name no modelaudit")
    files, results, first, executable = 0, [], None, []
    for place, part in enumerate(described.parts):
        if context.shard is not None and not context.shard.owns(place):
            continue
        files += 1
        reason = _reason(context, part)
        if reason is not None:
            results.append(looked.not_allowed(reason, _place(context, part)))
            first = first or (place, reason)
        if reason is not None or _is_executable(part.path):
            executable.append(part.path)
    return Looked(files, results, first, [opinions.ask(tool, executable) for tool in wanted])


def _reason(context: Context, part: Part) -> str | None:
    try:
        formats.check(part.path, part.name, part.flavour, context.workspace / "expanded")
    except Unsafe as error:
        context.log(f"  {part.name}: {error}")
        return str(error)
    return None


def _is_executable(path: Path) -> bool:
    """Whether a reader could run the file: the others' verdict on text says nothing."""
    with path.open("rb") as stream:
        head = stream.read(2)
    return head[:1] in {b"\x80", b"\x93", b"\x1f", b"\x78", b"\xfd"} or head == b"PK"


def _place(context: Context, part: Part) -> Place:
    return Place(part.sha256, 1, context.naming.of("path", part.name))


def _share(context: Context, found: Looked, report: Path) -> Finding:
    """What one shard hands to the merging."""
    found.write(report)
    context.log(f"shard {context.shard}: {len(found.results)} of {found.files} files not allowed")
    return Finding(("model",), found.to_fields(), libraries=_libraries(found.said))


def _finding(
    report: Path,
    flavour: str,
    signature: Mapping[str, Any] | None,
    found: Looked,
) -> Finding:
    flawed = bool(found.results)
    listed: dict[str, Any] = {
        "list": f"{flavour}/{allowlist.VERSION}",
        "files": found.files,
        "flawed": len(found.results),
        **({"reason": found.reason[:300]} if flawed else {}),
    }
    warned = [one.tool for one in found.said if not one.clean]
    passed = [
        *(["signature"] if signature else []),
        *([] if flawed else ["allow-list"]),
        *(one.tool for one in found.said if one.clean),
    ]
    return Finding(
        subjects=("model",),
        fields={
            "result": "FAILED" if flawed else "WARNED" if warned else "PASSED",
            "configuration": [
                {"name": "report", "digest": {"sha256": sha256_of(report)}, "mediaType": sarif.MEDIA_TYPE},
                *([dict(signature)] if signature else []),
                {"name": "allow-list", "annotations": listed},
                *(_opinion(one, allowed=not flawed) for one in found.said),
            ],
            "passedTests": passed,
            "warnedTests": warned,
            "failedTests": ["allow-list"] if flawed else [],
        },
        libraries=_libraries(found.said),
    )


def _libraries(said: Sequence[Opinion]) -> dict[str, str]:
    return {one.tool: one.version for one in said}


def _opinion(one: Opinion, *, allowed: bool) -> dict[str, Any]:
    facts: dict[str, str | int | bool] = {
        "version": one.version,
        "files": one.files,
        "flagged": one.flagged,
        "notRead": one.unread,
        "disagrees": allowed and one.flagged > 0,
        **({"verdict": one.verdict} if one.verdict else {}),
    }
    return {"name": one.tool, "annotations": facts}
