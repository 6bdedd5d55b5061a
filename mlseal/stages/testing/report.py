"""A report that some other tool made elsewhere, taken over as what it is: somebody's word."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlseal.errors import Error, Misuse, Unreadable
from mlseal.evidence import canonical
from mlseal.stages.base import DIGESTS, Context, DatasetPath, FilePath, Finding, stage
from mlseal.stages.testing import sarif

_NOT_PROVEN = (
    "that the tool was run, on these bytes, in the version and with the result that the report states",
    "that the tool finds what it looks for",
    "anything that the report does not list",
)
_MAX_BYTES = 64 * 1024 * 1024
_LISTED = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")
_GRAVE = frozenset({"critical", "high"})
_KNOWN = ("critical", "high", "medium", "low", "info", "none")


@dataclass(frozen=True)
class Said:
    """What a report says: who made it, and which tests passed, warned or failed, by name."""

    tool: str
    version: str
    passed: Sequence[str] = ()
    warned: Sequence[str] = ()
    failed: Sequence[str] = ()


@stage(
    "testing.report",
    predicate="test-result",
    releases=DIGESTS,
    cost="seconds: one pass over the bytes of the report and of what it is about",
    not_proven=_NOT_PROVEN,
)
def report(
    report: FilePath,  # noqa: ARG001 - read through the context, as a proven copy
    about: DatasetPath,  # noqa: ARG001 - the claim is about its digest
    format: str,  # noqa: A002 - the name that the command line shows
    *,
    context: Context,
) -> Finding:
    """Take over a report of another tool about a file or directory, as declared.

    Args:
        report: the report, as the tool wrote it.
        about: what the report is about; its digest is computed here.
        format: sarif (2.1.0), cyclonedx (JSON, with vulnerabilities) or json (tool, passed, warned, failed).

    Guarantees:
        The evidence holds the digest of the report, the tool and version that it names, and the names of tests, rules
        or vulnerabilities; no message and no path. Its strength is declared: a requirement that wants what was
        measured is not met by it.

    Edge cases:
        A malformed report, one in another format, one without a tool or without a single test raises `Misuse`. A SARIF
        run that did not end well, or states no results, fails. A vulnerability without a severity counts as grave.
        More than a hundred names are counted, not listed; what is no plain name is listed as ``other``.
    """
    readers: Mapping[str, tuple[str, Callable[[Path], list[Said]]]] = {
        "cyclonedx": ("application/vnd.cyclonedx+json", _cyclonedx),
        "json": ("application/json", _plain),
        "sarif": (sarif.MEDIA_TYPE, _sarif),
    }
    if format not in readers:
        raise Misuse("there is no such format of reports", got=format[:40], expected=", ".join(readers))
    media_type, read = readers[format]
    try:
        said = read(context.private_copy("report"))
    except (Unreadable, KeyError, TypeError, ValueError, AttributeError) as error:
        got = error.message if isinstance(error, Error) else "a member that is absent or of another type"
        raise Misuse(
            f"the report is no {format}", got=got, expected="what its tool wrote", remedy="check --format"
        ) from error
    taken = {"name": "report", "digest": {"sha256": context.measured["report"].sha256}, "mediaType": media_type}
    tools = [{"name": f"tool:{one.tool}", "annotations": {"version": one.version}} for one in said]
    failed = _names([name for one in said for name in one.failed])
    warned = _names([name for one in said for name in one.warned])
    return Finding(
        subjects=("about",),
        fields={
            "result": "FAILED" if failed else "WARNED" if warned else "PASSED",
            "configuration": [taken, *tools],
            "passedTests": _names([name for one in said for name in one.passed]),
            "warnedTests": warned,
            "failedTests": failed,
        },
        strength="declared",
    )


def _names(names: Sequence[str]) -> list[str]:
    plain = sorted({name if _NAME.fullmatch(name) else "other" for name in names})
    return plain if len(plain) <= _LISTED else [*plain[:_LISTED], f"{len(plain) - _LISTED} more"]


def _tool(name: Any, version: Any) -> tuple[str, str]:
    """Who made the report, in plain characters. Raises `TypeError` for what is no name."""
    if not isinstance(name, str) or not isinstance(version, str | None):
        raise TypeError("tool")
    plain = [re.sub(r"[^A-Za-z0-9._+@/-]", "-", text)[:60] for text in (name, version or "unknown")]
    if not plain[0].strip("-"):
        raise ValueError("tool")
    return plain[0], plain[1]


def _document(path: Path, what: str) -> dict[str, Any]:
    try:
        document = canonical.parse(path.read_bytes(), what=what, limit=_MAX_BYTES)
    except (OSError, Error, RecursionError) as error:
        raise Unreadable(f"it is no {what}") from error
    if not isinstance(document, dict):
        raise TypeError(what)
    return document


def _sarif(path: Path) -> list[Said]:
    found = []
    for run in sarif.read(path):
        levels = run.levels
        found.append(
            Said(
                *_tool(run.tool, run.version),
                passed=[] if run.failure or levels.get("error") or levels.get("warning") else ["no-finding"],
                warned=["findings:warning"] if levels.get("warning") else [],
                failed=(["did-not-run"] if run.failure else []) + (["findings:error"] if levels.get("error") else []),
            )
        )
    return found


def _cyclonedx(path: Path) -> list[Said]:
    document = _document(path, "CycloneDX document")
    if document.get("bomFormat") != "CycloneDX" or not isinstance(document["specVersion"], str):
        raise ValueError("bomFormat")
    listed = document.get("vulnerabilities")
    if listed is None:
        raise Misuse(
            "the report lists components and no vulnerabilities, so it tests nothing",
            expected="a member vulnerabilities, empty if there are none",
            remedy="have the scanner write its findings, or sign the list of components with 'mlseal sign'",
        )
    tools = document["metadata"]["tools"]
    tool = (tools["components"] if isinstance(tools, dict) else tools)[0]
    graves: list[str] = []
    lesser: list[str] = []
    for one in listed:
        severities = {rating.get("severity", "unknown") for rating in one.get("ratings") or [{}]}
        grave = severities & _GRAVE or severities - set(_KNOWN)
        (graves if grave else lesser).append(str(one["id"]))
    passed = [] if listed else ["no-vulnerability"]
    return [Said(*_tool(tool["name"], tool.get("version")), passed=passed, warned=lesser, failed=graves)]


def _plain(path: Path) -> list[Said]:
    document = _document(path, "report")
    known = {"tool", "passed", "warned", "failed"}
    if set(document) - known or set(document["tool"]) - {"name", "version"}:
        raise ValueError("members")
    tests = {key: document.get(key, []) for key in ("passed", "warned", "failed")}
    for names in tests.values():
        if not isinstance(names, list) or any(not isinstance(name, str) for name in names):
            raise TypeError("tests")
    if not any(tests.values()):
        raise Misuse("the report names no test, so it tests nothing", expected="at least one passed, warned or failed")
    return [Said(*_tool(document["tool"]["name"], document["tool"].get("version")), **tests)]
