"""The policy that `mlseal init` writes: strict, complete for the authority's own identities, meant to be edited."""

from __future__ import annotations

_TEXT = """\
# Policy of {name}. Nothing is allowed that no rule below allows; every verdict records this file's digest.
# Check it with: mlseal policy lint {{this file}}
policy: starter/1
applies:
  - {{tool: mlflow, action: alias, alias: champion, model: "*", workspace: "*"}}
  - {{tool: kfp, action: gate, model: "*", workspace: "*"}}
  - {{tool: cli, action: gate, model: "*", workspace: "*"}}
# This authority runs on one machine: identities are as good as its users are apart, and time is its own clock. An
# absent key would demand the strictest level.
assurance: {{identity: local, log: pinned, time: local}}
revocationMaxAge: 24h
revokers:
  - {{issuer: "https://{name}/issuer", san: "https://{name}/roles/monitor"}}
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
        message: "the interval of the equalized odds difference reaches over 0.15"
        check: 'p.metric("equalizedOddsDifference").ciHigh <= 0.15'
      - id: enough
        message: "fewer than 100 positives in the smallest group"
        check: "p.smallestGroupPositives >= 100"
    control: [EU-AI-Act:Art10, NIST-AI-RMF:MEASURE-2.11]
  - predicate: human-approval
    by: [{{issuer: "https://{name}/issuer", san: "https://{name}/roles/reviewer/*"}}]
    distinct: 1
"""


def text(name: str) -> str:
    """The policy for authority `name`, as YAML."""
    return _TEXT.format(name=name)
