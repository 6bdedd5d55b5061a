"""Records → the measured figures of a card, each with its interval, or as the bound that it is.

| evidence | figures |
|---|---|
| fairness | every metric of each attribute |
| security-evaluation | of all attacks the furthest, as its ``metrics`` say; the page lists each |
| dp-training | epsilon, an upper bound |
| guard-evaluation | of each kind of request the share answered through the guard |

A figure of evidence that calls itself insufficient is kept and marked: leaving it out would hide that it was tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlseal.stages.governance.records import Record, Records


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: as its evidence calls it.
        of: the groups, attack, rows or unit that it is of.
        value: as text, as it was signed.
        ends: of its interval; None for a bound.
        level: coverage of the interval, 0 to 1; None for a bound.
        decides: whether its evidence says that there was enough to go by.
    """

    name: str
    of: str
    value: str
    ends: tuple[float, float] | None = None
    level: float | None = None
    decides: bool = True


def of_records(records: Records) -> list[Figure]:
    """Those of the records about the model that stand: fairness, attacks, privacy, guard, in this order."""
    kinds = {
        "fairness": _fairness,
        "security-evaluation": _attacks,
        "dp-training": _privacy,
        "guard-evaluation": _guard,
    }
    return [figure for kind, read in kinds.items() for record in records.of(kind) for figure in read(record.said)]


def undecided(record: Record) -> bool:
    """Whether a record says itself that there was not enough to go by."""
    return record.said.get("sufficient") is False


def _fairness(said: Mapping[str, Any]) -> Iterator[Figure]:
    for metric in said["metrics"]:
        yield _with_interval(metric, str(said["attribute"]), said)


def _attacks(said: Mapping[str, Any]) -> Iterator[Figure]:
    for metric in said["metrics"]:
        yield _with_interval(metric, f"{said['kind']}, {metric['n']} rows", said)


def _guard(said: Mapping[str, Any]) -> Iterator[Figure]:
    for kind in said["kinds"]:
        of = f"{kind['name']} through the guard, {kind['n']} requests"
        yield Figure("shareAnswered", of, str(kind["shareOn"]), (kind["low"], kind["high"]), said["level"])


def _privacy(said: Mapping[str, Any]) -> Iterator[Figure]:
    yield Figure("epsilon", f"delta {said['delta']}", str(said["epsilon"]))


def _with_interval(metric: Mapping[str, Any], of: str, said: Mapping[str, Any]) -> Figure:
    level = metric.get("level", 0.95)  # what the schema of fairness takes an absent one for
    ends = metric["ciLow"], metric["ciHigh"]
    return Figure(str(metric["name"]), of, str(metric["value"]), ends, level, bool(said.get("sufficient", True)))
