"""Each dependency asked about, and each answer accounted for: affected, not affected, or not audited with the reason.

pip-audit passes over what its service does not know and still ends well, so here only a positive answer about exactly
this package and version counts. A service must also show that it can find anything: it is first asked about a version
that is known to be vulnerable (`CONTROL`), since one that answers everything with "nothing known" would clear all.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from packaging.version import Version

from mlseal.errors import Misuse
from mlseal.evidence.clock import rfc3339
from mlseal.stages.base import Context, require
from mlseal.stages.testing import osv, requirements
from mlseal.stages.testing.requirements import Dependency

CONTROL = Dependency("pyyaml", Version("5.3"))
"""CVE-2020-14343 and CVE-2020-1747: code execution on loading; known to every advisory service for years."""
EXTRA = "scan"
OFFLINE, ONLINE = "pkg:pypi/packaging", "pkg:pypi/pip-audit"
"""What compares a version with advisories: our reading of OSV's rules with `packaging`, or pip-audit's service."""
_TIMEOUT = 15


@dataclass(frozen=True)
class Finding:
    """An advisory that affects one of the dependencies."""

    dependency: Dependency
    advisory: osv.Advisory


@dataclass(frozen=True)
class Audit:
    """What was asked and what came back.

    Attributes:
        scanner: URI of what compared versions with advisories, and its `version`.
        source: where the advisories come from, for people; `source_sha256` if they lie here.
        last_update: how fresh the advisories can be at most, RFC 3339.
        audited: dependencies with an answer.
        missed: dependencies without one, each with its reason.
        findings: what affects them.
    """

    scanner: str
    version: str
    source: str
    last_update: str
    audited: tuple[Dependency, ...] = ()
    missed: tuple[Dependency, ...] = ()
    findings: tuple[Finding, ...] = ()
    source_sha256: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every dependency was audited and none is affected."""
        return bool(self.audited) and not self.missed and not self.findings

    @property
    def reason(self) -> str:
        """Why dependencies were not audited, the first reason with its number; empty if all were."""
        if not self.missed:
            return ""
        first = self.missed[0].reason
        return f"{sum(d.reason == first for d in self.missed)} not audited: {first}"


def subject(**inputs: Path | None) -> str:
    """The name of the one input that is given. Raises `Misuse` unless it is exactly one."""
    given = [name for name, path in inputs.items() if path is not None]
    if len(given) != 1:
        raise Misuse("one thing is audited at a time", expected="one of " + ", ".join(f"--{name}" for name in inputs))
    return given[0]


def run(context: Context, subject: str, service: str, *, offline: bool) -> Audit:
    """Audit input `subject` against input ``advisories`` if `offline`, else by `service`."""
    if subject == "environment":
        wanted = requirements.installed(context, subject)
    elif subject == "model":
        wanted = requirements.of_model(context, subject)
    else:
        wanted = requirements.from_file(context.private_copy(subject))
    if not offline:
        return by_service(wanted, service, context.workspace / "pip-audit", context.clock())
    if service:
        raise Misuse("advisories are read or a service is asked, not both", expected="--advisories or --service")
    known = context.measured["advisories"]
    # Of a directory each file is compared with its digest as it is read: thousands of them are not copied.
    path = known.path if known.manifest is not None else context.private_copy("advisories")
    return by_database(wanted, osv.load(path, known.manifest), known.sha256)


def library(audit: Audit) -> dict[str, str]:
    """pip-audit with its version, if it was asked."""
    return {"pip-audit": audit.version} if audit.scanner == ONLINE else {}


def by_database(dependencies: Sequence[Dependency], database: osv.Database, sha256: str) -> Audit:
    """Compare `dependencies` with the entries of `database`, whose digest is `sha256`."""

    def ask(dependency: Dependency) -> list[osv.Advisory]:
        assert dependency.version is not None
        return database.affecting(dependency.name, dependency.version)

    audited, missed, findings = _ask_all(dependencies, ask)
    version = importlib.metadata.version("packaging")
    return Audit(
        OFFLINE, version, f"{database.count} OSV entries", database.last_update, audited, missed, findings, sha256
    )


