"""The exact command that would produce what is missing."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from mlseal.evidence.predicates import SHORT
from mlseal.policy.model import Requirement

_COMMANDS = {
    "fairness": "mlseal run governance.fairness --model {path} --dataset DATASET --outcome COLUMN --attribute COLUMN",
    "slsa-provenance": "mlseal run training.run --script SCRIPT --data DATA --out {path}",
    "source-verification": "mlseal run ingestion.source --data {path}",
    "data-provenance": "mlseal dvc push {path}",
    "oms-signature": "mlseal sign {path} --type oms-signature",
    "revocation-snapshot": "mlseal revoke --snapshot",
}


@dataclass(frozen=True)
class Hints:
    """What the judge knows that a command needs: the path that was judged and the policy's file."""

    path: str = "PATH"
    policy_file: str = "POLICY"

    def produce(self, requirement: Requirement, target: str | None = None) -> str:
        """The command that makes the evidence `requirement` asks for, and as whom.

        The policy's own ``remedy`` wins; ``{path}`` in it is replaced.
        """
        path = shlex.quote(target or self.path)
        if requirement.part.remedy is not None:
            return requirement.part.remedy.replace("{path}", path)
        command = _COMMANDS.get(
            requirement.short, "mlseal sign {path} --type " + requirement.short + " --predicate FILE"
        )
        return f"{command.format(path=path)} (as {' or '.join(map(str, requirement.by))})"

    def approve(self, evidence: list[str]) -> str:
        """The command by which a person approves, with what should have been read."""
        listed = "".join(f" --evidence {evidence_id}" for evidence_id in evidence)
        return f"mlseal approve {shlex.quote(self.path)}{listed or ' --evidence EVIDENCE_ID'}"

    def waive(self, rule: str, policy: str) -> str:
        """The command by which a listed person excuses a rule."""
        return f"mlseal waive {shlex.quote(self.path)} --rule {rule} --policy-name {policy} --reason TEXT --days N"

    def own(self) -> str:
        """The command that states who holds which role."""
        return f"mlseal sign {shlex.quote(self.path)} --type ownership --predicate FILE --role owner"


def short_name(predicate_type: str) -> str:
    """The short name of a predicate type, or the URI itself."""
    return next((name for name, uri in SHORT.items() if uri == predicate_type), predicate_type)
