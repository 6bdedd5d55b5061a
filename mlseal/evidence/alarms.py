"""From an alarm to a revocation: what a monitor takes back when a model in use no longer sees what it was made for.

1. The report is evidence like any other: the caller verified it, about the model's bytes.
2. No alarm, and a detector that would have raised one: nothing is taken back.
3. No alarm from a detector without power, or some time ago: nothing is known, which is `Unchecked`. Thresholds that the
   report itself states do not make power of what is none.
4. An alarm: every piece of evidence of the named types about the model is withdrawn, each by a revocation of its own.
   What this identity withdrew before is passed over, so acting twice on one report changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mlseal.errors import MalformedEvidence, NoEvidence, Unchecked
from mlseal.evidence.archive import Archive
from mlseal.evidence.clock import rfc3339
from mlseal.evidence.predicates import drift
from mlseal.evidence.revoking import revoke
from mlseal.evidence.signing import Signer
from mlseal.evidence.verifying import VerifiedStatement

LEAST_POWER, MOST_FALSE_ALARMS = 0.5, 0.5
"""Bounds that a silence must meet besides those of its report."""


def answer(
    report: VerifiedStatement, archive: Archive, signer: Signer, types: Sequence[str], *, oldest: datetime
) -> list[str] | None:
    """Act on a verified drift report; the ids that were withdrawn now, or None if there was no alarm.

    Raises `Unchecked` for silence without power or signed before `oldest`, `NoEvidence` when an alarm finds nothing of
    `types` to take back. An alarm counts however old it is.
    """
    said = report.predicate
    if not isinstance(said, drift.Predicate):
        raise MalformedEvidence("not a monitoring report", got=report.predicate_type, expected=drift.URI)
    if not said.alarmed:
        _require_meaning(said)  # (3)
        if report.time < oldest:
            raise Unchecked(
                "the monitor was silent some time ago, which says nothing of today",
                got=f"signed {rfc3339(report.time)}",
                expected=f"not before {rfc3339(oldest)}",
                remedy="run monitoring.drift on what came since",
            )
        return None  # (2)
    subjects = [subject.sha256 for subject in report.subjects]
    found = archive.candidates(subjects, types)
    if not found:
        raise NoEvidence(
            "the monitor raised an alarm, and there is nothing to take back",
            got=f"no {', '.join(types)} about the model",
            remedy="name the evidence that lets the model go on: --withdraw TYPE",
        )
    known = archive.revocations([signer.identity()])
    comment = f"drift alarm, evidence {report.evidence_id}"
    fresh = [bundle.evidence_id for bundle in found if known.of(bundle.evidence_id) is None]
    for evidence_id in fresh:  # (4)
        revoke(archive, signer, evidence_id, reason="withdrawn", comment=comment)
    return fresh


def _require_meaning(said: drift.Predicate) -> None:
    power = max(said.minimum_power, LEAST_POWER)
    false = min(said.maximum_false_alarms, MOST_FALSE_ALARMS)
    if not (said.sufficient and said.power.low >= power and said.false_alarms.high <= false):
        raise Unchecked(
            "the monitor was silent but would not have noticed",
            got=f"power at least {said.power.low}, false alarms at most {said.false_alarms.high}",
            expected=f"{power} or more, {false} or less",
            remedy="watch a longer stream, or another detector or sensitivity",
        )
