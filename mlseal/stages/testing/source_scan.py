"""Bandit over code and detect-secrets over every file, so that nothing is passed over in silence.

Both libraries leave things out by default: bandit hidden directories, files that do not parse and lines with
``# nosec``; detect-secrets what looks binary, lock files and lines with an allow-list comment. Whoever writes the code
would decide what is looked at. Here every file is given to them by name, their switches inside the code are ignored,
and what could not be scanned is counted.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlseal.stages.base import require
from mlseal.stages.testing import sarif
from mlseal.stages.testing.sarif import Level, Place, Result, Run

EXTRA = "scan"
BANDIT_LEVELS: Mapping[str, Level] = {"LOW": "note", "MEDIUM": "warning", "HIGH": "error", "UNDEFINED": "warning"}
_PYTHON = (".py", ".pyw", ".pyi")
_MAX_BYTES = 16 * 1024 * 1024
_FILTERS = (
    "heuristic.is_sequential_string",
    "heuristic.is_potential_uuid",
    "heuristic.is_likely_id_string",
    "heuristic.is_templated_secret",
    "heuristic.is_prefixed_with_dollar_sign",
    "heuristic.is_indirect_reference",
    "heuristic.is_not_alphanumeric_string",
)
"""detect-secrets' filters on what a secret looks like. None on file names, none that its author can switch."""


@dataclass(frozen=True)
class File:
    """A file to scan: where its private copy lies, what it is called in the code, its digest."""

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class Scan:
    """One tool's findings, how many files it read, and why how many others could not be read."""

    run: Run
    files: int
    missed: Mapping[str, int] = field(default_factory=dict)


def together(scans: Sequence[Scan]) -> Scan:
    """Scans of parts by one tool as one of all: what is found in a file does not depend on the others.

    Bandit looks for ``__init__.py`` beside a file, to know what the module is called; so a part is scanned in the
    whole tree. Raises `RuleBroken` for scans by several tools or versions.
    """
    missed: Counter[str] = Counter()
    for scan in scans:
        missed.update(scan.missed)
    return Scan(sarif.joined([scan.run for scan in scans]), sum(scan.files for scan in scans), dict(missed))


def bandit(files: Sequence[File], named: Callable[[str], str]) -> Scan:
    """Bandit's findings in the Python among `files`; `named` writes a path as evidence may hold it.

    A file that does not parse, and a notebook (which bandit does not read), are missed. Raises `MissingExtra`.
    """
    require("bandit", EXTRA)
    from bandit.core import config, manager

    by_path = {str(file.path): file for file in files if _is_python(file)}
    missed = {file.name: "bandit reads no notebooks" for file in files if file.name.endswith(".ipynb")}
    logging.getLogger("bandit").setLevel(logging.CRITICAL)  # its own words may quote the code
    scanner = manager.BanditManager(config.BanditConfig(), "file", quiet=True, ignore_nosec=True)
    scanner.files_list = sorted(by_path)
    scanner.run_tests()
    missed |= {by_path[path].name: reason for path, reason in scanner.get_skipped()}
    results, rules = [], {}
    for issue in scanner.get_issue_list():
        file = by_path[issue.fname]
        rules[issue.test_id] = issue.test
        message = f"bandit {issue.test_id} {issue.test}: severity {issue.severity}, confidence {issue.confidence}"
        place = Place(file.sha256, issue.lineno, named(file.name))
        results.append(Result(issue.test_id, BANDIT_LEVELS.get(issue.severity, "warning"), message, place))
    run = Run("bandit", importlib.metadata.version("bandit"), results, rules)
    return Scan(run, len(by_path) - len(scanner.get_skipped()), Counter(missed.values()))


def _is_python(file: File) -> bool:
    if file.name.endswith(_PYTHON):
        return True
    with file.path.open("rb") as stream:
        first = stream.readline(200)
    return first.startswith(b"#!") and b"python" in first


def secrets(files: Sequence[File], workspace: Path) -> Scan:
    """What detect-secrets takes for a secret in `files`: kind, digest of the file, line. Never the secret or its hash.

    Text in UTF-8 is scanned as it is, everything else byte by byte, so that a picture or an archive cannot hide a key
    that stands in it in the clear. Files over 16 MiB are missed. Nothing is sent anywhere to see whether a secret is
    still valid. Raises `MissingExtra`.
    """
    require("detect_secrets", EXTRA)
    from detect_secrets.core import scan
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.settings import transient_settings

    kinds: Any = get_mapping_from_secret_type_to_class()
    plugins = [{"name": kind.__name__} for kind in kinds.values()]
    used = {
        # An address on the Internet is no secret.
        "plugins_used": [plugin for plugin in plugins if plugin["name"] != "IPPublicDetector"],
        "filters_used": [{"path": f"detect_secrets.filters.{name}"} for name in _FILTERS],
    }
    workspace.mkdir(mode=0o700, exist_ok=True)
    missed, results = 0, []
    with transient_settings(used):
        for number, file in enumerate(files):
            if file.path.stat().st_size > _MAX_BYTES:
                missed += 1
                continue
            copy = _readable(file, workspace / f"{number}{_suffix(file)}")
            found = {(one.type, one.line_number) for one in scan.scan_file(str(copy))}
            results += [_secret(kind, Place(file.sha256, line)) for kind, line in sorted(found)]
            copy.unlink()
    run = Run("detect-secrets", importlib.metadata.version("detect-secrets"), results)
    return Scan(run, len(files) - missed, {"it is larger than 16 MiB": missed} if missed else {})


def _secret(kind: str, place: Place) -> Result:
    return Result(kind, "error", f"detect-secrets: {kind}", place)


def _readable(file: File, copy: Path) -> Path:
    """A copy that detect-secrets reads to its end: it drops a file at the first byte that is not UTF-8."""
    raw = file.path.read_bytes().replace(b"\r\n", b"\n")
    try:
        text, other = raw.decode("utf-8"), " "
    except UnicodeDecodeError:
        text, other = raw.decode("latin-1"), "\n"
    copy.write_text("".join(c if c.isprintable() or c in "\n\t" else other for c in text), encoding="utf-8")
    return copy


def _suffix(file: File) -> str:
    """The suffix, by which detect-secrets chooses its rules, unless it would skip the file for it."""
    from detect_secrets.filters import heuristic

    suffix = Path(file.name).suffix.lower()
    return ".txt" if heuristic.is_non_text_file(f"x{suffix}") or not suffix[1:].isalnum() else suffix


def counts(results: Sequence[Result], key: Callable[[Result], str]) -> Iterator[tuple[str, int]]:
    """How many results have each `key`, sorted by key."""
    found: dict[str, int] = {}
    for result in results:
        found[key(result)] = found.get(key(result), 0) + 1
    yield from sorted(found.items())
