"""Which packages are meant: a requirements or constraints file, or what is installed in a directory.

Only an exact version can be compared with advisories. What has none (a range, an address, a local path, a package
without metadata) is kept with the reason, so that it counts as not audited.
"""

from __future__ import annotations

import email
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mlseal.errors import Misuse, Unreadable
from mlseal.stages.base import Context

_MAX_BYTES = 4 * 1024 * 1024
_IGNORED = ("--hash", "--index-url", "--extra-index-url", "--no-binary", "--only-binary", "--prefer-binary", "-i ")
"""Options that change where a package comes from, not which one it is."""


@dataclass(frozen=True)
class Dependency:
    """One package. `version` is None when it cannot be audited, `reason` then says why."""

    name: str
    version: Version | None = None
    reason: str = ""


def from_file(path: Path) -> list[Dependency]:
    """The packages of a requirements or constraints file.

    Environment markers are not evaluated: what may be installed somewhere is audited. Raises `Unreadable` for a file
    that is no text, holds a line that is no requirement, or names no package.
    """
    try:
        text = path.read_bytes()[: _MAX_BYTES + 1].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable("the requirements cannot be read", got=str(error)[:120], expected="a text file") from error
    if len(text) > _MAX_BYTES or "\0" in text:
        raise Unreadable("the requirements are no requirements file", expected="a text of at most 4 MiB")
    found = [_line(line) for line in _lines(text)]
    return _all(dependency for dependency in found if dependency is not None)


def _lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        stripped = line.split(" #", 1)[0].strip()
        if stripped and not stripped.startswith("#"):
            yield stripped


def _line(line: str) -> Dependency | None:
    if line.startswith(_IGNORED):
        return None
    if line.startswith("-"):
        return Dependency(line.rsplit(maxsplit=1)[-1][:80], reason="it is no package by version")
    try:
        requirement = Requirement(line.split(" --", 1)[0].strip())
    except InvalidRequirement as error:
        if "://" in line or line.startswith((".", "/")):
            return Dependency(line[:80], reason="a path or address has no version to compare")
        raise Unreadable(
            "the requirements hold a line that is none", got=line[:80], expected="NAME==VERSION"
        ) from error
    return _pinned(requirement)


def _pinned(requirement: Requirement) -> Dependency:
    name = canonicalize_name(requirement.name)
    pins = [
        spec for spec in requirement.specifier if spec.operator in {"==", "==="} and not spec.version.endswith(".*")
    ]
    if requirement.url:
        return Dependency(name, reason="it comes from an address")
    if len(pins) != 1:
        return Dependency(name, reason="no exact version is given")
    return _versioned(name, pins[0].version)


def _versioned(name: str, version: str) -> Dependency:
    try:
        return Dependency(name, Version(version))
    except InvalidVersion:
        return Dependency(name, reason="its version is none that can be compared")


def of_model(context: Context, name: str) -> list[Dependency]:
    """The packages in ``requirements.txt`` of input `name`, a model directory. Raises `Misuse` if it has none."""
    manifest = context.measured[name].manifest
    if manifest is None or not any(file.path == "requirements.txt" for file in manifest.files):
        raise Misuse(
            "the model names no dependencies", expected="a directory with requirements.txt, as MLflow writes it"
        )
    return from_file(context.private_file(name, "requirements.txt"))


def installed(context: Context, name: str) -> list[Dependency]:
    """The packages installed in input `name`, a ``site-packages`` directory, by their metadata.

    Raises `Misuse` if nothing is installed there. An installation without readable metadata counts as not audited.
    """
    manifest = context.measured[name].manifest
    paths = [PurePosixPath(file.path) for file in manifest.files] if manifest else []
    found = []
    for path in paths:
        if len(path.parts) == 2 and path.parts[0].endswith(".dist-info") and path.name == "METADATA":
            found.append(_metadata(context.private_file(name, str(path)), path.parts[0]))
        elif path.name.endswith((".egg-link", ".egg-info")) or path.parts[0].endswith((".egg", ".egg-info")):
            found.append(Dependency(path.parts[0][:80], reason="an installation of an old kind, without METADATA"))
    if not found:
        raise Misuse(
            "nothing is installed in the environment",
            got=context.measured[name].name,
            expected="a site-packages directory",
            remedy='pass what \'python -c "import sysconfig; print(sysconfig.get_path(\\"purelib\\"))"\' prints',
        )
    described = {path.parts[0] for path in paths if path.name == "METADATA"}
    bare = {p.parts[0] for p in paths if p.parts[0].endswith(".dist-info")} - described
    return _all([*found, *(Dependency(one[:80], reason="it has no METADATA") for one in bare)])


def _metadata(file: Path, directory: str) -> Dependency:
    message = email.message_from_bytes(file.read_bytes())
    name, version = str(message.get("Name") or ""), str(message.get("Version") or "")
    if not name or not version:
        return Dependency(directory[:80], reason="its METADATA has no name or version")
    return _versioned(canonicalize_name(name), version)


def _all(found: Iterator[Dependency] | list[Dependency]) -> list[Dependency]:
    unique = sorted(dict.fromkeys(found), key=lambda d: (d.name, str(d.version)))
    if not unique:
        raise Unreadable("no dependency is named", expected="at least one NAME==VERSION")
    return unique
