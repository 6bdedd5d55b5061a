"""A training step, run and described: which data, code and settings made which model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlseal.errors import Misuse
from mlseal.evidence import canonical
from mlseal.evidence.digest import Measured
from mlseal.stages import process
from mlseal.stages.base import CodePath, Context, DatasetPath, Finding, OutputModel, Settings, stage

BUILD_TYPE = "https://mlseal.dev/build/training.run/v0.1"
HOST = "https://mlseal.dev/builder/host-process/v0.1"
CONTAINER = "https://mlseal.dev/builder/container/v0.1"
BUILDER_VARIABLE = "MLSEAL_BUILDER"
"""Set to ``container`` by released images; a declaration, since nothing stops another process from setting it."""

_NOT_PROVEN = (
    "that the script used only what is listed: a process can read other files and the network",
    "that running it again gives the same bytes",
    "that the model is good, fair or safe",
)
_HOST_LIMIT = "isolation: the script ran as a process with the rights of the account that signs"
_IMAGE_LIMIT = "that this image ran: a container cannot see its own digest, so the image is declared by the pipeline"


def as_here(predicate: Mapping[str, Any]) -> bool:
    """Whether such a build would be described alike here: same kind of builder, same Python, same packages."""
    internal = predicate["buildDefinition"]["internalParameters"]
    builder = predicate["runDetails"]["builder"]["id"]
    expected = _builder(named=builder == CONTAINER or "imageNotRun" in internal)
    return builder == expected and all(internal.get(name) == value for name, value in _environment().items())


@stage(
    "training.run",
    predicate="slsa-provenance",
    reusable=as_here,
    cost="minutes: what the script takes, and reading data and model twice",
    not_proven=_NOT_PROVEN,
)
def train(
    script: CodePath,  # noqa: ARG001 - read through the context, as a proven copy
    data: DatasetPath,
    out: OutputModel,
    parameters: Settings | None = None,
    image: str = "",
    timeout: int = 3600,
    *,
    context: Context,
) -> Finding:
    """Run ``python SCRIPT --data DATA --out OUT --param NAME=VALUE …`` and state what went in and what came out.

    Args:
        script: the training program, one file or a directory with ``__main__.py``; a private copy is run.
        data: the training data.
        out: where the model goes; must not exist.
        parameters: passed on as ``--param NAME=VALUE``, sorted by name.
        image: reference by digest of the container image that runs this, as the pipeline declares it.
        timeout: seconds until the program is stopped.

    Guarantees:
        Digests of data and code are of the bytes before and after the run; the model's are of what is published. A
        failed run publishes nothing and makes no evidence.

    Edge cases:
        A program that fails, takes too long or leaves no content raises `Unchecked` with its last line. The program
        runs in Python's isolated mode: modules beside a single-file script are not found; use a directory. The builder
        is called a container where an image is named and the environment says so (``MLSEAL_BUILDER=container``, which
        released images set): that is a declaration, and whoever controls the environment can make it anywhere.
    """
    settings = dict(sorted((parameters or {}).items()))
    code = _runnable(context.private_copy("script"))
    given = [f"{name}={value}" for name, value in settings.items()]
    arguments = ["--data", str(data), "--out", str(out), *(part for pair in given for part in ("--param", pair))]
    process.run(process.Program(code, arguments, context.workspace / "home", timeout), context.log)
    return Finding(subjects=("out",), fields=_provenance(context, settings, image))


def _runnable(code: Path) -> Path:
    if code.is_dir() and not (code / "__main__.py").is_file():
        raise Misuse(f"{code.name} cannot be run", expected="a directory with __main__.py, or a file")
    return code


def _provenance(context: Context, settings: Mapping[str, str], image: str) -> dict[str, object]:
    builder = _builder(named=bool(image))
    inside = builder == CONTAINER
    dependencies = [
        *_descriptors("data", context.measured["data"]),
        *_descriptors("code", context.measured["script"]),
    ]
    if inside:
        dependencies.append(_image(image))
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "script": context.naming.subject(context.measured["script"].name),
                "parameters": dict(settings),
            },
            "internalParameters": {
                "harness": context.harness({}).to_json(),
                "strength": "measured",
                **_environment(),
                # An image that was asked for but did not run is not a dependency.
                **({"imageNotRun": image} if image and not inside else {}),
                "notProven": [*_NOT_PROVEN, _IMAGE_LIMIT if inside else _HOST_LIMIT],
            },
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": builder, "version": {"mlseal": context.harness_base.version}},
            "metadata": {
                "invocationId": context.run_id,
                "startedOn": context.started_on,
                "finishedOn": context.now(),
            },
        },
    }


def _descriptors(role: str, measured: Measured) -> list[dict[str, object]]:
    """One descriptor per subject, named by role: ``data`` and, for a directory, ``data#manifest``."""
    names = [role, f"{role}#manifest"]
    return [{"name": n, "digest": {"sha256": s.sha256}} for n, s in zip(names, measured.subjects, strict=False)]


def _image(reference: str) -> dict[str, object]:
    name, _, digest = reference.partition("@sha256:")
    if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef") or set(digest) == {"0"}:
        raise Misuse("the image is not named by digest", got=reference[:120], expected="NAME@sha256:64 hex digits")
    return {"name": "image", "uri": name, "digest": {"sha256": digest}, "annotations": {"strength": "declared"}}


def _builder(*, named: bool) -> str:
    return CONTAINER if named and os.environ.get(BUILDER_VARIABLE) == "container" else HOST


def _environment() -> dict[str, object]:
    """What is installed here, as the provenance describes it."""
    packages = _packages()
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": {"count": len(packages), "sha256": hashlib.sha256(canonical.dumps(packages)).hexdigest()},
    }


def _packages() -> dict[str, str]:
    """Every installed distribution with its version; only the digest and the count are signed."""
    # Each `name` or `version` of a distribution would parse its file again: 330 of them twice take 0.2 s.
    headers = [distribution.metadata for distribution in importlib.metadata.distributions()]
    return {header["Name"].lower(): header["Version"] for header in headers if "Name" in header}
