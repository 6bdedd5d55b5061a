"""SLSA verification summary v1: what a gate decided (slsa.dev/spec/v1.1/verification_summary).

``inputAttestations`` is complete: every bundle the verdict rests on, by digest of the bundle file, with the evidence id
as annotation (a bundle can be re-encoded, the evidence id cannot). What SLSA has no field for stands in ``mlseal``,
which foreign verifiers ignore, as the specification allows for extension fields.

Example::

    {"verifier": {"id": "https://mlseal.dev/gate/v0.1"}, "timeVerified": "2026-11-23T04:00:00Z",
     "resourceUri": "mlflow:default/risk-a", "policy": {"uri": "production/3", "digest": {"sha256": "…"}},
     "inputAttestations": [{"digest": {"sha256": "…"}, "annotations": {"evidenceId": "…"}}],
     "verificationResult": "FAILED", "verifiedLevels": [],
     "mlseal": {"verdict": "refused", "treeSize": 17, "reasons": [{"rule": "gap", "message": "…"}]}}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mlseal.evidence.predicates.base import Model, ResourceDescriptor, Sha256, Timestamp

URI = "https://slsa.dev/verification_summary/v1"
SHORT = "slsa-vsa"


class VerifierId(Model):
    """Who judged."""

    id: str
    version: dict[str, str] | None = None


class Reason(Model):
    """One thing that was missing or failed, and what mends it."""

    rule: str
    message: str
    got: str | None = None
    expected: str | None = None
    remedy: str | None = None
    control: list[str] = Field(default_factory=list)


class PolicyReference(Model):
    """One policy that applied."""

    name: str
    sha256: Sha256


class Asked(Model):
    """A decision of an OPA server that a policy demands besides evidence.

    Attributes:
        policy: name of that policy.
        id: how it calls the decision.
        decision: path under ``/v1/data`` of the server.
        input_sha256: of the document that was asked about, in canonical JSON.
        answer: ``none`` when nothing came back that counts; then the verdict is no PASSED.
        revision: of the bundle, by the server's own word; nothing here proves it.
        decision_id: by which the server's own decision log finds it.
    """

    policy: str
    id: str
    server: str
    decision: str
    input_sha256: Sha256
    answer: Literal["allowed", "refused", "none"]
    revision: str | None = None
    decision_id: str | None = None


class Requester(Model):
    """Who asked the gate, as far as it could know. Never a name: the log is for ever.

    Attributes:
        source: what vouched for who it was, such as ``basic-auth``; ``unauthenticated`` when nothing did.
        pseudonym: HMAC-SHA256 of the name under a salt that only the gate's machine has; absent without a name.
    """

    source: str = Field(max_length=40)
    pseudonym: Sha256 | None = None


class Details(Model):
    """The verdict in full, which PASSED and FAILED cannot carry.

    Attributes:
        verdict: three-valued; ``undecided`` is FAILED to a SLSA reader.
        tree_size: of the log up to which every leaf was accounted for.
        assurance: weakest level on each axis among the inputs, computed by the verifier.
        mode: ``observe`` when a policy only watches; then nothing was enforced.
        action: tool, action and facts that were judged.
        nonce: run id or request id, so that a verdict cannot serve another run.
        requester: who asked, where the gate was asked by somebody.
        opa: decisions of OPA servers that policies demanded; the document itself stays with the gate.
    """

    verdict: Literal["allowed", "refused", "undecided"]
    reasons: list[Reason] = Field(default_factory=list)
    policies: list[PolicyReference] = Field(default_factory=list)
    tree_size: int
    assurance: dict[str, str] = Field(default_factory=dict)
    mode: Literal["enforce", "observe"] = "enforce"
    action: dict[str, str] = Field(default_factory=dict)
    nonce: str | None = None
    requester: Requester | None = None
    opa: list[Asked] | None = None


class Predicate(Model):
    """SLSA VSA v1."""

    verifier: VerifierId
    time_verified: Timestamp | None = None
    resource_uri: str
    policy: ResourceDescriptor
    input_attestations: list[ResourceDescriptor] = Field(default_factory=list)
    verification_result: Literal["PASSED", "FAILED"]
    verified_levels: list[str]
    slsa_version: str | None = None
    mlseal: Details | None = None
