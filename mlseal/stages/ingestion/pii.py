"""Before anything learns from data: which personal data are in them, and how much would have been seen?"""

from __future__ import annotations

from mlseal.stages.base import Context, DatasetPath, EntryPath, Finding, stage
from mlseal.stages.ingestion.personal import findings, sources


@stage(
    "ingestion.pii",
    predicate="pii-scan",
    extra="pii",
    cost="seconds: a hundred or more different texts in each, and the model takes some to start",
    not_proven=findings.NOT_PROVEN,
)
def pii(
    dataset: DatasetPath,  # noqa: ARG001 - read through the context, as a proven copy
    table: EntryPath = "",
    minimum_recall: float = 0.9,
    documents: int = 600,
    level: float = 0.95,
    seed: int = 0,
    *,
    context: Context,
) -> Finding:
    """Look for personal data in the texts of a data set, and measure how much of them the scanner sees.

    Presidio with a language model whose files are compared with known digests, and recognizers for medical record
    numbers, street addresses, dates of birth and names as clinical notes have them.

    Args:
        dataset: a table, a directory that holds it, a text, or a directory of .txt files.
        table: the table inside a data set directory, CSV or parquet.
        minimum_recall: what the lower bound of the recall must reach to count as sufficient.
        documents: made-up texts on which the recall is measured.
        level: coverage of the interval of the recall.
        seed: of the made-up texts; not part of the configuration digest.

    Guarantees:
        Only counts by kind and names of columns leave this stage, counts under 10 left out; no value, no position, no
        name of a file. Nothing is fetched from the network. There is no threshold and no verdict on what was found.

    Edge cases:
        A changed file of the model raises `DigestMismatch`, a missing one `Unreadable`; an empty data set `Unreadable`;
        a text that is too long, or on which a pattern took too long, `Unchecked`: nothing is passed over in silence.
        Columns of fractions, times and truth values are not looked at and are listed.
    """
    findings.check(minimum_recall, documents, level)
    scanned = findings.scan(sources.read(context, table))
    recalled = findings.measured_recall(minimum_recall, documents, level, seed)
    for line in findings.summary(findings.counts(scanned), recalled):
        context.log(line)
    return Finding(
        subjects=("dataset",),
        fields={**findings.describe(scanned), **recalled},
        libraries=findings.libraries(),
        seed=seed,
    )
