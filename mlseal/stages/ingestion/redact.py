"""A data set without the personal data that the scanner finds, linked by digest to the one that it was made from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from mlseal.stages.base import Context, DatasetPath, EntryPath, Finding, OutputDataset, require, stage
from mlseal.stages.ingestion.personal import findings, recognizers, sources
from mlseal.stages.ingestion.personal.findings import Scanned
from mlseal.stages.ingestion.personal.scanner import Span

_PLACEHOLDER = re.compile("<(" + "|".join(recognizers.KINDS) + ")>")
_NOT_PROVEN = "that the redacted data are anonymous: replacing what was found is no de-identification by an expert"


@stage(
    "ingestion.redact",
    predicate="pii-scan",
    extra="pii",
    cost="seconds: two scans, each of a hundred or more different texts a second",
    not_proven=(*findings.NOT_PROVEN, _NOT_PROVEN),
)
def redact(
    dataset: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    redacted: OutputDataset,
    table: EntryPath = "",
    minimum_recall: float = 0.9,
    documents: int = 600,
    level: float = 0.95,
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Replace the personal data that the scanner finds by their kinds, in a new data set, and scan that again.

    Args:
        dataset: a table, a directory that holds it, a text, or a directory of .txt files.
        redacted: the new data set, a directory: table.csv or table.parquet as the source is, or numbered .txt files.
        table: the table inside a data set directory, CSV or parquet.
        minimum_recall: what the lower bound of the recall must reach to count as sufficient.
        documents: made-up texts on which the recall is measured.
        level: coverage of the interval of the recall.
        seed: of the made-up texts; not part of the configuration digest.

    Guarantees:
        The evidence is about the new data set: what was replaced, from which source by digest, and what the scanner
        still finds. A column whose header says that every value is personal is replaced whole. Names of files are not
        taken over, nor are columns changed that were not looked at.

    Edge cases:
        As of `ingestion.pii`; then no new data set exists either. What stands for a finding, such as <PERSON>, is not
        counted as one.
    """
    findings.check(minimum_recall, documents, level)
    require("presidio_anonymizer", "pii")
    source = sources.read(context, table)
    before = findings.scan(source)
    others = [_replaced(part.texts, spans) for part, spans in zip(source.parts, before.spans, strict=True)]
    for part, texts in zip(source.parts, others, strict=True):
        part.put(texts)
    source.write(redacted)
    after = _again(before, others)
    recalled = findings.measured_recall(minimum_recall, documents, level, seed)
    for line in findings.summary(findings.counts(after), recalled):
        context.log(line)
    made = {
        "source": context.resource("dataset"),
        "method": "replace-with-kind",
        "replaced": findings.published(findings.counts(before)),
        "fileNames": "numbered" if source.unit == "file" else "dropped",
    }
    return Finding(
        subjects=("redacted",),
        fields={**findings.describe(after), **recalled, "redaction": made},
        libraries=findings.libraries(),
        seed=seed,
    )


def _replaced(texts: Sequence[str], spans: Sequence[tuple[Span, ...]]) -> list[str]:
    """Each text with its spans replaced by Presidio's anonymizer; equal ones once."""
    from presidio_anonymizer import AnonymizerEngine
    from presidio_anonymizer.entities import RecognizerResult

    engine = AnonymizerEngine()
    known: dict[tuple[str, tuple[Span, ...]], str] = {}
    for text, found in zip(texts, spans, strict=True):
        if (text, found) not in known:
            results = [RecognizerResult(s.kind, s.start, s.end, 1.0) for s in joined(found)]
            known[text, found] = str(engine.anonymize(text, results).text) if found else text
    return [known[pair] for pair in zip(texts, spans, strict=True)]


def joined(spans: Sequence[Span]) -> list[Span]:
    """Spans that do not overlap and cover the same characters, each of the kind of its longest part."""
    made: list[Span] = []
    longest = 0
    for span in sorted(spans):
        length = span.end - span.start
        if made and span.start < made[-1].end:
            last = made[-1]
            kind = span.kind if length > longest else last.kind
            made[-1], longest = Span(last.start, max(last.end, span.end), kind), max(longest, length)
        else:
            made.append(span)
            longest = length
    return made


def _again(before: Scanned, others: Sequence[list[str]]) -> Scanned:
    """What the scanner finds in the new texts, besides the words that stand for a finding."""
    parts = tuple(
        dataclasses.replace(part, texts=texts) for part, texts in zip(before.source.parts, others, strict=True)
    )
    after = findings.scan(dataclasses.replace(before.source, parts=parts))
    left = tuple(
        tuple(
            tuple(span for span in found if not _stands_for_one(text, span))
            for text, found in zip(part.texts, spans, strict=True)
        )
        for part, spans in zip(parts, after.spans, strict=True)
    )
    return Scanned(after.source, left)


def _stands_for_one(text: str, span: Span) -> bool:
    return any(m.start() < span.end and span.start < m.end() for m in _PLACEHOLDER.finditer(text))
