"""Which repositories are protected, and who may sign their data. Both decided outside of the repository.

A repository is protected when any of these says so:

* a committed marker, ``.dvc/mlseal.json``: it can switch protection on for everyone who clones;
* this clone's git configuration, ``mlseal.dvc = required``, set by ``mlseal dvc install``: a branch that deletes the
  marker changes nothing here;
* a policy of this user or machine whose ``applies`` matches ``tool: dvc`` and the repository;
* a strict remote (`scheme`): nothing switches that off.

Who may sign comes from the command line, or from the policy: the entries for ``tool: dvc`` with a requirement for
``data-provenance``. The marker names nobody. Protected and nobody named means: stop.

Facts that a policy can match: ``tool: dvc``, ``action: push | pull``, ``output`` (path from the git root) and
``repository`` (URL of ``origin`` without credentials).
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import NotInitialised, RuleBroken, StaleEvidence, Unchecked
from mlseal.evidence import paths
from mlseal.evidence.clock import SKEW
from mlseal.evidence.identity import IdentityMatcher
from mlseal.evidence.keyholder import listed
from mlseal_dvc import gitstate, scheme
from mlseal_dvc.pointers import Pointer
from mlseal_dvc.session import Session

if TYPE_CHECKING:
    from mlseal.evidence.verifying import VerifiedStatement
    from mlseal.policy.model import Policy, Requirement
    from mlseal.policy.verdict import Reason

MARKER = "mlseal.json"
CONFIG_KEY = "mlseal.dvc"
NAMES_KEY = "mlseal.names"
REQUIRED = "required"
COMMITTED = "committed"


def _anything(_: VerifiedStatement) -> None:
    return


@dataclass(frozen=True)
class Rule:
    """What one policy, or the command line, demands of an output's evidence.

    Attributes:
        name: for messages.
        identities: who may have signed; not empty.
        require: raises unless the verified statement satisfies the rest (age, assurance, conditions).
    """

    name: str
    identities: tuple[IdentityMatcher, ...]
    require: Callable[[VerifiedStatement], None] = field(default=_anything)


class Governance:
    """The decisions in force for one DVC repository."""

    def __init__(self, repo: Any, session: Session) -> None:
        self._session, self._repo = session, repo
        self._marked = _marked(repo)
        self._strict = scheme.demanded(repo)
        self._configured = gitstate.has_git(repo) and _configured(repo.scm.root_dir)
        self._repository = gitstate.state(repo, None)[2] if gitstate.has_git(repo) else None
        self.policies: tuple[Policy, ...] = () if session.identities else load_policies(session)

    @property
    def names(self) -> str | None:
        """``committed`` if this clone or the tree asks for it (`names`); neither can ask for less."""
        asked = self._marked_names == COMMITTED or (
            gitstate.has_git(self._repo) and _config(self._repo.scm.root_dir, NAMES_KEY) == COMMITTED
        )
        return COMMITTED if asked else None

    @property
    def configured(self) -> bool:
        """Whether this clone's git configuration demands evidence."""
        return self._configured

    @property
    def _marked_names(self) -> object:
        if not self._marked:
            return None
        from mlseal.evidence import canonical

        fs = self._repo.fs
        with fs.open(fs.join(self._repo.dvc_dir, MARKER), "rb") as file:
            marker = canonical.parse(file.read(), what=f".dvc/{MARKER}", limit=64 * 1024)
        return marker.get("names") if isinstance(marker, dict) else None

    @property
    def protected(self) -> bool:
        """Whether anything demands evidence here."""
        asked = self._session.forced or self._marked or self._configured or self._strict
        return bool(asked or self.applicable("pull") or any(self._frozen(action, None) for action in ("push", "pull")))

    def rules(self, pointer: Pointer, action: str) -> tuple[Rule, ...]:
        """Every rule that the evidence about `pointer` has to satisfy, all of them.

        Raises:
            NotInitialised: nobody is named who may sign this output.
            RuleBroken: a window is closed for `action`.
            Unchecked: a policy demands evidence of a kind that only a gate can judge.
        """
        if self._session.identities:
            return (Rule("the command line", self._session.identities),)
        require_open(self._frozen(action, pointer.path))
        policies = self.applicable(action, pointer.path)
        if not policies:
            raise NotInitialised(
                f"nobody is named who may sign {pointer.path}",
                expected=f"a policy for tool: dvc in $MLSEAL_POLICY or {paths.config_dir()}/policy.yaml",
                remedy="write one, or name the signer: mlseal dvc pull --identity SAN --issuer URL",
            )
        return rules_of(policies, self._session)

    def of_source(self, url: str | None) -> Governance:
        """The same policies as they judge another repository, which data are imported from."""
        other = copy.copy(self)
        origin = gitstate.run(url, "remote", "get-url", "origin", check=False) if url and Path(url).is_dir() else None
        other._repository = gitstate.without_credentials(origin or url) if url else None
        return other

    def signers_known(self, action: str) -> bool:
        """Whether anybody is named at all, for any output."""
        return bool(self._session.identities or self.applicable(action))

    def applicable(self, action: str, path: str | None = None) -> list[Policy]:
        """The policies that govern `action`, on `path` or on anything."""
        if not self.policies:
            return []
        from mlseal.policy.layers import governing

        return list(governing(self.policies, self.facts(action, path)))

    def _frozen(self, action: str, path: str | None) -> list[Reason]:
        """Why `action` is closed now, by each window that covers it."""
        if not self.policies:
            return []
        from mlseal.policy import dates

        return [why for _, why in dates.refusals(self.policies, self.facts(action, path), self._session.clock())]

    def facts(self, action: str, path: str | None) -> Mapping[str, str]:
        """Canonical facts. One without a canonical form is left out, which policies read as "covered"."""
        if not self.policies:
            return {}
        from mlseal.policy.names import canonical

        stated = {"tool": "dvc", "action": action, "output": path, "repository": self._repository}
        facts = {}
        for name, value in stated.items():
            try:
                facts[name] = canonical(value or "")
            except ValueError:
                continue
        return facts


