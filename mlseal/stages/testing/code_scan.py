"""A program before it is trusted: dangerous calls, secrets, vulnerable dependencies, each under its own name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse
from mlseal.stages.base import DIGESTS, CodePath, Context, DatasetPath, FilePath, Finding, Merge, OutputFile, stage
from mlseal.stages.testing import auditing, sarif, source_scan
from mlseal.stages.testing.sarif import LEVELS, Level, Place, Result, Run
from mlseal.stages.testing.source_scan import File, Scan

PARTS = ("code", "secrets", "dependencies")
NOT_PROVEN = (
    "that the code is harmless: bandit knows patterns, not intentions, and Python only",
    "that there is no secret: detect-secrets knows shapes, and an encoded or split key has none",
    "that a report of another tool is about this code",
)
_SEVERITY: Mapping[str, Level] = {"low": "note", "medium": "warning", "high": "error"}


@dataclass(frozen=True)
class Part:
    """One named test: whether it passed, what it counted, who looked, and why it could not look at something."""

    name: str
    passed: bool
    run: Run | None
    facts: Mapping[str, str | int | bool] = field(default_factory=dict)

    def configuration(self) -> dict[str, Any]:
        """Its entry in the evidence."""
        return {"name": self.name, "annotations": {"passed": self.passed, **self.facts}}


@stage(
    "testing.code",
    predicate="test-result",
    extra="scan",
    releases=DIGESTS,
    cost="seconds: each line passes some thirty patterns; minutes for a hundred thousand lines",
    not_proven=NOT_PROVEN,
    merge=Merge("code"),
)
def code_scan(
    code: CodePath,  # noqa: ARG001 - read through the context, as a proven copy
    report: OutputFile,
    parts: str = "code,secrets",
    severity: str = "medium",
    requirements: FilePath | None = None,
    environment: CodePath | None = None,
    advisories: DatasetPath | None = None,
    service: str = "",
    foreign: FilePath | None = None,
    *,
    context: Context,
) -> Finding:
    """Scan a program for dangerous calls (bandit), secrets (detect-secrets) and vulnerable dependencies.

    Args:
        code: the program, a file or a directory as a whole; a private copy is scanned, nothing of it runs.
        report: where the findings go, as SARIF 2.1.0; the evidence holds its digest.
        parts: which tests, separated by commas, of code, secrets, dependencies.
        severity: low, medium or high; from there on a finding fails the test named code.
        requirements: for dependencies, as testing.dependencies takes it.
        environment: for dependencies, as testing.dependencies takes it.
        advisories: for dependencies, as testing.dependencies takes it.
        service: for dependencies, as testing.dependencies takes it.
        foreign: a SARIF report that another tool made about this code; it is imported as declared, nothing is scanned.

    Guarantees:
        Each part stands by its name among the passed or failed tests; what was not asked stands in neither. A file or
        dependency that could not be looked at fails its part, and the first reason is told. Evidence and report hold
        kinds, counts, digests and lines: no secret, no hash of one, no line of the code.

    Edge cases:
        ``# nosec`` and allow-list comments are ignored: who writes the code does not excuse it; a signed waiver does.
        A file that does not parse fails the part code. Code without Python fails it too, since nothing was looked at.
        In shards the files of code are divided; dependencies are audited once, when the shards are merged. A foreign
        report is imported as a whole.
    """
    least = _SEVERITY.get(severity)
    if least is None:
        raise Misuse("there is no such severity", got=severity, expected="low, medium or high")
    if foreign is not None:
        if context.shard is not None or context.parts is not None:
            raise Misuse("a report is imported as a whole", remedy="run it without --shard and --merge")
        done = _imported(context, least)
    else:
        wanted = _wanted(parts, dependencies=requirements is not None or environment is not None)
        scans = _merged(context, wanted) if context.parts is not None else _scanned(context, wanted)
        if context.shard is not None:
            return _share(context, scans, report)
        done = [_code(scans["code"], least)] if "code" in wanted else []
        done += [_secrets(scans["secrets"])] if "secrets" in wanted else []
        if "dependencies" in wanted:
            subject = auditing.subject(requirements=requirements, environment=environment)
            audit = auditing.run(context, subject, service, offline=advisories is not None)
            done.append(_dependencies(audit, context.measured[subject].sha256))
    for part in done:
        _tell(context, part)
    runs = [part.run for part in done if part.run is not None]
    if foreign is None:
        sarif.write(runs, report)
    else:
        report.write_bytes(context.private_copy("foreign").read_bytes())
    return _finding(context, done, report, declared=foreign is not None)


def _wanted(parts: str, *, dependencies: bool) -> list[str]:
    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    if not wanted or set(wanted) - set(PARTS) or len(set(wanted)) != len(wanted):
        raise Misuse("there is no such part", got=parts, expected="some of " + ", ".join(PARTS))
    if dependencies != ("dependencies" in wanted):
        raise Misuse(
            "dependencies are audited when the part is named and something to audit is given",
            expected="dependencies in --parts, and --requirements or --environment",
        )
    return wanted


def _scanned(context: Context, wanted: Sequence[str]) -> dict[str, Scan]:
    """What the scanners say of the files that this run looks at."""
    measured, copy = context.measured["code"], context.private_copy("code")
    if measured.manifest is None and context.shard is None:
        files = [File(copy, measured.name, measured.sha256)]
    else:
        files = [File(copy / entry.path, entry.path, entry.sha256) for entry in context.share("code")]
    scans = {}
    if "code" in wanted:
        scans["code"] = source_scan.bandit(files, lambda name: context.naming.of("path", name))
    if "secrets" in wanted:
        scans["secrets"] = source_scan.secrets(files, context.workspace / "secrets")
    return scans


def _share(context: Context, scans: Mapping[str, Scan], report: Path) -> Finding:
    """What one shard hands to the merging: findings in its report, and what of its files was scanned."""
    if not scans:
        raise Misuse("nothing that was asked runs in shards", expected="code or secrets among --parts")
    sarif.write([scan.run for scan in scans.values()], report)
    files, findings = len(context.share("code")), sum(len(scan.run.results) for scan in scans.values())
    context.log(f"shard {context.shard}: {findings} findings in {files} files")
    counts = {name: {"scanned": scan.files, "missed": dict(scan.missed)} for name, scan in scans.items()}
    return Finding(("code",), {"files": files, "scans": counts})


def _merged(context: Context, wanted: Sequence[str]) -> dict[str, Scan]:
    """What the scans of all shards say together."""
    scans: dict[str, list[Scan]] = {name: [] for name in ("code", "secrets") if name in wanted}
    for part in context.parts or ():
        part.require_all(part.fields["files"], context.measured["code"])
        runs = sarif.written(part.made["report"])
        for (name, found), run in zip(scans.items(), runs, strict=True):
            counted = part.fields["scans"][name]
            found.append(Scan(run, counted["scanned"], counted["missed"]))
    return {name: source_scan.together(found) for name, found in scans.items()}


def _code(scan: Scan, least: Level) -> Part:
    levels = dict(source_scan.counts(scan.run.results, lambda result: result.level))
    failing = sum(n for level, n in levels.items() if LEVELS.index(level) >= LEVELS.index(least))
    facts: dict[str, str | int | bool] = {
        **{name: levels.get(level, 0) for name, level in _SEVERITY.items()},
        **_read(scan),
        **({"reason": "there is no Python in it"} if not scan.files and not scan.missed else {}),
    }
    return Part("code", bool(scan.files) and not failing and not scan.missed, scan.run, facts)


def _secrets(scan: Scan) -> Part:
    kinds = dict(source_scan.counts(scan.run.results, lambda result: result.rule))
    facts: dict[str, str | int | bool] = {"found": len(scan.run.results), **kinds, **_read(scan)}
    return Part("secrets", not scan.run.results and not scan.missed, scan.run, facts)


def _read(scan: Scan) -> dict[str, str | int]:
    return {
        "tool": scan.run.tool,
        "version": scan.run.version,
        "scanned": scan.files,
        "notScanned": sum(scan.missed.values()),
        **({"reason": min(scan.missed)} if scan.missed else {}),
    }


def _dependencies(audit: auditing.Audit, sha256: str) -> Part:
    results = [
        Result(
            finding.advisory.id,
            "error",
            f"{finding.dependency.name} {finding.dependency.version} is affected by {finding.advisory.id}",
            Place(sha256, 1),
        )
        for finding in audit.findings
    ]
    name = audit.scanner.rpartition("/")[2]
    facts: dict[str, str | int | bool] = {
        "tool": name,
        "version": audit.version,
        "vulnerabilities": len(audit.findings),
        "audited": len(audit.audited),
        "notAudited": len(audit.missed),
        "lastUpdate": audit.last_update,
        **({"advisories": f"sha256:{audit.source_sha256}"} if audit.source_sha256 else {}),
        **({"reason": audit.reason} if audit.missed else {}),
    }
    return Part("dependencies", audit.passed, Run(name, audit.version, results), facts)


def _imported(context: Context, least: Level) -> list[Part]:
    """One part a run of the foreign report: ``imported:TOOL``."""
    parts: dict[str, Part] = {}
    for number, run in enumerate(sarif.read(context.private_copy("foreign")), 1):
        name = f"imported:{run.tool}" if f"imported:{run.tool}" not in parts else f"imported:{run.tool}:{number}"
        facts: dict[str, str | int | bool] = {
            "tool": run.tool,
            "version": run.version,
            **{level: run.levels.get(level, 0) for level in LEVELS[1:]},
            "suppressed": run.suppressed,
            **({"reason": run.failure} if run.failure else {}),
        }
        parts[name] = Part(name, run.failure is None and not run.count(least), None, facts)
    return list(parts.values())


def _tell(context: Context, part: Part) -> None:
    """What the person who waits needs to mend it; evidence and report name a file with a secret by digest only."""
    context.log(f"{part.name}: {'passed' if part.passed else 'FAILED'} {part.facts.get('reason', '')}".rstrip())
    manifest = context.measured["code"].manifest
    names = {entry.sha256: entry.path for entry in manifest.files} if manifest else {}
    for result in (part.run.results if part.run else ())[:50]:
        name = result.place.path or names.get(result.place.sha256, context.measured["code"].name)
        context.log(f"  {name}:{result.place.line} {result.message}")


def _finding(context: Context, parts: list[Part], report: Path, *, declared: bool) -> Finding:
    digest = auditing.sha256_of(report)
    written = {"name": "report", "digest": {"sha256": digest}, "mediaType": sarif.MEDIA_TYPE}
    passed = [part.name for part in parts if part.passed]
    failed = [part.name for part in parts if not part.passed]
    return Finding(
        subjects=("code",),
        fields={
            "result": "FAILED" if failed or not passed else "PASSED",
            "configuration": [written, *(part.configuration() for part in parts), *_given(context)],
            "passedTests": passed,
            "failedTests": failed,
        },
        strength="declared" if declared else "measured",
    )


def _given(context: Context) -> list[dict[str, Any]]:
    """The inputs besides the code, by digest."""
    return [
        {"name": f"input:{name}", "digest": {"sha256": measured.sha256}}
        for name, measured in sorted(context.measured.items())
        if name != "code"
    ]
