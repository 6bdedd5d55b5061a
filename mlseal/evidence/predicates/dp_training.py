"""DP training: how a model was trained with differential privacy, and everything that it takes to recompute epsilon.

The subject is the model. Whoever reads this predicate, to sign or to verify it, recomputes epsilon from ``sampleRate``,
``noiseMultiplier``, ``steps`` and ``delta`` with an accountant of mlseal's own, which needs no torch
(`mlseal/evidence/accounting.py`), and refuses a statement whose ``epsilon`` is lower. ``epsilon`` is therefore a Renyi
bound; ``estimates`` holds what other accountants say, which is tighter.

Example::

    {"dataset": {"name": "randhie", "digest": {"sha256": "…"}}, "table": "train.parquet", "outcome": "need",
     "mechanism": "dp-sgd", "unit": "person", "unitColumn": "household", "adjacency": "add-or-remove-one-unit",
     "epsilon": "3.0000", "delta": "0.00001", "accountant": "renyi-integer-orders",
     "sampling": "poisson", "units": 1036, "examplesPerUnit": 1, "rowsPerUnit": 10, "rowsLeftOut": 0,
     "expectedBatch": "86.333333", "sampleRate": "0.083333333333333333", "steps": 240,
     "noiseMultiplier": "2.154", "clippingNorm": "1", "normalization": false,
     "noiseSource": "torch mt19937, seeded from the operating system", "noiseIsCryptographic": false,
     "preprocessing": {"source": "stated", "digest": "…", "columns": 18},
     "estimates": [{"accountant": "opacus prv", "version": "1.6.0", "epsilon": "2.7393"}],
     "nonPrivateReleases": ["how many units and rows there are", …], …}
"""

from __future__ import annotations

import decimal
import math
from typing import Literal

from pydantic import Field, model_validator

from mlseal.evidence import accounting
from mlseal.evidence.predicates.base import NAMESPACE, Decimal, Measurement, Model, ResourceDescriptor, Sha256, Text

URI = NAMESPACE + "dp-training/v0.1"
SHORT = "dp-training"
_ROUNDING = decimal.Decimal("0.000001")
"""What the batch size divided by the number of units may differ from the rate by, as both are written down."""


class Preprocessing(Model):
    """Constants that rows were scaled with before training; ``stated`` by the caller, so that none was learned here."""

    source: Literal["stated"]
    digest: Sha256
    columns: int = Field(ge=0)


class Estimate(Model):
    """What another accountant makes of the same figures."""

    accountant: str
    version: str
    epsilon: Decimal


class Predicate(Measurement):
    """DP training v0.1.

    Attributes:
        table: the file inside a data set directory.
        outcome: the column that was learned.
        unit: whom the guarantee is for, as data policies name it.
        unit_column: the column that names the unit of a row; absent where every row is a unit.
        epsilon: upper bound for one unit, recomputed by every reader.
        units: how many there are; each is one example and in a batch with probability ``sampleRate``.
        rows_per_unit: places for rows in an example.
        rows_left_out: rows beyond those places; absent when under 10, unless there were none.
        normalization: whether the model has layers that mix units (batch norm); never.
        noise_is_cryptographic: whether the noise comes from a generator that cannot be predicted from its output.
        non_private_releases: what accompanies the model and is not covered by epsilon.
    """

    dataset: ResourceDescriptor
    table: str | None = None
    outcome: str
    mechanism: Literal["dp-sgd"]
    unit: str = Field(min_length=1, max_length=100)
    unit_column: str | None = None
    adjacency: Literal["add-or-remove-one-unit"]
    epsilon: Decimal
    delta: Decimal
    accountant: Literal["renyi-integer-orders"]
    sampling: Literal["poisson"]
    units: int = Field(ge=1)
    examples_per_unit: Literal[1]
    rows_per_unit: int = Field(ge=1)
    rows_left_out: int | None = None
    expected_batch: Decimal
    sample_rate: Decimal
    steps: int = Field(ge=1)
    noise_multiplier: Decimal
    clipping_norm: Decimal
    normalization: Literal[False]
    noise_source: Text
    noise_is_cryptographic: bool
    preprocessing: Preprocessing
    estimates: list[Estimate]
    non_private_releases: list[Text] = Field(min_length=1)

    @model_validator(mode="after")
    def _epsilon_is_what_the_figures_give(self) -> Predicate:
        rate, batch = decimal.Decimal(self.sample_rate), decimal.Decimal(self.expected_batch)
        if abs(batch / self.units - rate) > _ROUNDING:
            raise ValueError(f"the sampling rate {rate} is not the batch {batch} over {self.units} units")
        found = accounting.epsilon(
            float(rate), float(self.noise_multiplier), self.steps, float(self.delta)
        )  # ValueError for a figure out of range
        if decimal.Decimal(self.epsilon) < decimal.Decimal(0 if found == 0 else repr(found)) or math.isnan(found):
            raise ValueError(
                f"epsilon {self.epsilon} is lower than the {found:.4f} that rate {self.sample_rate}, noise "
                f"{self.noise_multiplier}, {self.steps} steps and delta {self.delta} give"
            )
        return self
