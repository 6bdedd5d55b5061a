"""Known vulnerabilities in what a model or program depends on, with every dependency accounted for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from mlseal.stages.base import DIGESTS, CodePath, Context, DatasetPath, FilePath, Finding, ModelPath, stage
from mlseal.stages.testing import auditing
from mlseal.stages.testing.auditing import Audit

_LISTED = 100
NOT_PROVEN = (
    "that there are no vulnerabilities: advisories name only those that somebody found and published",
    "that what is named is what runs: other versions can be installed, and code can be copied in",
    "that a vulnerability can, or cannot, be exploited here",
    "that the advisories are whole: whoever supplies them can leave some out",
)


def offline(predicate: Mapping[str, Any]) -> bool:
    """Whether the answer came from advisories that lay here: those of a service change by the hour."""
    return bool(predicate["scanner"]["uri"] == auditing.OFFLINE)


@stage(
    "testing.dependencies",
    predicate="vulns",
    extra="scan",
    reusable=offline,
    releases=DIGESTS,
    cost="seconds: advisories are read once; a service is asked once for each dependency",
    not_proven=NOT_PROVEN,
)
def dependencies(
    requirements: FilePath | None = None,
    environment: CodePath | None = None,
    model: ModelPath | None = None,
    advisories: DatasetPath | None = None,
    service: str = "",
    *,
    context: Context,
) -> Finding:
    """Compare the versions of dependencies with published advisories, and say which could not be compared.

    With ``--advisories`` nothing leaves this machine; without it, pip-audit asks PyPI or the service named.

    Args:
        requirements: a requirements or constraints file; only exact versions can be audited.
        environment: a site-packages directory, in place of a file; what is installed there is audited.
        model: a model directory, in place of a file; its requirements.txt is audited, the evidence is about the model.
        advisories: OSV entries, a directory or zip such as osv.dev's PyPI/all.zip or the PyPA advisory database.
        service: address that speaks OSV's query protocol, such as https://api.osv.dev/v1/query; PyPI's if empty.

    Guarantees:
        `complete` is true only if every dependency got a positive answer. A service must first show that it finds a
        version known to be vulnerable; one that does not answer, or knows nothing, audits nothing.

    Edge cases:
        Ranges, addresses and packages without metadata are not audited, each with its reason. A file that is none, or
        a database that is damaged or holds nothing about PyPI, raises `Unreadable`. Withdrawn advisories do not count.
    """
    subject = auditing.subject(requirements=requirements, environment=environment, model=model)
    audit = auditing.run(context, subject, service, offline=advisories is not None)
    return Finding(
        subjects=(subject,),
        fields={
            "scanner": _scanner(audit),
            "metadata": {"scanStartedOn": context.started_on, "scanFinishedOn": context.now()},
            "vulnerabilities": len(audit.findings),
            "dependencies": len(audit.audited) + len(audit.missed),
            "audited": len(audit.audited),
            "notAudited": [{"name": one.name, "reason": one.reason} for one in audit.missed[:_LISTED]],
            "complete": bool(audit.audited) and not audit.missed,
        },
        libraries={"packaging": importlib.metadata.version("packaging")} | auditing.library(audit),
    )


def _scanner(audit: Audit) -> dict[str, Any]:
    version = {"version": f"sha256:{audit.source_sha256}"} if audit.source_sha256 else {}
    return {
        "uri": audit.scanner,
        "version": audit.version,
        "db": {"uri": audit.source, **version, "lastUpdate": audit.last_update},
        "result": [_vulnerability(finding) for finding in audit.findings[:_LISTED]],
    }


def _vulnerability(finding: auditing.Finding) -> dict[str, Any]:
    advisory, dependency = finding.advisory, finding.dependency
    about = {
        "package": dependency.name,
        "version": str(dependency.version),
        "aliases": " ".join(advisory.aliases[:5]),
        "fixed": " ".join(advisory.fixed[:5]),
    }
    return {
        "id": advisory.id,
        "severity": [{"method": method, "score": score} for method, score in advisory.severity[:3]],
        "annotations": [{key: value for key, value in about.items() if value}],
    }
