"""What KFP tells a step: one JSON document, in two dialects.

A back end (Go launcher) and ``kfp.local`` both pass the ``ExecutorInput`` message as one argument, and differ:

=====================  =============================  ==========================
field                  back end                       kfp.local
=====================  =============================  ==========================
``artifact.name``      numeric id of the metadata     the output's name
``artifact.type``      absent                         present
``artifact.uri``       ``s3://…``, ``gs://…`` …       a path
``artifact.metadata``  extra keys, numbers as floats  as the producer wrote it
integer parameters     may arrive as ``3.0``          integers
=====================  =============================  ==========================

So names, types and metadata are never used: an input is known by its port, a place by its URI, content by its digest.
The document is read strictly, because ``kfp.local`` splices values into it as text: a value that smuggles a second
``"run_id"`` in makes a duplicate key, which is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mlseal.errors import Misuse, Unreadable
from mlseal.evidence import canonical

_MAX_BYTES = 1024 * 1024
_MOUNTS = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/", "file://": ""}
"""Where the launcher puts what it downloads (backend/src/v2, LocalPathForURI)."""
_WORKSPACE = "/kfp-workspace/.artifacts"


@dataclass(frozen=True)
class Artifact:
    """One artifact: the port it came through, its URI as given, and where its bytes lie in this container."""

    port: str
    uri: str
    path: Path
    name: str = ""

    def require(self) -> Path:
        """The path, if something is there. Raises `Unreadable`: KFP counts a step that wrote nothing as a success."""
        if not self.path.exists():
            raise Unreadable(
                f"input {self.port!r} is missing",
                got=f"no file at {self.path}",
                expected="the artifact that an earlier step declared",
                remedy="look whether that step wrote its output",
            )
        return self.path


@dataclass(frozen=True)
class Task:
    """One execution of one component: its parameters, inputs and the places for its outputs."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    output_artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    output_parameters: Mapping[str, Path] = field(default_factory=dict)
    output_file: Path | None = None

    def text(self, name: str) -> str:
        """The string parameter `name`, empty when absent. Raises `Misuse` for another type."""
        value = self.parameters.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Misuse(f"parameter {name!r} has the wrong type", got=type(value).__name__, expected="text")
        return value

    def artifact(self, port: str) -> Artifact | None:
        """The single artifact at `port`, or None if the port is not connected."""
        found = self.inputs.get(port, ())
        if len(found) > 1:
            raise Misuse(f"input {port!r} holds a list", got=f"{len(found)} artifacts", expected="one")
        return found[0] if found else None


def parse(document: str) -> Task:
    """The task in an ExecutorInput document.

    Raises `MalformedEvidence` for JSON that is not strict and `Misuse` for a document of another shape or an artifact
    in a place that no launcher mounts.
    """
    top = _object(canonical.parse(document, what="executor input", limit=_MAX_BYTES), "executor input")
    inputs, outputs = _object(top.get("inputs", {}), "inputs"), _object(top.get("outputs", {}), "outputs")
    ports = _object(inputs.get("artifacts", {}), "inputs.artifacts")
    return Task(
        parameters=_object(inputs.get("parameterValues", {}), "inputs.parameterValues"),
        inputs={port: _artifacts(port, value) for port, value in ports.items()},
        output_artifacts={
            port: _single(port, value)
            for port, value in _object(outputs.get("artifacts", {}), "outputs.artifacts").items()
        },
        output_parameters={
            name: _output_path(name, value)
            for name, value in _object(outputs.get("parameters", {}), "outputs.parameters").items()
        },
        output_file=Path(_text(outputs["outputFile"], "outputs.outputFile")) if "outputFile" in outputs else None,
    )


def local_path(uri: str, *, workspace: bool = False) -> Path:
    """Where the bytes of `uri` lie in the container.

    Edge cases: an ``oci://`` modelcar lies under ``/oci/<slashes as underscores>/models``; an artifact that the back
    end put in the run's workspace lies below it. ``..`` in a URI is refused (`Misuse`), as is any other scheme.
    """
    path = _unmounted(uri)
    if ".." in PurePosixPath(path).parts:
        raise Misuse("artifact URI climbs out of its place", got=uri[:200], expected="a URI without '..'")
    return Path(f"{_WORKSPACE}/{path.lstrip('/')}" if workspace else path)


def _unmounted(uri: str) -> str:
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    if uri.startswith("oci://"):
        return "/oci/" + uri.removeprefix("oci://").replace("/", "_") + "/models"
    if "://" in uri or not uri:
        raise Misuse(
            "artifact lies where no launcher mounts it",
            got=uri[:200] or "an empty URI",
            expected="gs://, s3://, minio://, oci://, file:// or a path",
            remedy="import it through an object store that the cluster mounts",
        )
    return uri


def _artifacts(port: str, value: object) -> tuple[Artifact, ...]:
    entries = _object(value, f"artifacts of {port!r}").get("artifacts", [])
    if not isinstance(entries, list):
        raise Misuse(f"artifacts of {port!r} are not a list", got=type(entries).__name__)
    return tuple(_artifact(port, entry) for entry in entries)


def _artifact(port: str, value: object) -> Artifact:
    entry = _object(value, f"artifact at {port!r}")
    uri = _text(entry.get("uri"), f"uri of {port!r}")
    custom = entry.get("customPath")
    if custom:
        return Artifact(port, uri, Path(_text(custom, f"customPath of {port!r}")), str(entry.get("name", "")))
    metadata = _object(entry.get("metadata", {}), f"metadata of {port!r}")
    workspace = metadata.get("_kfp_workspace") is True
    return Artifact(port, uri, local_path(uri, workspace=workspace), str(entry.get("name", "")))


def _single(port: str, value: object) -> Artifact:
    found = _artifacts(port, value)
    if len(found) != 1:
        raise Misuse(f"output {port!r} has no single place", got=f"{len(found)} places")
    return found[0]


def _output_path(name: str, value: object) -> Path:
    return Path(_text(_object(value, f"output parameter {name!r}").get("outputFile"), f"outputFile of {name!r}"))


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Misuse(f"{what} is not an object", got=type(value).__name__, expected="the ExecutorInput that KFP passes")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise Misuse(f"{what} is not a text", got=repr(value)[:80], expected="the ExecutorInput that KFP passes")
    return value
