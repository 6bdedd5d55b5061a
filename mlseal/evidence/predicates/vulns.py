"""in-toto vulns v0.2: known vulnerabilities in what a subject depends on, and how fresh the advisories were.

``scanner`` and ``metadata`` are those of the specification. Beside them stand the fields of every measurement of ours,
which other verifiers ignore, and what the specification has no word for: how many dependencies there are, how many got
an answer, and which did not. An empty ``result`` says nothing unless ``audited`` equals ``dependencies``.

Example::

    {"scanner": {"uri": "pkg:pypi/packaging", "version": "25.0",
       "db": {"uri": "20114 OSV entries", "version": "sha256:…", "lastUpdate": "2026-11-20T06:11:25Z"},
       "result": [{"id": "PYSEC-2021-142", "severity": [{"method": "CVSS_V3", "score": "CVSS:3.1/AV:N/…"}],
                   "annotations": [{"package": "pyyaml", "version": "5.3", "aliases": "CVE-2020-14343",
                                    "fixed": "5.4"}]}]},
     "metadata": {"scanStartedOn": "2026-11-27T04:00:00Z", "scanFinishedOn": "2026-11-27T04:00:02Z"},
     "vulnerabilities": 1, "dependencies": 41, "audited": 40,
     "notAudited": [{"name": "ourlib", "reason": "no exact version is given"}], "complete": false,
     "harness": {…}, "strength": "measured", "runId": "r1", "notProven": ["…"]}
"""

from __future__ import annotations

from pydantic import Field

from mlseal.evidence.predicates.base import Measurement, Model, Timestamp

URI = "https://in-toto.io/attestation/vulns/v0.2"
SHORT = "vulns"


class Severity(Model):
    """One severity, by one method."""

    method: str
    score: str


class Vulnerability(Model):
    """One advisory that affects one dependency; ``annotations`` name package, version, aliases and mended versions."""

    id: str
    severity: list[Severity]
    annotations: list[dict[str, str]] = Field(default_factory=list)


class Database(Model):
    """The advisories; ``lastUpdate`` is how fresh they can be at most, so that a policy can ask for fresher ones."""

    uri: str | None = None
    version: str | None = None
    last_update: Timestamp


class Scanner(Model):
    """Who compared versions with which advisories, and what was found."""

    uri: str
    version: str | None = None
    db: Database
    result: list[Vulnerability]


class Metadata(Model):
    """When."""

    scan_started_on: Timestamp
    scan_finished_on: Timestamp


class NotAudited(Model):
    """A dependency without an answer."""

    name: str
    reason: str


class Predicate(Measurement):
    """in-toto vulns v0.2.

    Attributes:
        vulnerabilities: how many there are; ``scanner.result`` lists the first hundred.
        dependencies: how many were asked about.
        audited: how many of them got an answer.
        not_audited: the others, at most a hundred of them.
        complete: every dependency was audited, and there was at least one.
    """

    scanner: Scanner
    metadata: Metadata
    vulnerabilities: int = Field(ge=0)
    dependencies: int = Field(ge=0)
    audited: int = Field(ge=0)
    not_audited: list[NotAudited] = Field(default_factory=list)
    complete: bool