def rules_of(policies: Sequence[Policy], session: Session) -> tuple[Rule, ...]:
    """Every rule of `policies` that is in force. Raises `Unchecked` for what only a gate can judge."""
    now = session.clock()
    for policy in policies:
        if policy.engines:
            raise Unchecked(
                f"policy {policy.name} asks an OPA server, which DVC's adapter does not",
                got=", ".join(engine.id for engine in policy.engines),
                expected="a policy for tool: dvc without opa",
                remedy="judge it with 'mlseal gate', or move opa to another policy",
            )
    rules = [_rule(policy, requirement, session) for policy in policies for requirement in policy.binding(now)]
    if not rules:
        raise Unchecked(
            "no policy that governs this is in force yet",
            got=", ".join(policy.name for policy in policies),
            expected="a requirement whose effectiveOn has come",
            remedy="wait for the date, or keep the policy before it in force until then",
        )
    return tuple(rules)


def require_open(closed: Sequence[Reason]) -> None:
    """Raise `RuleBroken` if a window is closed."""
    for why in closed:
        raise RuleBroken(why.message, got=why.got, expected=why.expected, remedy=why.remedy)


def load_policies(session: Session) -> tuple[Policy, ...]:
    """The policies of this user and machine; none is not an error here. Raises `PolicyInvalid` for a broken one."""
    named = session.policy or os.environ.get("MLSEAL_POLICY")
    bases = (paths.config_dir(), paths.machine_config_dir())
    usual = [base / name for base in bases for name in ("policy.yaml", "policy.pins.json")]
    if not named and not any(file.is_file() for file in usual):
        return ()  # without a policy nothing heavy is imported: most repositories are not protected
    from mlseal.policy.load import in_force

    return in_force([session.policy] if session.policy else ())


def mark(root: Path, names: str | None) -> Path:
    """Write the marker of the DVC repository at `root`, if it is not there or `names` is to change; where it is."""
    from mlseal.evidence.bundle import write_atomic

    path = root / ".dvc" / MARKER
    if not path.exists() or names is not None:
        asked = {"names": COMMITTED} if names == COMMITTED else {}
        write_atomic(path, json.dumps({"protected": True, **asked}).encode() + b"\n")
    return path


