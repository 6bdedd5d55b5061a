"""The exact command that would produce what is missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from mlseal.evidence.identity import Identity, RoleMember
from mlseal.evidence.predicates import SHORT
from mlseal.policy.model import Matcher, Requirement

_COMMANDS = {
    "fairness": "mlseal run governance.fairness --model {path} --dataset DATASET --outcome COLUMN --attribute COLUMN",
    "slsa-provenance": "mlseal run training.run --script SCRIPT --data DATA --out {path}",
    "source-verification": "mlseal run ingestion.source --dataset {path} --issuer ISSUER --san SAN",
    "data-provenance": "mlseal dvc push {path}",
    "oms-signature": "mlseal sign {path} --type oms-signature",
    "revocation-snapshot": "mlseal revoke --snapshot",
}
_ROLE = re.compile(r"https://[^/]+/roles/(.+)")


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
        general = f"mlseal sign {{path}} --type {requirement.short} --predicate FILE"
        return _as(_COMMANDS.get(requirement.short, general).format(path=path), requirement.by)

    def approve(self, evidence: list[str], by: Sequence[Matcher]) -> str:
        """The command by which a person approves, with what should have been read."""
        listed = "".join(f" --evidence {evidence_id}" for evidence_id in evidence) or " --evidence EVIDENCE_ID"
        return _as(f"mlseal approve {shlex.quote(self.path)}{listed}", by)

    def waive(self, rule: str, by: Sequence[Matcher]) -> str:
        """The command by which a listed person excuses a rule."""
        where = f"{shlex.quote(self.path)} --rule {rule} --policy {shlex.quote(self.policy_file)}"
        return _as(f"mlseal waive {where} --reason TEXT --days N", by)

    def own(self, by: Sequence[Matcher]) -> str:
        """The command that states who holds which role."""
        return _as(f"mlseal sign {shlex.quote(self.path)} --type ownership --predicate FILE", by)


def supersede(evidence_id: str, by: Sequence[Matcher]) -> str:
    """The command by which a listed revoker sets an older result aside."""
    return _as(f"mlseal revoke {evidence_id} --reason superseded", by)


def short_name(predicate_type: str) -> str:
    """The short name of a predicate type, or the URI itself."""
    return next((name for name, uri in SHORT.items() if uri == predicate_type), predicate_type)


def _as(command: str, by: Sequence[Matcher]) -> str:
    """`command` for one of `by`: with ``--role`` where the first is a role of a private authority, else in words."""
    if by and isinstance(by[0], RoleMember):
        return f"{command} --role {by[0].role}/NAME"
    found = _ROLE.fullmatch(by[0].san) if by and isinstance(by[0], Identity) else None
    if found:
        return f"{command} --role {found[1]}"
    return command + (f" (as {' or '.join(map(str, by))})" if by else "")
