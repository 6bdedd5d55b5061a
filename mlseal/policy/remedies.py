"""The exact command that would produce what is missing.

What only the reader can know stands in capitals: a script, a column, the path of what provenance names by digest alone.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlseal.evidence.identity import Identity, RoleMember
from mlseal.evidence.keyholder import KeyHolder
from mlseal.evidence.predicates import SHORT
from mlseal.policy.model import Matcher, Policy, Requirement
from mlseal.policy.schema import patterns

if TYPE_CHECKING:
    from mlseal.policy.facts import Target

STAGES: Mapping[str, Mapping[str, str]] = {
    "cyclonedx": {"governance.model_card": "--model {path} --signers SAN=ISSUER --out CARD"},
    "data-anomaly-scan": {"ingestion.poisoning": "--dataset {path} --label COLUMN"},
    "dp-training": {
        "training.dp": "--dataset DATA --out NEW --outcome COLUMN --features COLUMNS --unit-column COLUMN --epsilon E"
    },
    "drift": {"monitoring.drift": "--model {path} --reference DATA --stream STREAM --columns COLUMNS"},
    "fairness": {"governance.fairness": "--model {path} --dataset DATASET --outcome COLUMN --attribute COLUMN"},
    "federated-training": {"training.federated": "--dataset DATA --out NEW --outcome COLUMN --features COLUMNS"},
    "guard-evaluation": {
        "inference.guard": "--model {path} --requests FILE --guard-url URL --upstream-url URL",
    },
    "he-computation": {"training.encrypted_scoring": "--model {path} --dataset DATA --out NEW"},
    "pii-scan": {"ingestion.pii": "--dataset {path}"},
    "security-evaluation": {
        "testing.evasion": "--model {path} --dataset HELD --outcome COLUMN",
        "testing.membership": "--model {path} --members DATA --holdout HELD --outcome COLUMN",
        "testing.hardening": "--model {path} --training DATA --holdout HELD --hardened NEW --outcome COLUMN",
    },
    "slsa-provenance": {"training.run": "--script SCRIPT --data DATA --out NEW"},
    "source-verification": {"ingestion.source": "--dataset {path} --issuer ISSUER --san SAN"},
    "test-result": {
        "ingestion.validation": "--dataset {path} --suite SUITE",
        "testing.code": "--code {path} --report NEW",
        "testing.model_file": "--model {path} --report NEW",
    },
    "vulns": {"testing.dependencies": "--model {path}"},
}
"""Type → the stages that make its evidence, each with what it needs. A test compares them with the registry, which
policy does not know."""
COMMANDS = {
    "data-provenance": "mlseal dvc push {path}",
    "oms-signature": "mlseal sign {path} --type oms-signature",
    "revocation-snapshot": "mlseal revoke --snapshot",
}
"""What else makes evidence of a type; for every other type one signs a predicate that a tool wrote."""
_OPEN = frozenset({"test-result"})  # anybody's tool may make it: a stage is meant only where a rule names it
_KINDS = {
    "evasion": "testing.evasion",
    "membership-inference": "testing.membership",
    "hardening": "testing.hardening",
}
_ASKED = re.compile(r"""\.(?:kind|name)\s*==\s*["']([a-z]+(?:[.-][a-z0-9_]+)*)["']""")
_AFTER = {  # what exists already was made unseen: nobody can sign for it now
    "slsa-provenance": ", then judge NEW",
    "dp-training": ", then judge NEW",
    "federated-training": ", then judge NEW",
}
_SHOWN = 6  # patterns of policies in one message
_ROLE = re.compile(r"https://[^/]+/roles/(.+)")


@dataclass(frozen=True)
class Hints:
    """What the judge knows that a command needs: the path that was judged and the policy's file."""

    path: str = "PATH"
    policy_file: str = "POLICY"

    def produce(self, requirement: Requirement, target: Target | None = None) -> str:
        """The command that makes the evidence `requirement` asks for, and as whom.

        The policy's own ``remedy`` wins; ``{path}`` in it is replaced. `target` is an input that evidence names: its
        path is not known here, so the command says DATASET and by which digest to recognize it.
        """
        path, which = self._named(target)
        if requirement.part.remedy is not None:
            return requirement.part.remedy.replace("{path}", path) + which
        commands = [_as(one.format(path=path), requirement.by) for one in _making(requirement)]
        return "; or ".join(commands) + _AFTER.get(requirement.short, "") + which

    def approve(self, evidence: list[str], by: Sequence[Matcher], target: Target | None = None) -> str:
        """The command by which a person approves, with what should have been read."""
        path, which = self._named(target)
        listed = "".join(f" --evidence {evidence_id}" for evidence_id in evidence) or " --evidence EVIDENCE_ID"
        return _as(f"mlseal approve {path}{listed}", by) + which

    def waive(self, rule: str, by: Sequence[Matcher], target: Target | None = None) -> str:
        """The command by which a listed person excuses a rule."""
        path, which = self._named(target)
        where = f"{path} --rule {rule} --policy {shlex.quote(self.policy_file)}"
        return _as(f"mlseal waive {where} --reason TEXT --days N", by) + which

    def own(self, by: Sequence[Matcher]) -> str:
        """The command that states who holds which role."""
        return _as(f"mlseal sign {shlex.quote(self.path)} --type ownership --predicate FILE", by)

    def show(self, policy: str) -> str:
        """The command that prints what an OPA server is shown for a policy."""
        return f"mlseal policy input {shlex.quote(self.path)} --policy {shlex.quote(self.policy_file)} --of {policy}"

    def govern(self, action: Mapping[str, str]) -> str:
        """How an action comes under a policy, and the command that then says what the policy wants."""
        where = f"mlseal explain {shlex.quote(self.path)} --policy {shlex.quote(self.policy_file)}"
        if not action:
            return f"name a policy that requires something: {where}"
        rest = {key: value for key, value in action.items() if key not in {"tool", "action"}}
        entry = json.dumps(dict(action))
        facts = "".join(f" --fact {shlex.quote(f'{key}={value}')}" for key, value in sorted(rest.items()))
        asked = f"--action {shlex.quote(action['tool'] + '/' + action['action'])}"
        listed = f"list {entry} under applies of a policy, or under ungoverned with owner and until"
        return f"{listed}; then {where} {asked}{facts}"

    def _named(self, target: Target | None) -> tuple[str, str]:
        """How a command names `target`, and what the reader must know of it."""
        if target is None:
            return shlex.quote(self.path), ""
        return "DATASET", f" where DATASET is {target.name} (sha256 {target.sha256})"


def nearest(policies: Sequence[Policy], facts: Mapping[str, str]) -> str:
    """What `policies` apply to, the likest to an action of these canonical facts first: a name is often misspelt.

    Empty where there is no action or no policy.
    """
    applied = {_action(patterns(entry)): None for policy in policies for entry in policy.part.applies or ()}
    if not facts or not applied:
        return ""
    wanted = _action(facts)
    likeness = {one: difflib.SequenceMatcher(None, wanted, one).ratio() for one in applied}
    told = sorted(applied, key=lambda one: -likeness[one])
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f"; theirs, the closest first: {', '.join(told[:_SHOWN])}{more}"


def _action(facts: Mapping[str, str]) -> str:
    """As one types it: ``mlflow/alias alias=champion``."""
    rest = [f"{key}={value}" for key, value in sorted(facts.items()) if key not in {"tool", "action"}]
    return " ".join([f"{facts['tool']}/{facts['action']}", *rest])


def _making(requirement: Requirement) -> list[str]:
    """What makes the evidence: the stage that the conditions name or whose kind they name, or all that could."""
    short = requirement.short
    stages = STAGES.get(short, {})
    conditions = [requirement.part.where or "", *(one.check for one in requirement.part.when or ())]
    named = {_KINDS.get(name, name) for text in conditions for name in _ASKED.findall(text)}
    asked = {name for name in named if "." in name}  # the rest are names of metrics and tests
    meant = [name for name in stages if name in asked] or ([] if asked or short in _OPEN else list(stages))
    if meant:
        return [f"mlseal run {name} {stages[name]}" for name in meant]
    return [COMMANDS.get(short, f"mlseal sign {{path}} --type {short} --predicate FILE")]


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
    if by and isinstance(by[0], KeyHolder):
        return f"{command} --key URI, where URI opens the key {by[0].fingerprint}"
    found = _ROLE.fullmatch(by[0].san) if by and isinstance(by[0], Identity) else None
    if found:
        return f"{command} --role {found[1]}"
    return command + (f" (as {' or '.join(map(str, by))})" if by else "")
