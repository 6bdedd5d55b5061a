"""What the allow-list and the other scanners say of some of a model's files; what shards say, put together.

A file is judged by its own bytes and the flavour of the model, whatever lies beside it, so shards look at files and
this adds up. What is said of the model as a whole (its description, whether anything was found, who signed it) is said
once, of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlseal.errors import RuleBroken
from mlseal.evidence.digest import Measured
from mlseal.stages.shard import Found
from mlseal.stages.testing import allowlist, opinions, sarif
from mlseal.stages.testing.opinions import Opinion
from mlseal.stages.testing.sarif import Result, Run

TOOL = "mlseal allow-list"
_RULE = "not-allowed"
_LONGEST = 300


@dataclass(frozen=True)
class Looked:
    """What was found in `files` files.

    Attributes:
        files: how many were looked at.
        results: one for each that the list does not allow.
        first: place in the model (from 0) and reason of the first of those, by path; None if there is none.
        said: what each of the other scanners says.
    """

    files: int = 0
    results: Sequence[Result] = ()
    first: tuple[int, str] | None = None
    said: Sequence[Opinion] = field(default_factory=tuple)

    @property
    def reason(self) -> str:
        """The first reason against the model; empty if there is none."""
        if self.first is not None:
            return self.first[1]
        return self.results[0].message if self.results else ""

    def also(self, results: Sequence[Result]) -> Looked:
        """The same with `results` about the model as a whole, which come last."""
        return replace(self, results=[*self.results, *results])

    def write(self, report: Path) -> None:
        """Write what was found as SARIF."""
        rules = {_RULE: f"none of {self.files} files"}
        sarif.write([Run(TOOL, allowlist.VERSION, self.results, rules)], report)

    def to_fields(self) -> dict[str, Any]:
        """What stands in the evidence of a part, beside its report."""
        first = {} if self.first is None else {"first": {"place": self.first[0], "reason": self.first[1][:_LONGEST]}}
        return {"files": self.files, "said": [asdict(one) for one in self.said], **first}


def from_part(part: Found, measured: Measured) -> Looked:
    """What one shard of the model `measured` found. Raises `RuleBroken` if it is not about all of its files."""
    fields = part.fields
    part.require_all(fields["files"], measured)
    (run,) = sarif.written(part.made["report"])
    if (run.tool, run.version) != (TOOL, allowlist.VERSION) or bool(run.results) != ("first" in fields):
        raise RuleBroken("the report of a part does not fit its evidence", got=f"{run.tool} {run.version}")
    first = (fields["first"]["place"], fields["first"]["reason"]) if "first" in fields else None
    return Looked(fields["files"], run.results, first, [Opinion(**one) for one in fields["said"]])


def together(parts: Sequence[Looked]) -> Looked:
    """What all shards found, as one."""
    firsts = [one.first for one in parts if one.first is not None]
    return Looked(
        sum(one.files for one in parts),
        [result for one in parts for result in one.results],
        min(firsts, default=None),
        [opinions.together(said) for said in zip(*(one.said for one in parts), strict=True)],
    )


def not_allowed(reason: str, place: sarif.Place) -> Result:
    """The result that says why the list does not allow a file, or the model."""
    return Result(_RULE, "error", reason, place)
