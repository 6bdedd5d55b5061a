"""Policy release: an owner says that a file is the next version of a policy, or that an earlier one is in force again.

The subject is the file of the policy, under the policy's name. `serial` only rises: a verifier that has seen a higher
one, by the same owners for the same policy, does not go back. So a rollback is a release as well, of older bytes, under
a higher number, with a reason.

Example::

    {"policy": "production-clinical/3", "serial": 5, "act": "rollback", "replaces": "…",
     "reason": "the new threshold stopped every model", "notProven": ["that the policy asks for the right thing"],
     "nonce": "…"}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlseal.evidence.predicates.base import NAMESPACE, Model, Nonce, Sha256, Text

URI = NAMESPACE + "policy-release/v0.1"
SHORT = "policy-release"


class Predicate(Model):
    """Policy release v0.1: of the subject's bytes as version ``serial`` of ``policy``, in place of ``replaces``."""

    policy: Text
    serial: Annotated[int, Field(ge=1, le=1_000_000)]
    act: Literal["release", "rollback"]
    replaces: Sha256 | None = None
    reason: Text | None = None
    not_proven: list[Text] = Field(min_length=1)
    nonce: Nonce

    @model_validator(mode="after")
    def _reasoned(self) -> Predicate:
        if self.act == "rollback" and not (self.replaces and self.reason and self.reason.strip()):
            raise ValueError("a rollback names what it replaces, and why")
        return self