def by_service(dependencies: Sequence[Dependency], url: str, cache: Path, now: datetime) -> Audit:
    """Ask a service through pip-audit: PyPI's (`url` empty) or one that speaks OSV's query protocol at `url`.

    A live service states no time of its last update, so the time of asking stands for it. Raises `MissingExtra`.
    """
    require("pip_audit", EXTRA)
    from pip_audit._service.interface import ResolvedDependency
    from pip_audit._service.osv import OsvService
    from pip_audit._service.pypi import PyPIService

    if url and not url.startswith(("https://", "http://")):
        raise Misuse("the advisory service is no web address", got=url[:80], expected="https://…")
    service: Any = OsvService(cache, _TIMEOUT, url) if url else PyPIService(cache, _TIMEOUT)

    def ask(dependency: Dependency) -> list[osv.Advisory]:
        with _unheeded() as warnings:
            answered, found = service.query(ResolvedDependency(dependency.name, dependency.version))
        if answered.is_skipped():
            raise osv.Undecidable(f"the service does not know it ({answered.skip_reason[:120]})")
        if warnings:
            raise osv.Undecidable(f"part of the answer could not be used ({warnings[0][:120]})")
        return [
            osv.Advisory(one.id, tuple(sorted(one.aliases)), (), tuple(map(str, one.fix_versions))) for one in found
        ]

    version = importlib.metadata.version("pip-audit")
    said = Audit(ONLINE, version, url or "https://pypi.org/pypi", rfc3339(now))
    _, unanswered, known = _ask_all([CONTROL], ask)
    if not known:
        unknown = f"it does not know the advisories on {CONTROL.name} {CONTROL.version}"
        why = f"the service cannot be relied on: {unanswered[0].reason if unanswered else unknown}"
        missed = tuple(Dependency(one.name, one.version, one.reason or why) for one in dependencies)
        return Audit(said.scanner, said.version, said.source, said.last_update, missed=missed)
    audited, missed, findings = _ask_all(dependencies, ask)
    return Audit(said.scanner, said.version, said.source, said.last_update, audited, missed, findings)


def _ask_all(
    dependencies: Sequence[Dependency], ask: Callable[[Dependency], list[osv.Advisory]]
) -> tuple[tuple[Dependency, ...], tuple[Dependency, ...], tuple[Finding, ...]]:
    audited, missed, findings = [], [], []
    for dependency in dependencies:
        if dependency.version is None:
            missed.append(dependency)
            continue
        try:
            found = ask(dependency)
        except osv.Undecidable as error:
            missed.append(Dependency(dependency.name, dependency.version, str(error)))
        except (requests.RequestException, OSError) as error:
            reason = f"the service did not answer ({type(error).__name__})"
            missed.append(Dependency(dependency.name, dependency.version, reason))
        except Exception as error:  # noqa: BLE001 - pip-audit's and JSON's errors: whatever it is, there is no answer
            reason = f"the service's answer is none ({type(error).__name__})"
            missed.append(Dependency(dependency.name, dependency.version, reason))
        else:
            audited.append(dependency)
            findings += [Finding(dependency, advisory) for advisory in _distinct(found)]
    return tuple(audited), tuple(missed), tuple(findings)


def _distinct(found: Sequence[osv.Advisory]) -> Iterator[osv.Advisory]:
    """One entry for each vulnerability: databases list the same one under several names."""
    seen: set[str] = set()
    for advisory in sorted(found, key=lambda a: (not a.id.startswith("PYSEC"), a.id)):
        names = {advisory.id, *advisory.aliases}
        if not names & seen:
            yield advisory
        seen |= names


@contextmanager
def _unheeded() -> Iterator[list[str]]:
    """What pip-audit only warns about while it drops part of an answer."""
    warnings: list[str] = []

    class _Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    handler, logger = _Listening(logging.WARNING), logging.getLogger("pip_audit._service")
    logger.addHandler(handler)
    try:
        yield warnings
    finally:
        logger.removeHandler(handler)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file that the stage wrote."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
