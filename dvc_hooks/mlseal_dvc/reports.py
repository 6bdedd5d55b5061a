"""What a verification found, for the pages of a CI: Markdown for the summary, annotations for the changed files.

Paths in it are written by whoever asks for the review, so nothing of them may end a table cell or begin a command of
the runner (GitHub obeys lines that start with ``::``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlseal.errors import Error
from mlseal.evidence.clock import rfc3339
from mlseal_dvc import commands
from mlseal_dvc.verifying import Outcome

WORKFLOWS = (".github/workflows/*.yml", ".github/workflows/*.yaml", ".gitlab-ci.yml", ".gitlab/**/*.yml")
_CHECK = re.compile(r"mlseal/dvc_hooks/ci/|mlseal\.gitlab-ci\.yml|mlseal dvc verify\b")


def summary(outcomes: Sequence[Outcome], revisions: Sequence[str], stopped: Error | None = None) -> str:
    """A page in Markdown: the verdict, then a row for each output version, refused ones first."""
    bad = [outcome for outcome in outcomes if outcome.error is not None]
    verdict = "refused" if bad or stopped else "accepted"
    lines = [f"## Provenance of DVC outputs: {verdict}", ""]
    lines += [f"{len(outcomes)} output versions in {len(revisions)} commits, {len(bad)} without valid evidence.", ""]
    if stopped is not None:
        lines += [_cell(str(stopped)), ""]
    if outcomes:
        lines += ["| output | evidence | commit |", "|---|---|---|"]
    for outcome in sorted(outcomes, key=lambda o: (o.error is None, o.pointer.path)):
        commit = (outcome.pointer.rev or "")[:12]
        lines.append(f"| {_cell(outcome.pointer.path)} | {_cell(_finding(outcome))} | {commit} |")
    return "\n".join(lines) + "\n"


def for_reviewers(outcomes: Sequence[Outcome], stopped: Error | None = None) -> list[str]:
    """GitHub's workflow commands: one error for each refused output, at the file that a reviewer sees it by."""
    lines = []
    for outcome in outcomes:
        if outcome.error is not None:
            # Of a commit that is not checked out DVC gives the path from here to the root, and then the path.
            file = re.sub(r"^(\.\./)+", "", outcome.pointer.stage.partition(":")[0])
            lines.append(f"::error file={_property(file)},title=no valid provenance::{_data(str(outcome.error))}")
    if stopped is not None:
        lines.append(f"::error title=provenance not checked::{_data(str(stopped))}")
    return lines


def named_in(repository: Path) -> list[str]:
    """Files of this working tree that make a CI run the check. Whether a forge requires it cannot be seen from here."""
    found = []
    for pattern in WORKFLOWS:
        for file in sorted(repository.glob(pattern)):
            if file.is_file() and _CHECK.search(file.read_text(encoding="utf-8", errors="replace")):
                found += [file.relative_to(repository).as_posix()]
    return found


def _finding(outcome: Outcome) -> str:
    if outcome.error is not None or outcome.attested is None:
        return f"❌ {outcome.error}"
    verified, comparison = outcome.attested.verified, outcome.comparison
    seen = f"{comparison.present} objects compared" if not comparison.absent else "bytes not looked at"
    origin = verified.statement.predicate["origin"]
    return f"✅ signed by {verified.identity.san} on {rfc3339(verified.time)}, origin {origin}, {seen}"


def _cell(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|~#@])", r"\\\1", commands.printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
