"""Whether these bytes may be loaded for this use: the gate's verdict, looked for, verified and compared.

A verdict counts when the gate signed it, it is about exactly these bytes, it was given for this use (the same alias or
stage of the same model in the same workspace), it is the newest such verdict and allows, it is not too old, and neither
it nor the evidence that it rests on was revoked.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse, NoEvidence, Refusal, RuleBroken, StaleEvidence, Withheld
from mlseal.evidence.clock import Clock, utcnow
from mlseal.evidence.digest import EXCLUDED_AT_ROOT, Measured
from mlseal.evidence.identity import Identity, IdentityMatcher
from mlseal_mlflow import beside, names
from mlseal_mlflow.identity import gates

if TYPE_CHECKING:
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.bundle import Bundle
    from mlseal.evidence.revocation import Revocations
    from mlseal.evidence.trust import Trust
    from mlseal.evidence.verifying import VerifiedStatement

TOOL = "mlflow"
_SETTLE = (0.1, 0.3, 0.8)
"""Seconds to wait when the log is ahead of the store: a signer logs an instant before it stores."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Use:
    """What is being loaded, and as what. Without a model name (``m-ID``) any allowing verdict on the bytes will do.

    ``created``: not a load, but whether these bytes were let into the model at all, by creation or renaming.
    """

    pinned_uri: str
    workspace: str
    model: str | None = None
    version: str | None = None
    alias: str | None = None
    stage: str | None = None
    created: bool = False

    @property
    def facts(self) -> dict[str, str]:
        """The facts of action ``load``, and those that a verdict must share."""
        known = {
            "workspace": self.workspace,
            "model": self.model,
            "version": self.version,
            "alias": self.alias,
            "stage": self.stage,
        }
        return {key: value for key, value in known.items() if value is not None}

    def covered_by(self, action: dict[str, str]) -> bool:
        """Whether a verdict on `action` speaks about this use."""
        if action.get("tool") != TOOL:
            return False
        if self.model is None:
            return True
        if action.get("model") != self.model or action.get("workspace") != self.workspace:
            return False
        if self.created:
            return action.get("action") in ("create", "rename")
        if self.alias is not None:
            return action.get("action") == "alias" and action.get("alias") == self.alias
        if self.stage is not None:
            return action.get("action") == "stage" and action.get("stage") == self.stage
        return True


def resolve(uri: str, tracking_uri: str | None, registry_uri: str | None) -> Use:
    """The use that a ``models:`` URI stands for, with alias and stage resolved to one version, once.

    Raises `Misuse` for a spelling that could be mistaken for another.
    """
    from mlflow import MlflowClient
    from mlflow.store.artifact.utils.models import _parse_model_uri, get_model_name_and_version
    from mlflow.utils.workspace_context import get_request_workspace

    workspace = names.canonical(get_request_workspace() or "default")
    parsed = _parse_model_uri(uri)
    if parsed.model_id is not None:
        return Use(uri, workspace)
    key = names.model(workspace, parsed.name)
    alias = None if parsed.alias is None else names.alias(parsed.alias)
    name, version = get_model_name_and_version(MlflowClient(tracking_uri, registry_uri), uri)
    version = names.version(version)
    stage = None if parsed.stage is None else names.canonical(parsed.stage)
    return Use(f"models:/{name}/{version}", workspace, key.name, version, alias, stage)


def storage(uri: str, tracking_uri: str | None, registry_uri: str | None) -> Any:
    """The artifact repository of the version or logged model at `uri` (``models:/NAME/VERSION``, ``models:/m-ID``).

    Asked of the given servers: MLflow's own repository for ``models:`` asks whatever this process uses by default.
    """
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.utils.models import _parse_model_uri

    client = MlflowClient(tracking_uri, registry_uri)
    parsed = _parse_model_uri(uri)
    if parsed.model_id is not None:
        location = client.get_logged_model(parsed.model_id).artifact_location
    else:
        location = client.get_model_version_download_uri(parsed.name, parsed.version)
    return get_artifact_repository(location, tracking_uri=tracking_uri, registry_uri=registry_uri)


def fetch(uri: str, private: Path, tracking_uri: str | None, registry_uri: str | None) -> Path:
    """The whole model at `uri`, copied into `private`. Raises `Refusal` when storage lends its own place."""
    target = private / "model"
    target.mkdir(mode=0o700)
    got = storage(uri, tracking_uri, registry_uri).download_artifacts("", os.fspath(target))
    model = Path(os.path.realpath(got))
    if not model.is_relative_to(os.path.realpath(target)):
        raise Refusal("storage did not give a copy", got=str(model), expected=f"a directory inside {target}")
    return model


