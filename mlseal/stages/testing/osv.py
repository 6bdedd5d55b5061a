"""Advisories in the OSV format, read from a directory or zip that the operator supplies, matched against versions.

The rules are those of the OSV schema (ossf.github.io/osv-schema): a version is affected if ``versions`` lists it or
the events of a range, sorted by version, leave it introduced and neither fixed nor past ``last_affected``. Versions are
compared as PEP 440 orders them (`packaging`). What cannot be decided (a version that is none, a package whose only
range is one of git commits) is said, never skipped.

Osv.dev publishes ``PyPI/all.zip``; the PyPA advisory database and an organization's own lists have the same format.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from mlseal.errors import Unreadable
from mlseal.evidence.digest import Manifest
from mlseal.stages.base import require_same

_MAX_ENTRY = 16 * 1024 * 1024
_MAX_ENTRIES = 500_000
_ECOSYSTEM = "PyPI"
_SUFFIXES = (".json", ".yaml", ".yml")


class Undecidable(Exception):
    """An advisory about the package says nothing that can be compared with a version."""


@dataclass(frozen=True)
class Advisory:
    """An entry that affects a version: id, other names, severities as (method, score), versions that mend it."""

    id: str
    aliases: tuple[str, ...] = ()
    severity: tuple[tuple[str, str], ...] = ()
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Database:
    """Every entry about PyPI, by canonical package name.

    Attributes:
        entries: package → entries that name it; withdrawn ones are left out.
        count: entries about PyPI, withdrawn ones included.
        last_update: the newest ``modified`` of any entry, RFC 3339 in whole seconds: how fresh the copy can be at most.
    """

    entries: Mapping[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    count: int = 0
    last_update: str = ""

    def affecting(self, package: str, version: Version) -> list[Advisory]:
        """Advisories that affect `version` of `package` (canonical name). Raises `Undecidable`."""
        return [
            _advisory(entry, package) for entry in self.entries.get(package, []) if _affects(entry, package, version)
        ]


def load(path: Path, manifest: Manifest | None = None) -> Database:
    """Read every advisory below `path`: a directory of JSON or YAML files, or a zip of them.

    With the `manifest` of a directory exactly its files are read, and each must have the digest that stands there.

    Raises `Unreadable` if an entry cannot be read, lacks what the schema demands, or none is about PyPI: a damaged or
    empty database would find nothing.
    """
    packages: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    count, newest = 0, ""
    for name, text in _texts(path, manifest):
        entry = _parsed(name, text)
        named = _packages(name, entry)
        if not named:
            continue
        count += 1
        newest = max(newest, _seconds(name, entry["modified"]))
        if not entry.get("withdrawn"):
            for package in named:
                packages[package].append(entry)
    if not count:
        raise Unreadable(
            "the advisories hold nothing about PyPI",
            got=path.name,
            expected="a directory or zip of OSV entries",
            remedy="fetch osv.dev's PyPI/all.zip, or the PyPA advisory database",
        )
    return Database(dict(packages), count, newest)


def _texts(path: Path, manifest: Manifest | None) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for inside, sha256 in _listed(path, manifest):
            if inside.endswith(_SUFFIXES) and not any(part.startswith(".") for part in inside.split("/")):
                file = path / inside
                data = _limited(file.name, file.stat().st_size, file.read_bytes)
                if sha256 is not None:
                    require_same(f"advisories/{inside}", sha256, hashlib.sha256(data).hexdigest())
                yield file.name, data
        return
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > _MAX_ENTRIES:
                raise Unreadable("the advisories are too many", got=len(infos), expected=f"at most {_MAX_ENTRIES}")
            for info in infos:
                if info.filename.endswith(_SUFFIXES):
                    yield info.filename, _limited(info.filename, info.file_size, lambda i=info: archive.read(i))
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise Unreadable(
            "the advisories cannot be read", got=str(error)[:160] or path.name, expected="a directory or a whole zip"
        ) from error


def _listed(root: Path, manifest: Manifest | None) -> list[tuple[str, str | None]]:
    if manifest is not None:
        return [(entry.path, entry.sha256) for entry in manifest.files]
    return [(file.relative_to(root).as_posix(), None) for file in sorted(root.rglob("*")) if file.is_file()]


def _limited(name: str, size: int, read: Any) -> bytes:
    if size > _MAX_ENTRY:
        raise Unreadable(f"advisory {name} is too large", got=size, expected=f"at most {_MAX_ENTRY} bytes")
    return bytes(read())


def _parsed(name: str, text: bytes) -> Mapping[str, Any]:
    try:
        entry = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise Unreadable(f"advisory {name} cannot be read", got=str(error)[:120], expected="an OSV entry") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry.get("modified"):
        raise Unreadable(f"advisory {name} is no OSV entry", expected="an object with id and modified")
    return entry


def _packages(name: str, entry: Mapping[str, Any]) -> set[str]:
    try:
        return {
            canonicalize_name(affected["package"]["name"])
            for affected in entry.get("affected") or []
            if (affected.get("package") or {}).get("ecosystem", "").partition(":")[0] == _ECOSYSTEM
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"advisory {name} breaks the OSV schema", got=repr(error)[:120]) from error


def _seconds(name: str, modified: Any) -> str:
    text = modified.isoformat() if hasattr(modified, "isoformat") else str(modified)  # YAML reads a time as one
    if len(text) < 19 or text[10] not in "T ":
        raise Unreadable(f"advisory {name} has no time of modification", got=text[:40], expected="RFC 3339")
    return f"{text[:10]}T{text[11:19]}Z"


def _affects(entry: Mapping[str, Any], package: str, version: Version) -> bool:
    decided = False
    try:
        for affected in _of(entry, package):
            if any(_same(version, text) for text in affected.get("versions") or []):
                return True
            decided = decided or bool(affected.get("versions"))
            for one in affected.get("ranges") or []:
                if one["type"] in {"ECOSYSTEM", "SEMVER"}:
                    decided = True
                    if _in_range(one["events"], version):
                        return True
    except (KeyError, TypeError, AttributeError, InvalidVersion) as error:
        raise Undecidable(f"advisory {entry['id']} cannot be compared with a version") from error
    if not decided:
        raise Undecidable(f"advisory {entry['id']} names no versions of {package}")
    return False


def _of(entry: Mapping[str, Any], package: str) -> list[Mapping[str, Any]]:
    """The parts of `entry` about `package`."""
    return [
        affected
        for affected in entry.get("affected") or []
        if (affected.get("package") or {}).get("ecosystem", "").partition(":")[0] == _ECOSYSTEM
        and canonicalize_name(affected["package"]["name"]) == package
    ]


def _same(version: Version, text: str) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:  # a legacy version of long ago: no installable version equals it
        return False


def _in_range(events: list[Mapping[str, str]], version: Version) -> bool:
    """The evaluation of the OSV schema: walk the events in version order and see in which state `version` is left."""
    steps: list[tuple[Version | None, int, str]] = []
    limits: list[Version | None] = []
    for event in events:
        (kind, text), *more = event.items()
        if more or kind not in {"introduced", "fixed", "last_affected", "limit"}:
            raise KeyError(kind)
        if kind == "limit":
            limits.append(None if text == "*" else Version(text))
        else:
            # "0" stands before every version. At one version: what ends a range comes before what begins the next.
            at = None if kind == "introduced" and text == "0" else Version(text)
            steps.append((at, 1 if kind == "introduced" else 0, kind))
    if not any(kind == "introduced" for _, _, kind in steps):
        raise KeyError("introduced")
    if limits and not any(limit is None or version < limit for limit in limits):
        return False
    vulnerable = False
    for at, _, kind in sorted(steps, key=lambda step: (step[0] is not None, step[0] or Version("0"), step[1])):
        if kind == "introduced" and (at is None or version >= at):
            vulnerable = True
        elif at is not None and ((kind == "fixed" and version >= at) or (kind == "last_affected" and version > at)):
            vulnerable = False
    return vulnerable


def _advisory(entry: Mapping[str, Any], package: str) -> Advisory:
    fixed = {
        event["fixed"]
        for affected in _of(entry, package)
        for one in affected.get("ranges") or []
        for event in one["events"]
        if one["type"] != "GIT" and "fixed" in event
    }
    severities = [*(entry.get("severity") or []), *(s for a in _of(entry, package) for s in a.get("severity") or [])]
    return Advisory(
        id=entry["id"][:80],
        aliases=tuple(sorted(str(alias)[:80] for alias in entry.get("aliases") or [])),
        severity=tuple(dict.fromkeys((str(s["type"])[:40], str(s["score"])[:200]) for s in severities)),
        fixed=tuple(sorted(fixed, key=Version)),
    )
