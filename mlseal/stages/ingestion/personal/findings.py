"""From a data set to the fields of a ``pii-scan``: counts by kind, small ones hidden, never a value."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlseal.errors import Misuse
from mlseal.stages.base import require
from mlseal.stages.ingestion.personal import model, recall, recognizers, scanner
from mlseal.stages.ingestion.personal.scanner import Span
from mlseal.stages.ingestion.personal.sources import Part, Source

SMALL_CELL = 10
LIBRARIES = ("presidio-analyzer", "spacy")
NOT_PROVEN = (
    "that nothing personal is left: the scanner finds the share that recall says, of these kinds, in English",
    "recall on these data: it was measured on made-up clinical sentences",
    "that columns under notScanned hold nothing personal, or that no combination of columns singles anybody out",
)


@dataclass(frozen=True)
class Scanned:
    """A source with what was found in each of its parts; spans stay in this process."""

    source: Source
    spans: tuple[tuple[tuple[Span, ...], ...], ...]


def check(minimum_recall: float, documents: int, level: float) -> None:
    """Raise `MissingExtra` or `Misuse` before anything is read."""
    require("presidio_analyzer", "pii")
    if not 0 <= minimum_recall <= 1 or not 50 <= documents <= 20_000 or not 0.5 <= level < 1:
        raise Misuse(
            "parameters of the scan are out of range",
            got=f"minimum recall {minimum_recall}, {documents} documents, level {level}",
            expected="0 to 1, 50 to 20000, 0.5 to below 1",
        )


def scan(source: Source) -> Scanned:
    """Look at every part."""
    return Scanned(source, tuple(_spans(part) for part in source.parts))


def _spans(part: Part) -> tuple[tuple[Span, ...], ...]:
    if part.kind is not None:
        return tuple((Span(0, len(text), part.kind),) if text.strip() else () for text in part.texts)
    return tuple(scanner.scan(part.texts, part.context))


def counts(scanned: Scanned) -> Counter[str]:
    """Kind → how many findings."""
    return Counter(span.kind for part in scanned.spans for spans in part for span in spans)


def published(counted: Counter[str]) -> list[dict[str, Any]]:
    """Every kind that was looked for; a count of 1 to 9 is left out."""
    return [
        {"kind": kind, **({"count": counted[kind]} if not 0 < counted[kind] < SMALL_CELL else {})}
        for kind in recognizers.KINDS
    ]


def describe(scanned: Scanned) -> dict[str, Any]:
    """What was looked at and found."""
    counted = counts(scanned)
    texts = [text for part in scanned.source.parts for text in part.texts]
    fields: dict[str, Any] = {
        "unit": scanned.source.unit,
        "scanned": len(texts),
        "different": len(set(texts)),
        "found": sorted(kind for kind in counted if counted[kind]),
        "kinds": published(counted),
    }
    if scanned.source.unit == "cell":
        fields["columns"] = [
            {"name": part.name, "kinds": kinds, "by": "content" if part.kind is None else "header"}
            for part, spans in zip(scanned.source.parts, scanned.spans, strict=True)
            if (kinds := sorted({span.kind for each in spans for span in each}))
        ]
        fields["notScanned"] = list(scanned.source.not_scanned)
    return fields


def measured_recall(minimum: float, documents: int, level: float, seed: int) -> dict[str, Any]:
    """The scanner itself: its model, its threshold, and how much it sees."""
    found = recall.measure(documents, level, seed)
    return {
        "threshold": scanner.THRESHOLD,
        "language": scanner.LANGUAGE,
        "model": {"name": f"{model.NAME} {model.VERSION}", "digest": {"sha256": model.digest()}},
        "recall": found,
        "minimumRecall": minimum,
        "sufficient": found["ciLow"] >= minimum,
    }


def libraries() -> dict[str, str]:
    """Who measured, by version."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def summary(counted: Counter[str], recalled: dict[str, Any]) -> Sequence[str]:
    """Lines for whoever waits: counts that may be published, and the bound."""
    lines = [
        f"{kind}: {counted[kind] if counted[kind] >= SMALL_CELL else f'under {SMALL_CELL}'}"
        for kind in recognizers.KINDS
        if counted[kind]
    ]
    low, level = recalled["recall"]["ciLow"], recalled["recall"]["level"]
    return [*(lines or ["nothing found"]), f"recall on the sample at least {low:.3f} (level {level})"]
