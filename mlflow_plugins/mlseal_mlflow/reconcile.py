"""Finding what slipped past the gate: promotions that no standing verdict covers.

Some doors no registry store can close (``docs/mlflow.md``): a workspace dissolved into another, SQL, a second server
without the plugin. This reads a registry over REST as any client does, and asks of every alias and live stage what a
loader would ask. It detects and, where told to, demotes; between two runs it protects nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlseal.errors import Error

LIVE_STAGES = ("Staging", "Production")


@dataclass(frozen=True)
class Finding:
    """One promotion, and why it must not stand; ``error`` is None when it may."""

    model: str
    version: str
    what: str
    value: str
    error: Error | None

    def to_dict(self) -> dict[str, object]:
        """For ``--json``."""
        found = {"model": self.model, "version": self.version, self.what: self.value}
        return {**found, "stands": self.error is None, "reason": str(self.error) if self.error else None}


def registry(url: str) -> Any:
    """A client of the registry at `url`. MLflow's public client hides prompts; the one below it does not."""
    from mlflow.tracking._model_registry.client import ModelRegistryClient

    return ModelRegistryClient(url, url)


def promotions(client: Any) -> Iterator[tuple[str, str, str, str]]:
    """(model, version, "alias" or "stage", its name) of every promotion that the registry shows, models and prompts."""
    for prompts in ("false", "true"):
        token = None
        while True:
            page = client.search_registered_models(
                filter_string=f"tags.`mlflow.prompt.is_prompt` = '{prompts}'", max_results=100, page_token=token
            )
            for model in page:
                yield from _of_model(client, client.get_registered_model(model.name))
            token = page.token
            if not token:
                break


def _of_model(client: Any, model: Any) -> Iterator[tuple[str, str, str, str]]:
    for alias, version in sorted(model.aliases.items()):
        yield model.name, str(version), "alias", alias
    for version in client.get_latest_versions(model.name, stages=list(LIVE_STAGES)):  # what models:/NAME/STAGE gives
        yield model.name, str(version.version), "stage", version.current_stage


def check(client: Any, *, tracking_uri: str, only: str | None = None) -> Iterator[Finding]:
    """A finding for every promotion, or for those of the model `only`: would a loader accept it?"""
    shown = promotions(client) if only is None else _of_model(client, client.get_registered_model(only))
    for name, version, what, value in shown:
        try:
            _require(client, name, version, what, value, tracking_uri)
        except Error as error:
            yield Finding(name, version, what, value, error)
        else:
            yield Finding(name, version, what, value, None)


def demote(client: Any, finding: Finding) -> None:
    """Take back what must not stand, unless it was moved since."""
    if finding.what == "alias":
        if str(client.get_registered_model(finding.model).aliases.get(finding.value)) == finding.version:
            client.delete_registered_model_alias(finding.model, finding.value)
    else:
        client.transition_model_version_stage(finding.model, finding.version, "Archived")


def _require(client: Any, name: str, version: str, what: str, value: str, tracking_uri: str) -> None:
    from mlseal.errors import Unreadable
    from mlseal.evidence.digest import measure
    from mlseal_mlflow import loading, names, private, prompts

    key = names.model(_workspace(), name)
    wanted = names.alias(value) if what == "alias" else names.canonical(value)
    use = loading.Use(f"models:/{name}/{version}", key.workspace, key.name, version, **{what: wanted})
    with private.passing() as directory:
        found = client.get_model_version(name, version)
        tags = client.get_registered_model(name)._tags  # noqa: SLF001 - .tags hides what makes a prompt
        if prompts.is_prompt(found.source, tags):
            file = directory / "prompt.json"
            file.write_bytes(prompts.content(found.tags))
            loading.require_allowed(measure(file, name=key.name), use, directory / "none")
            return
        try:
            model = loading.fetch(use.pinned_uri, directory, tracking_uri, tracking_uri)
        except Exception as error:  # whatever a storage raises is about this model, and the others are waiting
            if isinstance(error, Error):
                raise
            raise Unreadable(f"{name} version {version} cannot be fetched", got=str(error)[:200]) from error
        evidence = loading.set_aside(model, directory)
        loading.require_allowed(measure(model, name=key.name), use, evidence)


def _workspace() -> str:
    from mlflow.utils.workspace_context import get_request_workspace

    return get_request_workspace() or "default"
