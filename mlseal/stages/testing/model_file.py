"""Who vouches for a model's bytes, and could loading them do more than an ordinary model does?"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse
from mlseal.evidence.identity import Identity
from mlseal.stages import provenance as verified
from mlseal.stages.base import DIGESTS, Context, Finding, ModelPath, OutputFile, require, stage
from mlseal.stages.testing import allowlist, formats, mlmodel, opinions, sarif
from mlseal.stages.testing.auditing import sha256_of
from mlseal.stages.testing.mlmodel import Part
from mlseal.stages.testing.opcodes import Unsafe
from mlseal.stages.testing.opinions import Opinion
from mlseal.stages.testing.sarif import Place, Result, Run

NOT_PROVEN = (
    "that the model predicts what it should: weights can be poisoned without any code",
    "that the libraries that read it are free of faults: a file can be crafted to crash or corrupt them",
    "that memory and time suffice to load it",
    "that the program that loads it does not treat harmless content as code",
)


@dataclass(frozen=True)
class _Looked:
    part: Part
    reason: str | None


@stage(
    "testing.model_file",
    predicate="test-result",
    extra="scan",
    reusable=None,  # withdrawals of the provenance must count
    releases=DIGESTS,
    cost="seconds: each opcode is read once, without executing it",
    not_proven=NOT_PROVEN,
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
    """
    require("picklescan", opinions.EXTRA)
    if flavour and flavour not in allowlist.FLAVOURS:
        raise Misuse("there is no such flavour", got=flavour, expected="one of " + ", ".join(allowlist.FLAVOURS))
    wanted = opinions.asked(second_opinions)
    signature = _signature(context, producer_issuer, producer_san, provenance)
    described = mlmodel.describe(context, flavour)
    looked = [_Looked(part, _look(context, part)) for part in described.parts]
    flaws = [one for one in looked if one.reason] + [_Looked(described.parts[0], text) for text in described.flaws]
    said = [opinions.ask(tool, _executable(looked)) for tool in wanted]
    _write(report, looked, flaws, context)
    context.log(f"allow-list: {f'FAILED, {flaws[0].reason}' if flaws else 'passed'}")
    return _finding(report, described.flavour, signature, looked, flaws, said)


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


def _look(context: Context, part: Part) -> str | None:
    try:
        formats.check(part.path, part.name, part.flavour, context.workspace / "expanded")
    except Unsafe as error:
        context.log(f"  {part.name}: {error}")
        return str(error)
    return None


def _executable(looked: Sequence[_Looked]) -> list[Path]:
    """The files that a reader could run: the others' verdict on text says nothing."""
    found = []
    for one in looked:
        with one.part.path.open("rb") as stream:
            head = stream.read(2)
        if head[:1] in {b"\x80", b"\x93", b"\x1f", b"\x78", b"\xfd"} or head == b"PK" or one.reason:
            found.append(one.part.path)
    return found


def _write(report: Path, looked: Sequence[_Looked], flaws: Sequence[_Looked], context: Context) -> None:
    results = [
        Result("not-allowed", "error", str(one.reason), Place(one.part.sha256, 1, _named(context, one.part)))
        for one in flaws
    ]
    run = Run("mlseal allow-list", allowlist.VERSION, results, {"not-allowed": f"none of {len(looked)} files"})
    sarif.write([run], report)


def _named(context: Context, part: Part) -> str:
    return context.naming.of("path", part.name)


def _finding(
    report: Path,
    flavour: str,
    signature: Mapping[str, Any] | None,
    looked: Sequence[_Looked],
    flaws: Sequence[_Looked],
    said: Sequence[Opinion],
) -> Finding:
    listed: dict[str, Any] = {
        "list": f"{flavour}/{allowlist.VERSION}",
        "files": len(looked),
        "flawed": len(flaws),
        **({"reason": str(flaws[0].reason)[:300]} if flaws else {}),
    }
    warned = [one.tool for one in said if not one.clean]
    passed = [
        *(["signature"] if signature else []),
        *([] if flaws else ["allow-list"]),
        *(one.tool for one in said if one.clean),
    ]
    return Finding(
        subjects=("model",),
        fields={
            "result": "FAILED" if flaws else "WARNED" if warned else "PASSED",
            "configuration": [
                {"name": "report", "digest": {"sha256": sha256_of(report)}, "mediaType": sarif.MEDIA_TYPE},
                *([dict(signature)] if signature else []),
                {"name": "allow-list", "annotations": listed},
                *(_opinion(one, allowed=not flaws) for one in said),
            ],
            "passedTests": passed,
            "warnedTests": warned,
            "failedTests": ["allow-list"] if flaws else [],
        },
        libraries={one.tool: importlib.metadata.version(one.tool) for one in said},
    )


def _opinion(one: Opinion, *, allowed: bool) -> dict[str, Any]:
    facts: dict[str, str | int | bool] = {
        "version": one.version,
        "files": one.files,
        "flagged": one.flagged,
        "notRead": one.unread,
        "disagrees": allowed and one.flagged > 0,
        **({"verdict": one.worst} if one.worst else {}),
    }
    return {"name": one.tool, "annotations": facts}
