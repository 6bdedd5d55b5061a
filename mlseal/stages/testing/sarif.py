"""SARIF 2.1.0: what scanners found, written for other tools and read from them.

Written are rule, level, place and numbers; never a line of the scanned text and never a scanner's own words about it,
because both may quote a secret. Read are only the facts that decide: which tool, did it run, how many findings of
which level.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from mlseal.errors import Error, RuleBroken, Unreadable
from mlseal.evidence import canonical

Level = Literal["none", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("none", "note", "warning", "error")
"""Ascending."""
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MEDIA_TYPE = "application/sarif+json"
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Place:
    """Where: digest of the file, line from 1, and its path if that may be told."""

    sha256: str
    line: int
    path: str | None = None


@dataclass(frozen=True)
class Result:
    """One finding."""

    rule: str
    level: Level
    message: str
    place: Place


@dataclass(frozen=True)
class Run:
    """One tool's run over everything that it was given."""

    tool: str
    version: str
    results: Sequence[Result] = ()
    rules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Foreign:
    """What another tool's report says of one run."""

    tool: str
    version: str
    levels: Mapping[str, int]
    suppressed: int
    failure: str | None = None

    def count(self, least: Level) -> int:
        """Findings of level `least` and above."""
        return sum(n for level, n in self.levels.items() if LEVELS.index(_level(level)) >= LEVELS.index(least))


def write(runs: Iterable[Run], path: Path) -> None:
    """Write `runs` as one SARIF log: sorted, so that equal findings give equal bytes."""
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(run) for run in runs]}
    try:
        path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise Unreadable(
            f"cannot write {path.name}", got=error.strerror, remedy="check space and permissions"
        ) from error


def _run(run: Run) -> dict[str, Any]:
    rules = sorted({result.rule for result in run.results} | set(run.rules))
    found = sorted(run.results, key=lambda r: (r.place.path or "", r.place.sha256, r.place.line, r.rule))
    files = sorted({(result.place.sha256, result.place.path) for result in found}, key=lambda f: (f[0], f[1] or ""))
    return {
        "tool": {
            "driver": {
                "name": run.tool,
                "version": run.version,
                "rules": [{"id": rule, "shortDescription": {"text": run.rules.get(rule, rule)}} for rule in rules],
            }
        },
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "unicodeCodePoints",
        "artifacts": [
            {"hashes": {"sha-256": sha256}, **({"location": {"uri": quote(path)}} if path else {})}
            for sha256, path in files
        ],
        "results": [
            {
                "ruleId": result.rule,
                "ruleIndex": rules.index(result.rule),
                "level": result.level,
                "message": {"text": result.message},
                "locations": [_location(result.place, files.index((result.place.sha256, result.place.path)))],
            }
            for result in found
        ],
    }


def written(path: Path) -> list[Run]:
    """The runs of a log that `write` made: written again, they give the same bytes. Raises `Unreadable` for others."""
    try:
        document = canonical.parse(path.read_bytes(), what="SARIF report", limit=_MAX_BYTES)
        return [_own(run) for run in document["runs"]]
    except (OSError, Error, KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise Unreadable(
            "the report is none of a part", got=repr(error)[:160], expected="as mlseal wrote it"
        ) from error


def _own(run: Mapping[str, Any]) -> Run:
    driver = run["tool"]["driver"]
    rules = {rule["id"]: rule["shortDescription"]["text"] for rule in driver["rules"]}
    files = [one["hashes"]["sha-256"] for one in run["artifacts"]]
    results = []
    for one in run["results"]:
        where = one["locations"][0]["physicalLocation"]
        uri = where["artifactLocation"].get("uri")
        sha256, line = files[where["artifactLocation"]["index"]], where["region"]["startLine"]
        place = Place(sha256, line, None if uri is None else unquote(uri))
        results.append(Result(one["ruleId"], _level(one["level"]), one["message"]["text"], place))
    return Run(driver["name"], driver["version"], results, rules)


def joined(runs: Sequence[Run]) -> Run:
    """The runs of one tool over parts of what was given, as one over all of it. At least one; all of one version.

    Raises `RuleBroken` for several tools or versions.
    """
    if len({(run.tool, run.version) for run in runs}) != 1:
        got = ", ".join(sorted({f"{run.tool} {run.version}" for run in runs}))
        raise RuleBroken("the parts were scanned by different tools", got=got, expected="one version of one tool")
    rules = {rule: text for run in runs for rule, text in run.rules.items()}
    return Run(runs[0].tool, runs[0].version, [result for run in runs for result in run.results], rules)


def _location(place: Place, index: int) -> dict[str, Any]:
    where = {"index": index, **({"uri": quote(place.path)} if place.path else {})}
    return {"physicalLocation": {"artifactLocation": where, "region": {"startLine": max(1, place.line)}}}


def read(path: Path) -> list[Foreign]:
    """The runs of a SARIF 2.1.0 log made elsewhere.

    A run that did not end well, or that states no results at all (which in SARIF means that nothing was looked for),
    comes with its `failure`. What the tool or its user suppressed is counted like anything else: it is no waiver.

    Raises `Unreadable` for what is no SARIF 2.1.0 log: not JSON, another version, no run, a run without a tool.
    """
    try:
        document = canonical.parse(path.read_bytes(), what="SARIF report", limit=_MAX_BYTES)
    except (OSError, Error, RecursionError) as error:
        raise Unreadable("the report is no SARIF log", got=str(error)[:160], expected="SARIF 2.1.0, JSON") from error
    if not isinstance(document, dict) or document.get("version") != "2.1.0":
        got = document.get("version", "no version") if isinstance(document, dict) else type(document).__name__
        raise Unreadable("the report is no SARIF log", got=got, expected="SARIF 2.1.0")
    runs = document.get("runs")
    if not isinstance(runs, list) or not runs:
        raise Unreadable("the SARIF report holds no run", expected="at least one run: an empty report tests nothing")
    try:
        return [_foreign(run) for run in runs]
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise Unreadable("the SARIF report breaks its format", got=repr(error)[:160], expected="SARIF 2.1.0") from error


def _foreign(run: Mapping[str, Any]) -> Foreign:
    driver = run["tool"]["driver"]
    name, version = _text(driver["name"]), _text(driver.get("semanticVersion") or driver.get("version") or "unknown")
    rules = {rule["id"]: rule for rule in driver.get("rules") or []}
    failure = None
    for invocation in run.get("invocations") or []:
        if invocation["executionSuccessful"] is not True:
            failure = "the tool says that its run did not end well"
    results = run.get("results")
    if results is None:
        failure = failure or "the report states no results, not even none"
    levels: Counter[str] = Counter()
    suppressed = 0
    for result in results or []:
        if result.get("baselineState") == "absent" or result.get("kind", "fail") not in {"fail", "open", "review"}:
            continue
        _text(result["message"].get("text") or result["message"]["id"])
        rule = rules.get(result.get("ruleId")) or _at(driver.get("rules") or [], result.get("ruleIndex", -1))
        default = ((rule or {}).get("defaultConfiguration") or {}).get("level", "warning")
        levels[_level(result.get("level", default))] += 1
        suppressed += bool(result.get("suppressions"))
    return Foreign(name, version, dict(sorted(levels.items())), suppressed, failure)


def _at(rules: Sequence[Mapping[str, Any]], index: int) -> Mapping[str, Any] | None:
    return rules[index] if 0 <= index < len(rules) else None


def _level(text: str) -> Level:
    for level in LEVELS:
        if text == level:
            return level
    raise ValueError(text)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("not a text")
    return value[:100]
