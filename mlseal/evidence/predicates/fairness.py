"""Fairness: group metrics of a model's decisions against a measured outcome, with intervals and power.

The subject is the model; the data set it was measured on stands in ``dataset`` by digest. Counts under 10 are
suppressed. There is no threshold and no verdict here: policy judges.

Example::

    {"dataset": {"name": "test", "digest": {"sha256": "…"}}, "outcome": "need", "attribute": "black",
     "selection": {"rule": "top-fraction", "fraction": 0.25}, "n": 2520, "clusters": 1012,
     "groups": [{"name": "1", "n": 463, "positives": 182, "negatives": 281, "selectionRate": 0.093,
                 "truePositiveRate": 0.137, "falsePositiveRate": 0.065}, …],
     "metrics": [{"name": "equalizedOddsDifference", "value": 0.286, "ciLow": 0.217, "ciHigh": 0.356, "level": 0.95}],
     "smallestGroupPositives": 182, "smallestGroupNegatives": 281, "sufficient": true,
     "interval": {"method": "cluster-bootstrap", "replicates": 2000, "cluster": "household"}, …}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Finite, Measurement, Model, ResourceDescriptor, Sha256

URI = NAMESPACE + "fairness/v0.1"
SHORT = "fairness"


class Selection(Model):
    """How scores became decisions; ``cutTies`` counts rows that share the score at the cut of a top fraction."""

    rule: Literal["predict", "top-fraction", "threshold", "column"]
    fraction: Finite | None = None
    threshold: Finite | None = None
    cut_ties: int | None = None


class Group(Model):
    """One group: counts (absent when under 10) and rates (absent when their denominator is under 10)."""

    name: str
    n: int | None = None
    positives: int | None = None
    negatives: int | None = None
    selection_rate: Finite | None = None
    true_positive_rate: Finite | None = None
    false_positive_rate: Finite | None = None


class Metric(Model):
    """A point estimate with its bootstrap interval; ``halfWidth`` is the power that this sample has.

    Replicates without a denominator (``undefinedReplicates``) count as 0 for ``ciLow`` and as 1 for ``ciHigh``.
    """

    name: str
    value: Finite
    ci_low: Finite
    ci_high: Finite
    level: Finite = 0.95
    half_width: Finite | None = None
    undefined_replicates: int | None = None


class Interval(Model):
    """How the intervals were made."""

    method: Literal["cluster-bootstrap", "multinomial-bootstrap"]
    replicates: int = Field(ge=100)
    cluster: str | None = None


class Predicate(Measurement):
    """Fairness v0.1.

    Attributes:
        table: the file inside a data set directory.
        outcome: the column taken as truth (need, not use).
        attribute: the column whose groups are compared.
        attribute_is_feature: whether the model is given that column; absent when no model ran.
        scorer: the program that scored, if not the built-in one.
        model_provenance: id of the provenance that was verified before the model's code ran.
        smallest_group_positives: fewest positives in any group; 0 when suppressed.
        sufficient: every group has at least ``minimumPositives`` positives and negatives.
    """

    dataset: ResourceDescriptor
    table: str | None = None
    outcome: str
    attribute: str
    attribute_is_feature: bool | None = None
    selection: Selection
    scorer: ResourceDescriptor | None = None
    model_provenance: Sha256 | None = None
    n: int = Field(ge=1)
    clusters: int | None = None
    groups: list[Group] = Field(min_length=2)
    metrics: list[Metric] = Field(min_length=1)
    smallest_group_positives: int = Field(ge=0)
    smallest_group_negatives: int = Field(ge=0)
    minimum_positives: int = Field(ge=0)
    sufficient: bool
    interval: Interval