def set_aside(model: Path, private: Path) -> Path:
    """Take what no digest counts out of the copy; returns the directory that holds the bundles found there."""
    aside = private / "evidence"
    aside.mkdir(mode=0o700)
    for name in EXCLUDED_AT_ROOT:
        if os.path.lexists(model / name):
            shutil.move(model / name, aside / name)
    return aside / "attestations"


def require_allowed(measured: Measured, use: Use, evidence: Path, *, clock: Clock = utcnow) -> None:
    """Raise unless `measured` may be loaded for `use`; see the module.

    Args:
        measured: of the copy that will be loaded.
        use: what was asked for.
        evidence: directory with bundles that lay beside the model; untrusted, may be missing.
        clock: the injected clock.
    """
    from mlseal.evidence import store, trust
    from mlseal.evidence.archive import Archive

    archive = Archive.open(trust.resolve(), store.resolve(), clock=clock)
    found = [*beside.bundles(evidence)]
    for pause in (*_SETTLE, None):
        archive.refresh()
        try:
            if not _judged_by_policy(measured, use, archive, clock):
                require_verdict(measured, use, archive, found, clock=clock)
        except Withheld:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def _judged_by_policy(measured: Measured, use: Use, archive: Archive, clock: Clock) -> bool:
    """Judge action ``load`` where a policy of this user or machine, or a layer beneath, governs it; False else."""
    from mlseal.policy import gate, load
    from mlseal.policy.layers import with_layers
    from mlseal.policy.names import Action, canonical_facts
    from mlseal.policy.remedies import Hints
    from mlseal.policy.verdict import raise_for

    policies = load.in_force()
    action = Action(TOOL, "load", use.facts)
    facts, now = canonical_facts(action), clock()
    if not any(policy.applies(facts) or any(policy.frozen(facts, now)) for policy in with_layers(policies)):
        return False
    raise_for(gate.judge(measured, action, policies, archive, clock=clock, hints=Hints(path=measured.name)))
    return True


def require_verdict(
    measured: Measured, use: Use, archive: Archive, shown: Sequence[Bundle] = (), *, clock: Clock = utcnow
) -> VerifiedStatement:
    """The newest verdict of the gate on these bytes for this use; raises unless it allows."""
    from mlseal.evidence.predicates import slsa_vsa

    trusted = gates(archive.trust)
    revocations = _revocations(archive, trusted)
    bundles = {
        b.evidence_id: b for b in (*beside.parsed(shown), *archive.candidates([measured.sha256], [slsa_vsa.URI]))
    }
    found = []
    for bundle in bundles.values():
        said = _verified(bundle, measured, archive, trusted, revocations)
        if said is not None and use.covered_by(_details(said).action):
            found.append(said)
    if not found:
        raise NoEvidence(
            "the gate never allowed these bytes for this use",
            got=f"sha256:{measured.sha256}",
            expected=f"a verdict of {trusted[0].san} on {_text(use)}",
            remedy="if it was approved, its storage changed since: restore it; else promote it through the registry",
        )
    newest = _newest(found)
    _require_passed(newest, use)
    if not use.created:  # that happened once, and cannot be done again
        _require_fresh(newest, clock)
    _require_inputs_standing(newest, revocations)
    return newest


def _newest(found: Iterable[VerifiedStatement]) -> VerifiedStatement:
    """The newest verdict on one action.

    Where several actions cover the use (a version under two aliases), an allowing one goes before the others.
    """
    latest: dict[tuple[tuple[str, str], ...], VerifiedStatement] = {}
    for said in sorted(found, key=lambda said: (said.time, said.log.index)):
        action = {key: value for key, value in _details(said).action.items() if key != "version"}
        latest[tuple(sorted(action.items()))] = said
    return max(latest.values(), key=lambda said: (_details(said).verdict == "allowed", said.time))


