"""Security evaluation: how far attacks on a model got, each with its threat model, its budget and an interval.

The subject is the model. ``metrics`` is what a policy judges: of all attacks the one that got furthest, with bounds
that allow for the choice among them. ``controls`` are the same figures for what is no attack on the model, such as
telling the two tables apart without it: where a control succeeds, the figures above say little, and ``sufficient`` is
false.

Example::

    {"kind": "membership-inference", "dataset": {"name": "train.parquet", "digest": {"sha256": "…"}},
     "reference": {"name": "test.parquet", "digest": {"sha256": "…"}}, "outcome": "need", "n": 2878, "referenceN": 2520,
     "attacks": [{"name": "loss-threshold", "threatModel": "black-box-scores", "metrics": [
       {"name": "truePositiveRate", "value": 0.012, "ciLow": 0.005, "ciHigh": 0.023, "level": 0.9833, "n": 960}]}],
     "controls": [{"name": "tables-alone", "threatModel": "no-model", "metrics": [
       {"name": "auc", "value": 0.508, "ciLow": 0.48, "ciHigh": 0.536, "level": 0.95, "n": 1800}]}],
     "metrics": [{"name": "truePositiveRateAt1PercentFalsePositives", "value": 0.014, "ciLow": 0.006, "ciHigh": 0.026,
       "level": 0.95, "n": 960}], "sharedRows": 0.0, "minimumRows": 1000, "sufficient": true, …}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlseal.evidence.predicates.base import NAMESPACE, Finite, Measurement, Model, ResourceDescriptor, Sha256

URI = NAMESPACE + "security-evaluation/v0.1"
SHORT = "security-evaluation"


class Metric(Model):
    """A figure with its interval of coverage ``level``, of ``n`` rows that no attack was fitted to."""

    name: str
    value: Finite
    ci_low: Finite
    ci_high: Finite
    level: Finite
    n: int = Field(ge=1)

    @model_validator(mode="after")
    def _interval_is_around_the_value(self) -> Metric:
        if not self.ci_low <= self.value <= self.ci_high:
            raise ValueError(f"{self.name}: {self.value} lies outside {self.ci_low} to {self.ci_high}")
        return self


class Attack(Model):
    """One attack, or one control.

    Attributes:
        threat_model: what it sees of the model: parameters, scores for any row, classes alone, or nothing of it.
        norm: how its budget is measured; absent where there is none.
        budget: the most that a row may change, in that norm.
        queries: the most answers of the model that it may ask for, a row.
        metrics: how far it got.
    """

    name: str
    threat_model: Literal["white-box", "black-box-scores", "black-box-decisions", "no-model"]
    norm: Literal["inf", "2"] | None = None
    budget: Finite | None = None
    queries: int | None = Field(default=None, ge=1)
    metrics: list[Metric] = Field(min_length=1)


class Constraint(Model):
    """What an attack may do to one column: leave it alone, or move it within a range, in whole numbers or not."""

    column: str
    changeable: bool
    integer: bool = False
    low: Finite | None = None
    high: Finite | None = None


class Hardening(Model):
    """How the model was made that is attacked here, and how far the same attacks got on the one before.

    Attributes:
        method: how it was trained.
        before: the model that it was made from.
        training: the rows that it learnt from; ``training_n`` of them.
        temperature: of distillation.
        attacks: on the model before, on the same rows.
        controls: same.
        metrics: of the model before.
    """

    method: Literal["adversarial-training", "defensive-distillation"]
    before: ResourceDescriptor
    training: ResourceDescriptor
    training_table: str | None = None
    training_n: int = Field(ge=1)
    epochs: int = Field(ge=1)
    temperature: Finite | None = None
    attacks: list[Attack] = Field(min_length=1)
    controls: list[Attack] = Field(min_length=1)
    metrics: list[Metric] = Field(min_length=1)


class Predicate(Measurement):
    """Security evaluation v0.1.

    Attributes:
        kind: what was attacked: whether a row was learnt from, or the model's decision on a row; for hardening the
            decision too, of two models.
        dataset: the rows attacked; for membership those that the model learnt from.
        table: the file inside a data set directory.
        reference: rows of the same kind that the model did not learn from.
        outcome: the column that the model predicts.
        cluster: the column whose rows stayed together, such as person or household.
        n: rows of ``dataset``, for evasion and hardening those attacked; ``referenceN``: of ``reference``.
        scorer: the program that asked the model, if not the built-in one.
        model_provenance: id of the provenance that was verified before the model's code ran.
        constraints: of the columns that the model takes.
        shared_rows: share of ``reference`` that also stands in ``dataset``, told by features and outcome.
        hardening: where the model comes from, and the same figures of the one before.
        minimum_rows: rows that each table must have, or that must be attacked, to count as sufficient.
        masking_suspected: an attack that knows less got further, more budget got less far, or noise did as well.
        sufficient: enough rows, no control that explains the figures, and no masking suspected.
    """

    kind: Literal["membership-inference", "evasion", "hardening"]
    dataset: ResourceDescriptor
    table: str | None = None
    reference: ResourceDescriptor | None = None
    reference_table: str | None = None
    outcome: str
    cluster: str | None = None
    n: int = Field(ge=1)
    reference_n: int | None = Field(default=None, ge=1)
    scorer: ResourceDescriptor | None = None
    model_provenance: Sha256 | None = None
    attacks: list[Attack] = Field(min_length=1)
    controls: list[Attack] = Field(min_length=1)
    metrics: list[Metric] = Field(min_length=1)
    constraints: list[Constraint] = Field(default_factory=list)
    shared_rows: Finite | None = None
    masking_suspected: bool | None = None
    hardening: Hardening | None = None
    minimum_rows: int = Field(ge=1)
    sufficient: bool
