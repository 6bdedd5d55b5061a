"""Which policies this user and this machine have pinned: by digest, by number, by whose signature.

The pins lie in the configuration directory of the user (``policy.pins.json``) or the machine, with a copy of each file
under its digest; never in the tree that is judged. A pin is what a trust root is for keys: whoever can write there
decides. From then on the owners that it names decide, and only forwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mlseal.errors import DigestMismatch, MalformedEvidence, Misuse, Unreadable
from mlseal.evidence import canonical, paths
from mlseal.evidence.bundle import Bundle, write_atomic
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates.base import Sha256
from mlseal.policy import shelf
from mlseal.policy.fetching import SUFFIX
from mlseal.policy.model import Policy

FILE = "policy.pins.json"
_MAX_BYTES = 1024 * 1024


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True)


class Owner(_Part):
    """Who may release a policy: an exact identity."""

    issuer: str
    san: str

    @property
    def identity(self) -> Identity:
        """As the verifier compares it."""
        return Identity(self.issuer, self.san)


class Version(_Part):
    """A version that was pinned here once."""

    serial: int
    sha256: Sha256


class Pin(_Part):
    """One pinned policy; `seen` are the versions before this one."""

    policy: str
    sha256: Sha256
    serial: int
    owners: list[Owner] = Field(min_length=1)
    source: str
    release: Sha256
    seen: list[Version] = Field(default_factory=list)


class _Pins(_Part):
    pins: list[Pin]


@dataclass(frozen=True)
class Pins:
    """The pins of one configuration directory."""

    folder: Path
    by_name: dict[str, Pin] = field(default_factory=dict)

    def policies(self) -> tuple[Policy, ...]:
        """The pinned policies. Raises `DigestMismatch` or `Unreadable` if a file is not the pinned one any more."""
        from mlseal.policy.load import parse

        found = []
        for pin in self.by_name.values():
            file = self.folder / shelf.KEPT / f"{pin.sha256}.yaml"
            try:
                raw = file.read_bytes()
            except OSError as error:
                raise Unreadable(
                    f"the pinned policy {pin.policy} cannot be read",
                    got=f"{file}: {error.strerror}",
                    remedy=f"mlseal policy pin {pin.source}",
                ) from error
            if (got := hashlib.sha256(raw).hexdigest()) != pin.sha256:
                raise DigestMismatch(
                    f"the file of the pinned policy {pin.policy} was changed",
                    got=f"sha256 {got}",
                    expected=f"sha256 {pin.sha256}",
                    remedy=f"mlseal policy pin {pin.source}",
                )
            found.append(parse(raw, name=str(file), find=shelf.finder([])))
        return tuple(found)

    def release(self, pin: Pin) -> Bundle:
        """The release that `pin` rests on, as it was kept; unverified."""
        return Bundle.read(self.folder / shelf.KEPT / f"{pin.sha256}.yaml{SUFFIX}")

    def written(self, pin: Pin, policy: bytes, release: bytes) -> None:
        """Keep `pin`, its file and its release; the pin last, so that a crash leaves the one before."""
        kept = self.folder / shelf.KEPT
        if not self._everybodys:
            paths.private(paths.private(self.folder) / shelf.KEPT)
        write_atomic(kept / f"{pin.sha256}.yaml", policy, mode=self._mode)
        write_atomic(kept / f"{pin.sha256}.yaml{SUFFIX}", release, mode=self._mode)
        self._write({**self.by_name, pin.policy: pin})

    def removed(self, name: str) -> None:
        """Forget the pin of a policy. Raises `Misuse` if there is none."""
        if name not in self.by_name:
            raise Misuse(f"no policy {name} is pinned here", expected=", ".join(self.by_name) or "a pinned policy")
        self._write({key: pin for key, pin in self.by_name.items() if key != name})

    def _write(self, pins: dict[str, Pin]) -> None:
        document = _Pins(pins=[pins[name] for name in sorted(pins)]).model_dump(by_alias=True)
        write_atomic(self.folder / FILE, json.dumps(document, indent=1).encode() + b"\n", mode=self._mode)

    @property
    def _everybodys(self) -> bool:
        return self.folder == paths.machine_config_dir()

    @property
    def _mode(self) -> int:
        return 0o644 if self._everybodys else 0o600


def read(folder: Path | None = None) -> Pins:
    """The pins in `folder`, this user's by default. Raises `MalformedEvidence` for a file that is not one."""
    place = folder or paths.config_dir()
    file = place / FILE
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return Pins(place)
    except OSError as error:
        raise Unreadable(f"cannot read {file}", got=error.strerror, remedy="check its permissions") from error
    try:
        document = _Pins.model_validate(canonical.parse(raw, what=str(file), limit=_MAX_BYTES))
    except ValidationError as error:
        raise MalformedEvidence(
            f"{file} is not a file of pins",
            got=error.errors(include_url=False)[0]["msg"],
            remedy="restore it from a copy, or remove it and pin again",
        ) from error
    by_name = {pin.policy: pin for pin in document.pins}
    if len(by_name) != len(document.pins):
        raise MalformedEvidence(f"{file} pins one policy twice", remedy="restore it from a copy")
    return Pins(place, by_name)


def exist() -> bool:
    """Whether this user or machine has pinned anything: so cheap that every command may ask."""
    return any((folder / FILE).exists() for folder in (paths.config_dir(), paths.machine_config_dir()))


def require_pinned(policies: Iterable[Policy]) -> None:
    """Raise `DigestMismatch` for a policy that is pinned to another version here, by user or machine."""
    if not exist():
        return
    pinned = {**read().by_name, **read(paths.machine_config_dir()).by_name}
    for policy in policies:
        pin = pinned.get(policy.name)
        if pin is not None and pin.sha256 != policy.sha256:
            raise DigestMismatch(
                f"policy {policy.name} is pinned, and this file is not the pinned version",
                got=f"sha256 {policy.sha256}",
                expected=f"sha256 {pin.sha256}, number {pin.serial}",
                remedy=f"mlseal policy pin {pin.source}",
            )