def _verified(
    bundle: Bundle, measured: Measured, archive: Archive, trusted: Sequence[Identity], revocations: Revocations
) -> VerifiedStatement | None:
    """The verified verdict, or None for what the gate did not sign or what is about other bytes.

    What the log says the gate signed must verify or stop: a spoilt copy would hide a later refusal.
    """
    from mlseal.evidence.predicates import slsa_vsa

    if bundle.statement.predicate_type != slsa_vsa.URI:
        return None
    if measured.sha256 not in {subject.sha256 for subject in bundle.statement.subjects}:
        return None
    if not archive.signed_by(bundle.evidence_id, trusted):
        return None
    return archive.verifier.verify(
        bundle,
        predicate_type=slsa_vsa.URI,
        identities=trusted,
        subjects=[subject.sha256 for subject in measured.subjects],
        revocations=revocations,
    )


def _details(said: VerifiedStatement) -> slsa_vsa.Details:  # type: ignore[name-defined]  # noqa: F821
    from mlseal.evidence.predicates import slsa_vsa

    assert isinstance(said.predicate, slsa_vsa.Predicate)
    if said.predicate.mlseal is None:
        return slsa_vsa.Details(verdict="undecided", tree_size=0)
    return said.predicate.mlseal


def _require_passed(said: VerifiedStatement, use: Use) -> None:
    from mlseal.evidence.predicates import slsa_vsa

    assert isinstance(said.predicate, slsa_vsa.Predicate)
    if said.predicate.verification_result != "PASSED":
        reasons = "; ".join(reason.message for reason in _details(said).reasons)
        raise RuleBroken(
            f"the gate's newest verdict on {_text(use)} does not allow it",
            got=reasons or "FAILED",
            remedy="promote it again once the evidence holds",
        )


def _require_fresh(said: VerifiedStatement, clock: Clock) -> None:
    oldest = max_age()
    age = clock() - said.time
    if age > oldest:
        raise StaleEvidence(
            "the gate's verdict is too old",
            got=f"{age.days} days",
            expected=f"at most {oldest}",
            remedy="promote the model again, or set MLSEAL_MLFLOW_MAX_AGE",
        )


def _require_inputs_standing(said: VerifiedStatement, revocations: Revocations) -> None:
    from mlseal.evidence.predicates import slsa_vsa

    assert isinstance(said.predicate, slsa_vsa.Predicate)
    for rests_on in said.predicate.input_attestations:
        evidence_id = (rests_on.annotations or {}).get("evidenceId")
        if evidence_id is None:
            raise Refusal("the gate's verdict does not say what it rests on", expected="an evidenceId for each input")
        revocations.require_not_revoked(str(evidence_id))


@dataclass(frozen=True)
class _Local:
    """Anyone whom the authority's own issuer vouches for. Taking evidence back only ever closes a load."""

    trust: Trust

    def matches(self, other: Identity) -> bool:
        return self.trust.local_issuer(other.issuer)


def _revocations(archive: Archive, trusted: Sequence[Identity]) -> Revocations:
    """What was taken back, by a gate or by anyone of the authority's own.

    Raises `Withheld` for a leaf of theirs that nobody shows, for it might be a revocation; unless its own signer, a
    gate or a monitor took it back. Anyone else who could would hide with it what closes a load.
    """
    from mlseal.evidence.trust import LocalRole

    revokers: list[IdentityMatcher] = [*trusted, _Local(archive.trust)]
    revocations = archive.revocations(revokers)
    trusted_to_account: list[IdentityMatcher] = [*trusted, LocalRole(archive.trust, "monitor")]
    for leaf in archive.unresolved():
        mine = any(matcher.matches(leaf.identity) for matcher in revokers)
        if mine and not archive.accounted(leaf, trusted_to_account):
            raise Withheld(
                "the log holds evidence that nobody shows, and it might be a revocation",
                got=f"leaf {leaf.index} by {leaf.identity.san}",
                remedy=f"set MLSEAL_STORE to the store that holds evidence {leaf.evidence_id[:16]}…",
            )
    return revocations


def max_age() -> timedelta:
    """How old a verdict may be: ``$MLSEAL_MLFLOW_MAX_AGE`` such as ``12h`` or ``30d`` (the default)."""
    text = os.environ.get("MLSEAL_MLFLOW_MAX_AGE", "30d")
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if match is None:
        raise Misuse("MLSEAL_MLFLOW_MAX_AGE cannot be read", got=text[:40], expected="a number and s, m, h or d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _text(use: Use) -> str:
    if use.model is None:
        return use.pinned_uri
    suffix = f"@{use.alias}" if use.alias else f"/{use.stage}" if use.stage else f"/{use.version}"
    return f"{use.workspace}/{use.model}{suffix}"