def ask_for_names(repository: Path, names: str) -> str:
    """Set in this clone's git configuration how evidence writes names; gives `names` back."""
    if names == COMMITTED:
        gitstate.run(repository, "config", "--local", NAMES_KEY, COMMITTED)
    else:
        gitstate.run(repository, "config", "--local", "--unset-all", NAMES_KEY, check=False)
    return names


def _marked(repo: Any) -> bool:
    """Whether the tree that DVC reads, the workspace or a revision, holds the marker."""
    return bool(repo.dvc_dir) and bool(repo.fs.exists(repo.fs.join(repo.dvc_dir, MARKER)))


def _configured(directory: str) -> bool:
    return _config(directory, CONFIG_KEY) == REQUIRED


def _config(directory: str, key: str) -> str | None:
    return gitstate.run(directory, "config", "--local", "--get", key, check=False)


def _rule(policy: Policy, requirement: Requirement, session: Session) -> Rule:
    from mlseal.evidence.predicates import data_provenance

    part = requirement.part
    beyond = [key for key in ("of", "input", "distinct", "not_by", "reviewed") if getattr(part, key) is not None]
    if requirement.predicate_type != data_provenance.URI or beyond:
        raise Unchecked(
            f"policy {policy.name} demands {requirement.id} of data, which DVC's adapter cannot judge",
            expected="data-provenance with by, maxAge, assurance and when",
            remedy="judge it with 'mlseal gate', or move the requirement to another policy",
        )

    def require(verified: VerifiedStatement) -> None:
        _require_signer(policy, requirement, verified)
        _require_age(policy, requirement, verified, session)
        _require_assurance(policy, requirement, verified)
        _require_conditions(policy, requirement, verified, session)

    return Rule(f"policy {policy.name}", tuple(requirement.by), require)


def _require_signer(policy: Policy, requirement: Requirement, verified: VerifiedStatement) -> None:
    if not listed(requirement.by, verified.identity, verified.time):
        raise RuleBroken(
            f"policy {policy.name} does not list this signer",
            got=str(verified.identity),
            expected=" or ".join(map(str, requirement.by)),
        )


def _require_age(policy: Policy, requirement: Requirement, verified: VerifiedStatement, session: Session) -> None:
    limit = requirement.part.max_age
    age = session.clock() - verified.time
    if limit is not None and age > limit + SKEW:
        raise StaleEvidence(
            f"provenance is older than policy {policy.name} allows",
            got=f"{age.days} d",
            expected=f"at most {limit}",
            remedy="have the owner sign again: mlseal dvc sign --again",
        )


def _require_assurance(policy: Policy, requirement: Requirement, verified: VerifiedStatement) -> None:
    from mlseal.evidence.verifying import IDENTITY_LEVELS, LOG_LEVELS, TIME_LEVELS

    wanted, got = policy.assurance_of(requirement), verified.assurance
    axes: Sequence[tuple[str, tuple[str, ...]]] = (
        ("identity", IDENTITY_LEVELS),
        ("log", LOG_LEVELS),
        ("time", TIME_LEVELS),
    )
    for axis, levels in axes:
        has, needs = getattr(got, axis), getattr(wanted, axis)
        if levels.index(has) < levels.index(needs):
            raise Unchecked(
                f"policy {policy.name} wants more {axis} assurance",
                got=has,
                expected=f"at least {needs}",
                remedy=f"state 'assurance: {{{axis}: {has}}}' in the policy if that is enough here",
            )


def _require_conditions(
    policy: Policy, requirement: Requirement, verified: VerifiedStatement, session: Session
) -> None:
    fields = verified.statement.predicate
    moments = {"now": session.clock(), "signed_on": verified.time}
    if requirement.where is not None and requirement.where.evaluate(fields, **moments).holds is False:
        return
    for rule in requirement.rules:
        answer = rule.condition.evaluate(fields, **moments)
        if answer.holds is None:
            raise Unchecked(f"{policy.name} {rule.id}: {rule.message}", got=answer.problem)
        if not answer.holds:
            raise RuleBroken(f"{policy.name} {rule.id}: {rule.message}", got=answer.got)
