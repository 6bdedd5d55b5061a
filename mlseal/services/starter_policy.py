"""The policy that `mlseal init` writes, and its negative controls.

Strict, complete for the authority's own identities, meant to be edited: whoever changes a rule changes its control.
"""

from __future__ import annotations

from datetime import timedelta

from mlseal.evidence.clock import Clock, rfc3339, utcnow

_EXEMPT = timedelta(days=365)

_TEXT = """\
# What must be proven before a model goes on. Nothing is allowed that no rule below allows, and every verdict records
# the digest of this file. After a change: mlseal policy lint FILE, mlseal policy test FILE.
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
        message: "upper end of the 95 % interval of the equalized odds difference"
        check: 'p.metric("equalizedOddsDifference").level == 0.95 && p.metric("equalizedOddsDifference").ciHigh <= 0.15'
      - id: enough
        message: "positives in the smallest group"
        check: "p.smallestGroupPositives >= 100"
    control: [EU-AI-Act:Art10, NIST-AI-RMF:MEASURE-2.11]
  # The data that fairness was measured on are signed, as 'mlseal dvc push' does: a made-up table proves nothing. This
  # needs git and DVC. When your data are not in DVC, take the rule out, and its parts of policy.tests/controls.yaml:
  # nobody then vouches for the table that was measured on.
  - predicate: data-provenance
    id: measured-data
    of: fairness
    by: [{{issuer: "https://{name}/issuer", san: "https://{name}/roles/producer"}}]
  - predicate: human-approval
    by: [{{issuer: "https://{name}/issuer", role: reviewer}}]
    distinct: 1
# A version that was only registered is a candidate: no alias, no stage, no verdict. After this date, decide again.
ungoverned:
  - {{tool: mlflow, action: create, owner: "who ran mlseal init", until: "{until}"}}
"""

_CONTROLS = """\
# What policy.yaml must stop, is it stopped? Run: mlseal policy test policy.yaml. Change a rule, and change its test.
tests:
  - name: good
    expect: allowed
    evidence:
      - predicate: slsa-provenance
        by: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/producer"}
      - predicate: fairness
        by: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/evaluator"}
        body:
          strength: measured
          dataset: {name: data, digest: {sha256: "{sha256:data}"}}
          smallestGroupPositives: 100
          metrics: [{name: equalizedOddsDifference, value: 0.08, ciLow: 0.01, ciHigh: 0.15, level: 0.95}]
      - id: measured-data
        predicate: data-provenance
        about: data
        by: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/producer"}
      - predicate: human-approval
        by: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/reviewer/ana"}
  - {name: built last season, like: good, expect: undecided, rule: slsa-provenance, ages: {slsa-provenance: 31d}}
  - name: built by the evaluator
    like: good
    expect: refused
    rule: slsa-provenance
    signer: {slsa-provenance: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/evaluator"}}
  - name: provenance withdrawn
    like: good
    expect: refused
    rule: slsa-provenance
    revoked: {slsa-provenance: withdrawn}
  - {name: an interval of one per cent, like: good, expect: refused, rule: gap, set: {fairness.metrics.0.level: 0.01}}
  - name: measured on a foreign table
    like: good
    expect: undecided
    rule: measured-data
    set: {fairness.dataset.digest: {sha256: "{sha256:made-up}"}}
  - name: measured data signed by the evaluator
    like: good
    expect: refused
    rule: measured-data
    signer: {measured-data: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/evaluator"}}
  - name: signature of the data withdrawn
    like: good
    expect: refused
    rule: measured-data
    revoked: {measured-data: withdrawn}
  - {name: the gap is too wide, like: good, expect: refused, rule: gap, set: {fairness.metrics.0.ciHigh: 0.151}}
  - name: the gap was not measured
    like: good
    expect: undecided
    rule: gap
    set: {fairness.metrics.0.name: accuracy}
  - name: two metrics of one name
    like: good
    expect: undecided
    rule: gap
    set:
      fairness.metrics: [{name: equalizedOddsDifference, ciHigh: 0.1}, {name: equalizedOddsDifference, ciHigh: 0.1}]
  - {name: too few positives, like: good, expect: refused, rule: enough, set: {fairness.smallestGroupPositives: 99}}
  - {name: declared only, like: good, expect: undecided, rule: fairness, set: {fairness.strength: declared}}
  - {name: measured last season, like: good, expect: undecided, rule: fairness, ages: {fairness: 31d}}
  - name: measured by the producer
    like: good
    expect: refused
    rule: fairness
    signer: {fairness: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/producer"}}
  - {name: measurement withdrawn, like: good, expect: refused, rule: fairness, revoked: {fairness: withdrawn}}
  - {name: nobody approves, like: good, expect: undecided, rule: human-approval, without: [human-approval]}
  - name: a person says no
    like: good
    expect: refused
    rule: human-approval
    set: {human-approval.decision: reject}
  - name: approval withdrawn
    like: good
    expect: refused
    rule: human-approval
    revoked: {human-approval: withdrawn}
  - name: the evaluator approves
    like: good
    expect: undecided
    rule: human-approval
    signer: {human-approval: {issuer: "https://authority.example/issuer", san: "https://authority.example/roles/evaluator"}}
  - name: nobody looked for revocations since yesterday
    like: good
    expect: undecided
    rule: revocations
    snapshotAge: 25h
"""


def text(name: str, *, clock: Clock = utcnow) -> str:
    """The policy for authority `name`, as YAML; what it exempts, it exempts for a year from now."""
    return _TEXT.format(name=name, until=rfc3339(clock() + _EXEMPT))


def controls(name: str) -> str:
    """What the policy for authority `name` must stop, as YAML for ``policy.tests``."""
    return _CONTROLS.replace("authority.example", name)
