"""From a file to a policy that can be judged by, or one sentence naming the line that is wrong.

1. Read the bytes once; their SHA-256 is the policy's identity in every verdict.
2. Parse the part of YAML that cannot be misread (`mlseal.policy.plainyaml`).
3. Check every key and value against the schema; unknown keys are errors.
4. Put a layer together with the policy that it extends, found by digest; it may only tighten (`mlseal.policy.layers`).
5. Check what the schema cannot: predicate types, ids, chaining; compile every condition against its predicate.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from mlseal.errors import PolicyInvalid, Unreadable
from mlseal.evidence import paths, predicates
from mlseal.policy import layers, pins, plainyaml, shelf
from mlseal.policy.building import Builder, wrong
from mlseal.policy.layers import with_layers
from mlseal.policy.model import Policy
from mlseal.policy.plainyaml import Document
from mlseal.policy.schema import Extends, PolicyPart
from mlseal.policy.shelf import Finder


def load(path: str | os.PathLike[str], *, beside: Sequence[Path] = ()) -> Policy:
    """The policy in a file. Raises `Unreadable` if it cannot be read, `PolicyInvalid` naming the line otherwise.

    What it extends is looked for by digest: among the YAML files beside it, in `beside`, and among the policies pinned
    by this user or machine.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(plainyaml.MAX_BYTES + 1)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise Unreadable(f"cannot read policy {file}", got=error.strerror, remedy="check the path") from error
    plainyaml.require_size(max(size, len(raw)), str(file))
    return parse(raw, name=str(file), find=shelf.finder([file.parent, *beside]))  # (1)


def load_all(paths: Iterable[str | os.PathLike[str]]) -> tuple[Policy, ...]:
    """All policies of `paths`, and those that they extend; a directory stands for its ``*.yaml`` and ``*.yml``.

    Names must be unique, the layers beneath included: two versions of one policy are never in force together. Raises
    `PolicyInvalid` if there is none: nobody's policy is not a permission.
    """
    policies = _unique(each(paths))
    if not policies:
        raise PolicyInvalid(
            "no policy found", expected="a file, or a directory with *.yaml", remedy="pass --policy FILE"
        )
    return policies


def _unique(given: Sequence[Policy]) -> tuple[Policy, ...]:
    """`given` and the layers beneath. Raises `PolicyInvalid` where two of them have one name."""
    policies = with_layers(given)
    names = [policy.name for policy in policies]
    if len(set(names)) != len(names):
        raise PolicyInvalid(
            "two policies have one name", got=", ".join(sorted({n for n in names if names.count(n) > 1}))
        )
    return policies


def each(paths: Iterable[str | os.PathLike[str]]) -> tuple[Policy, ...]:
    """The policies of `paths` themselves, without what they extend; () for an empty directory."""
    files = files_of(paths)
    return tuple(load(file, beside=files) for file in files)


def files_of(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that `each` reads, in its order."""
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    return files


def in_force(explicit: Sequence[str | os.PathLike[str]] = ()) -> tuple[Policy, ...]:
    """The policies chosen by this user or machine; () if nobody chose any, which permits nothing.

    `explicit`, else ``$MLSEAL_POLICY`` (files or directories, separated by ``:``), else ``policy.yaml`` in this user's
    configuration directory and what this user pinned; the machine's ``/etc/mlseal/policy.yaml`` and pins besides. Never
    a file of the tree being judged, and never another version of a pinned policy (`pins.require_pinned`).
    """
    named = _named(explicit)
    kept = pins.read(paths.machine_config_dir()).policies() + (() if named else pins.read().policies())
    given = each(places(explicit))
    pins.require_pinned(given)
    return _unique((*given, *{p.sha256: p for p in kept if p.sha256 not in {g.sha256 for g in given}}.values()))


def places(explicit: Sequence[str | os.PathLike[str]] = ()) -> list[Path]:
    """The files and directories that `in_force` reads, pinned policies apart."""
    own = paths.config_dir() / "policy.yaml"
    machine = paths.machine_config_dir() / "policy.yaml"
    chosen = _named(explicit) or ([own] if own.is_file() else [])
    return [*chosen, *([machine] if machine.is_file() else [])]


def _named(explicit: Sequence[str | os.PathLike[str]]) -> list[Path]:
    return [Path(part) for part in explicit or os.environ.get("MLSEAL_POLICY", "").split(os.pathsep) if part]


def parse(raw: bytes, *, name: str = "policy", find: Finder = shelf.nowhere) -> Policy:
    """The policy in `raw`; `name` stands in messages, `find` gives the file with a digest for ``extends``."""
    return _parse(raw, name, find, 1)


def _parse(raw: bytes, name: str, find: Finder, depth: int) -> Policy:
    document = plainyaml.parse(raw, name)  # (2)
    try:
        part = PolicyPart.model_validate(document.value)  # (3)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = tuple(step for step in first["loc"] if step != "__pydantic_extra__")
        raise wrong(name, document, place, first["msg"].removeprefix("Value error, ")) from error
    parent = None
    if part.extends is not None:  # (4)
        if depth >= layers.MAX_LAYERS:
            raise wrong(name, document, ("extends",), f"more than {layers.MAX_LAYERS} layers")
        parent = _beneath(part.extends, name, document, find, depth)
    policy = Builder(name, document, part, parent).build(raw)  # (5)
    if parent is not None:
        _require_tighter(policy, parent, name, document, part)
    return policy


def _beneath(wanted: Extends, name: str, document: Document, find: Finder, depth: int) -> Policy:
    """The policy that is extended: the file with that digest, if it is the policy of that name."""
    raw = find(wanted.sha256)
    line = document.line(("extends",))
    if raw is None or hashlib.sha256(raw).hexdigest() != wanted.sha256:
        raise Unreadable(
            f"{name} line {line}: the policy that it extends is not at hand",
            got="no file with that digest" if raw is None else "a file with another digest",
            expected=f"{wanted.policy}, sha256 {wanted.sha256}",
            remedy="put that file beside it, or pin it: mlseal policy pin",
        )
    parent = _parse(raw, f"{wanted.policy} (extended by {name})", find, depth + 1)
    if parent.name != wanted.policy:
        raise wrong(
            name, document, ("extends", "policy"), f"the file with that digest is {parent.name}", [wanted.policy]
        )
    return parent


def _require_tighter(policy: Policy, parent: Policy, name: str, document: Document, part: PolicyPart) -> None:
    found = layers.loosening(policy, parent)
    if found is not None:
        line = document.line(layers.at(found, part, {short: short for short in predicates.SHORT}))
        what = "is looser than" if found.relation == "looser" else "is not known to be as strict as"
        raise PolicyInvalid(
            f"{name} line {line}: {found.place} {what} {parent.name}, which it extends",
            got=found.after,
            expected=f"{found.before}, or stricter",
            remedy=f"leave the key out, which takes it over, or have {parent.name} changed",
        )
