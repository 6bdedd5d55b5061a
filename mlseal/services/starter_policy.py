"""The policy that `mlseal init` writes: strict, complete for the authority's own identities, meant to be edited."""

from __future__ import annotations

_TEXT = """\
# What must be proven before a model goes on. Nothing is allowed that no rule below allows, and every verdict records
# the digest of this file. After a change: mlseal policy lint FILE
policy: starter/1
applies:
  - {{tool: mlseal, action: gate}}
  - {{tool: kfp, action: gate}}
  - {{tool: mlflow, action: alias, alias: champion}}
  - {{tool: mlflow, action: load}}
# This authority serves one machine: its identities are as good as that machine's users are apart, its time is its own
# clock, its log has no witness. A key left out would demand the strictest level.
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers: [{{issuer: "https://{name}/issuer", san: "https://{name}/roles/monitor"}}]
gate: [{{issuer: "https://{name}/issuer", san: "https://{name}/roles/gate"}}]
require:
  - predicate: slsa-provenance
    by: [{{issuer: "https://{name}/issuer", san: "https://{name}/roles/producer"}}]
    maxAge: 30d
  - predicate: fairness
    by: [{{issuer: "https://{name}/issuer", san: "https://{name}/roles/evaluator"}}]
    strength: measured
    maxAge: 30d
    when:
      - id: gap
        message: "upper bound of the equalized odds difference"
        check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'
      - id: enough
        message: "positives in the smallest group"
        check: "p.smallestGroupPositives >= 100"
    control: [EU-AI-Act:Art10, NIST-AI-RMF:MEASURE-2.11]
  - predicate: human-approval
    by: [{{issuer: "https://{name}/issuer", role: reviewer}}]
    distinct: 1
"""


def text(name: str) -> str:
    """The policy for authority `name`, as YAML."""
    return _TEXT.format(name=name)
