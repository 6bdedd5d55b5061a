"""How much of what is personal the scanner sees, measured now, with this model, on a sample in which it is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mlseal.stages import proportions
from mlseal.stages.ingestion.personal import sample, scanner
from mlseal.stages.ingestion.personal.sample import Labelled
from mlseal.stages.ingestion.personal.scanner import Span


def measure(documents: int, level: float, seed: int) -> dict[str, Any]:
    """The ``recall`` of the predicate: shares with exact binomial bounds, overall and by kind, and the precision."""
    labelled = sample.make(documents, seed)
    found = scanner.scan([one.text for one in labelled])
    seen, missed = tally(labelled, found)
    right, wrong = _precision(labelled, found)
    kinds = sorted({*seen, *missed})
    return {
        "documents": documents,
        "sampleDigest": sample.digest(labelled),
        "method": "clopper-pearson",
        "level": level,
        **_share(seen.total(), seen.total() + missed.total(), level),
        "byKind": [{"kind": kind, **_share(seen[kind], seen[kind] + missed[kind], level)} for kind in kinds],
        "precision": round(right / (right + wrong), 4) if right + wrong else 0.0,
    }


def tally(labelled: Sequence[Labelled], found: Sequence[Sequence[Span]]) -> tuple[Counter[str], Counter[str]]:
    """Kind → spans that were found whole (each letter and digit, under whatever kind), and those that were not."""
    seen: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for one, spans in zip(labelled, found, strict=True):
        covered = {i for span in spans for i in range(span.start, span.end)}
        for span in one.spans:
            whole = all(i in covered or not one.text[i].isalnum() for i in range(span.start, span.end))
            (seen if whole else missed)[span.kind] += 1
    return seen, missed


def _precision(labelled: Sequence[Labelled], found: Sequence[Sequence[Span]]) -> tuple[int, int]:
    """Findings that touch something personal, and those that touch nothing."""
    right = wrong = 0
    for one, spans in zip(labelled, found, strict=True):
        for span in spans:
            if any(span.start < true.end and true.start < span.end for true in one.spans):
                right += 1
            else:
                wrong += 1
    return right, wrong


def _share(hits: int, trials: int, level: float) -> dict[str, Any]:
    low, high = proportions.interval(hits, trials, level)
    value = hits / trials if trials else 0.0
    return {
        "entities": trials,
        "found": hits,
        "value": round(value, 4),
        "ciLow": round(low, 4),
        "ciHigh": round(high, 4),
    }
