"""Finding what slipped past the gate: promotions that no standing verdict covers.

Some doors no registry store can close (``docs/mlflow.md``): a workspace dissolved into another, SQL, a second server
without the plugin. This reads a registry over REST as any client does, in every workspace that its login may see, and
asks what a loader would ask: of every alias, of every version in a live stage, and of every version of a model whose
creation a policy governs. It detects and, where told to, demotes; between two runs it protects nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlseal.errors import Error, NoEvidence, Refusal, Unreadable
from mlseal_mlflow import listing
from mlseal_mlflow.listing import Held, current, inside

if TYPE_CHECKING:
    from pathlib import Path

    from mlseal.evidence.digest import Measured
    from mlseal.policy.model import Policy


@dataclass(frozen=True)
class Finding:
    """One promotion, and why it must not stand; ``error`` is None when it may.

    ``what`` is ``alias``, ``stage`` or ``create``, and ``value`` its name; of a creation, the version's source.
    """

    model: str
    version: str
    what: str
    value: str
    error: Error | None
    workspace: str = "default"
    taken_back: bool = False

    def to_dict(self) -> dict[str, object]:
        """For ``--json``."""
        found = {"workspace": self.workspace, "model": self.model, "version": self.version, self.what: self.value}
        reason = str(self.error) if self.error else None
        return {**found, "stands": self.error is None, "reason": reason, "takenBack": self.taken_back}


def registry(url: str) -> Any:
    """A client of the registry at `url`. MLflow's public client hides prompts; the one below it does not."""
    from mlflow.tracking._model_registry.client import ModelRegistryClient

    return ModelRegistryClient(url, url)


def check(
    client: Any,
    *,
    tracking_uri: str,
    only: str | None = None,
    within: Sequence[str] = (),
    policies: Sequence[Policy] | None = None,
) -> Iterator[Finding]:
    """A finding for every promotion: would a loader accept it?

    Args:
        client: from `registry`.
        tracking_uri: the same server.
        only: the one model to look at; default all.
        within: workspaces to look at; default all that the server shows to this login.
        policies: say where creation is promotion; default those in force here. Without any, no creation is looked at.

    Raises what the server raises when it cannot be read, and `Unchecked` when it cannot be read whole.
    """
    from mlseal.policy import load

    known = load.in_force() if policies is None else policies
    for workspace in within or listing.workspaces(client, tracking_uri):
        with inside(workspace):
            seen = [_with_creation(held, current(), known) for held in listing.versions(client, only)]
        for held in seen:
            with inside(workspace):  # not while whoever asks looks at what was found
                findings = list(_judged(held, current(), tracking_uri))
            yield from findings


def demote(client: Any, finding: Finding, *, delete: bool = False) -> bool:
    """Take back what must not stand, unless it was moved since; says whether it did.

    A version whose creation nothing allowed is deleted only where `delete` says so, and only when the evidence was
    there to be read: nothing in MLflow brings it back.
    """
    with inside(finding.workspace if finding.workspace != current() else None):
        if finding.what == "alias":
            held = client.get_registered_model(finding.model).aliases.get(finding.value)
            if str(held) != finding.version:
                return False
            client.delete_registered_model_alias(finding.model, finding.value)
        elif finding.what == "stage":
            if client.get_model_version(finding.model, finding.version).current_stage != finding.value:
                return False
            client.transition_model_version_stage(finding.model, finding.version, "Archived")
        else:
            if not delete or not isinstance(finding.error, (Refusal, NoEvidence)):
                return False
            client.delete_model_version(finding.model, finding.version)
    return True


def _with_creation(held: Held, workspace: str, policies: Sequence[Policy]) -> Held:
    """`held`, and that its creation was a promotion, where a policy governs creation of versions of this model."""
    from mlseal.policy.names import Action, canonical_facts
    from mlseal_mlflow import loading, names

    source = names.printable(held.source)
    try:
        key = names.model(workspace, held.model)
        facts = {"workspace": key.workspace, "model": key.name, "source": source}
        known = canonical_facts(Action(loading.TOOL, "create", facts))
    except (Error, ValueError):  # a name that no rule can be about; what points at it is a finding all the same
        return held
    return held.promoted("create", source) if any(policy.applies(known) for policy in policies) else held


def _judged(held: Held, workspace: str, tracking_uri: str) -> Iterator[Finding]:
    """A finding for each promotion of one version, whose files are fetched and measured once."""
    from mlseal_mlflow import private

    if not held.promotions:
        return
    with private.passing() as directory:
        failed: Error | None = None
        try:
            measured, evidence = _measured(held, workspace, tracking_uri, directory)
        except Error as error:
            failed = error
        for what, value in held.promotions:
            objection = failed or _objection(held, workspace, what, value, measured, evidence)
            yield Finding(held.model, held.version, what, value, objection, workspace)


def _measured(held: Held, workspace: str, tracking_uri: str, directory: Path) -> tuple[Measured, Path]:
    """What this version is made of, and the directory of bundles that lay beside it."""
    from mlseal.evidence.digest import measure
    from mlseal_mlflow import loading, names, prompts

    key = names.model(workspace, held.model)
    if prompts.is_prompt(held.source, held.model_tags):
        file = directory / "prompt.json"
        file.write_bytes(prompts.content(held.tags))
        return measure(file, name=key.name), directory / "none"
    try:
        model = loading.fetch(f"models:/{held.model}/{held.version}", directory, tracking_uri, tracking_uri)
    except Exception as error:  # whatever a storage raises is about this model, and the others are waiting
        if isinstance(error, Error):
            raise
        raise Unreadable(f"{held.model} version {held.version} cannot be fetched", got=str(error)[:200]) from error
    evidence = loading.set_aside(model, directory)
    return measure(model, name=key.name), evidence


def _objection(held: Held, workspace: str, what: str, value: str, measured: Measured, evidence: Path) -> Error | None:
    """Why a loader would not take these bytes as `what`; None if it would."""
    from mlseal_mlflow import loading, names

    try:
        key = names.model(workspace, held.model)
        use = loading.Use(f"models:/{held.model}/{held.version}", key.workspace, key.name, held.version)
        if what == "alias":
            use = replace(use, alias=names.alias(value))
        elif what == "stage":
            use = replace(use, stage=names.canonical(value))
        else:
            use = replace(use, created=True)
        loading.require_allowed(measured, use, evidence)
    except Error as error:
        return error
    return None
