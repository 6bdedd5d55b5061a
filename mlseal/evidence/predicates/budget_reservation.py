"""Budget reservation: before a run gives away privacy, how much of the owner's budget it sets aside for that.

Signed by whoever runs, on the log before the work starts. It counts as spent from then on: until evidence of the same
identity that names it under ``preflight`` says what was spent, or the owner of the data releases it by a revocation.
Epsilons and deltas are added up, without rounding (basic composition; see docs/policy.md).

Example::

    {"stage": "training.dp", "predicateType": "https://mlseal.dev/dp-training/v0.1", "runId": "…",
     "epsilon": "4", "delta": "0.00001", "unit": "person",
     "accounts": [{"dataPolicy": "…", "owner": {"issuer": "https://oidc.example", "san": "…/roles/owner"},
                   "cohort": "hospital.example/patients-2026", "maxEpsilon": "8", "maxDelta": "0.0001"}],
     "notProven": ["that the run happened"], "nonce": "…"}
"""

from __future__ import annotations

from pydantic import Field

from mlseal.evidence.predicates.base import NAMESPACE, Decimal, Model, Nonce, Sha256, Text

URI = NAMESPACE + "budget-reservation/v0.1"
SHORT = "budget-reservation"


class Owner(Model):
    """Whose budget it is."""

    issuer: str = Field(min_length=1)
    san: str = Field(min_length=1)


class Account(Model):
    """One budget that the run draws on.

    Attributes:
        data_policy: evidence id of the data policy that states the budget.
        cohort: whose privacy it is, as that policy names it; of data without such a name ``sha256:DIGEST``.
        max_epsilon: the budget as it was when this was signed, from the same policy.
    """

    data_policy: Sha256
    owner: Owner
    cohort: str = Field(min_length=1, max_length=200)
    max_epsilon: Decimal
    max_delta: Decimal


class Predicate(Model):
    """Budget reservation v0.1.

    Attributes:
        predicate_type: of the evidence that will say what was spent.
        epsilon: the most that the run gives away of each unit; `delta` alike.
    """

    stage: str
    predicate_type: str
    run_id: str
    epsilon: Decimal
    delta: Decimal
    unit: str = Field(min_length=1, max_length=100)
    accounts: list[Account] = Field(min_length=1, max_length=50)
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce
