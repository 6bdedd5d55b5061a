"""A ready policy with its placeholders filled: who signs, which question fairness answers, which models are meant.

A pack stands for itself and extends nothing: its owner edits it, and under a layer each edit would change the digest
that the layer names.

1. Identities under ``https://authority.example`` become those of the caller's authority or identity provider.
2. Each ``SET-…`` for which there is a value becomes that value; what is left permits nothing, and is told.
3. The result is loaded strictly and its controls are run, so that a pack that was filled badly is never handed out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from mlseal.errors import Misuse, UnknownName
from mlseal.evidence.clock import rfc3339
from mlseal.policy import controls, plainyaml
from mlseal.policy.load import parse
from mlseal.policy.model import Policy
from mlseal.policy.packs import training
from mlseal.policy.schema import Control, Controls

ROLES = ("producer", "evaluator", "monitor", "gate", "owner")
"""Whom a pack names once each; people who approve are named apart."""
SETTINGS = {
    "outcome": "the column that says what really happened",
    "attribute": "the column of the groups that are compared",
    "table": "the file of the held-out table inside its data set",
    "suite": "SHA-256 of the suite that training data must pass",
    "model": "which models are governed, a pattern such as risk-*; all of them if not set",
    "name": "what the policy is called, such as outreach/1",
}
_FOLDER = Path(__file__).parent
_THERE = "https://authority.example"
_EXEMPT = timedelta(days=365)
_NEVER = "2000-01-01T00:00:00Z"
_LOCAL = "assurance: {identity: local, log: pinned, time: local}"
_STRICTEST = "assurance: {identity: verified-token, log: witnessed, time: independent}"
_LOCAL_WHY = "# An authority of your own is as good as its machine: its users, its clock, a log without a witness."
_STRICT_WHY = "# The strictest there is. Whoever lowers a level says here why."
_PLAIN = re.compile(r"[A-Za-z0-9_]+([ ./-]?[A-Za-z0-9_]+)*")
_SHAPES = {
    "suite": (re.compile(r"[0-9a-f]{64}"), "64 hex digits, as sha256sum prints"),
    "model": (re.compile(r"[A-Za-z0-9_.*/-]{1,200}"), "letters, digits and _ . / - *"),
    "name": (re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*"), "lower-case letters, digits, . _ - and /"),
}
_MAX = 100


@dataclass(frozen=True)
class People:
    """Who signs what.

    Attributes:
        issuer: of the identities under `roles`; ``https://NAME/issuer`` for an authority NAME of one's own.
        roles: SAN by role, each of `ROLES`; empty for an authority, whose roles have a known SAN.
        reviewers: SANs of people, or ``@domain`` for anybody at it; empty for an authority: its role ``reviewer``.
        reviewers_issuer: of the reviewers; `issuer` if None.
        authority: name of the authority of one's own that serves `issuer`, if it is one.
    """

    issuer: str
    roles: Mapping[str, str] = field(default_factory=dict)
    reviewers: Sequence[str] = ()
    reviewers_issuer: str | None = None
    authority: str | None = None

    @classmethod
    def of_authority(cls, name: str) -> People:
        """The roles of a private authority, as `mlseal init` makes them."""
        return cls(f"https://{name}/issuer", authority=name)


@dataclass(frozen=True)
class Filled:
    """A pack as it is handed out: two texts, the policy that they make, and which settings are still open."""

    text: str
    controls: str
    policy: Policy
    tests: tuple[Control, ...]
    unset: tuple[str, ...]


def names() -> tuple[str, ...]:
    """The packs that ship."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.yaml")))


def text_of(name: str, trained_by: str = training.RUN) -> tuple[str, str]:
    """A pack for models of one stage of training, and its controls, placeholders and all. Raises `UnknownName`."""
    if name not in names():
        raise UnknownName("no such pack", got=name[:100], expected=", ".join(names()))
    text, beside = (_FOLDER / f"{name}.yaml").read_text(), (_FOLDER / f"{name}.tests" / "controls.yaml").read_text()
    return training.swapped(text, beside, trained_by)


def title_of(name: str) -> str:
    """What a pack is for, in one sentence: its first line."""
    return text_of(name)[0].partition("\n")[0].removeprefix("# ")


def fill(
    name: str, people: People, settings: Mapping[str, str], *, now: datetime, trained_by: str = training.RUN
) -> Filled:
    """The pack `name` for these people and settings and models of one stage of training, loaded and tested.

    Raises `Misuse` for a setting that is unknown or no such value, for a role without an identity or two with one, and
    `PolicyInvalid` if the result could not be loaded.
    """
    text, beside = substituted(name, people, settings, now=now, trained_by=trained_by)
    policy = parse(text.encode(), name=f"the pack {name}")  # (3)
    tests = tuple(Controls.model_validate(plainyaml.parse(beside.encode(), f"controls of {name}").value).tests)
    for outcome in controls.run(policy, tests, now=now):
        if not outcome.passed:
            raise Misuse(
                "with these identities the pack would not stop what it must",
                got=f"{outcome.name}: {outcome.problem}",
                expected=f"{outcome.expected}",
                remedy="give each role its own identity, and reviewers one that no role has",
            )
    return Filled(text, beside, policy, tests, tuple(key for key in SETTINGS if f"SET-{key.upper()}" in text))


def substituted(
    name: str, people: People, settings: Mapping[str, str], *, now: datetime, trained_by: str = training.RUN
) -> tuple[str, str]:
    """The texts of the pack `name` and of its controls, filled and not yet looked at. Raises `Misuse` as `fill`."""
    text, beside = text_of(name, trained_by)
    for key, value in settings.items():
        _require(key, value)
    named = settings.get("name", f"pack-{name}/1" if trained_by == training.RUN else f"pack-{name}-{trained_by}/1")
    text = text.replace(f"policy: pack-{name}/1", f"policy: {named}", 1).replace(_NEVER, rfc3339(now + _EXEMPT))
    text = text.replace('model: "*"', f'model: "{settings.get("model", "*")}"')
    if people.authority is None:
        text = text.replace(_LOCAL_WHY, _STRICT_WHY).replace(_LOCAL, _STRICTEST)
    return _signed(_set(text, settings), people), _signed(_set(beside, settings), people)  # (1, 2)


def _require(key: str, value: str) -> None:
    if key not in SETTINGS:
        raise Misuse("a pack has no such setting", got=key[:100], expected=", ".join(SETTINGS))
    shape, words = _SHAPES.get(
        key, (_PLAIN, "letters, digits and _, with single spaces, dots, slashes or dashes between")
    )
    if len(value) > _MAX or not shape.fullmatch(value):
        raise Misuse(f"{key} cannot be that", got=value[:100], expected=words)


def _set(text: str, settings: Mapping[str, str]) -> str:
    for key, value in settings.items():
        text = text.replace(f"SET-{key.upper()}", value)
    return text


def _signed(text: str, people: People) -> str:
    """`text` with the identities of `people` in place of those of the imagined authority."""
    for role in ROLES:
        text = text.replace(_written(f"{_THERE}/issuer", f"{_THERE}/roles/{role}"), _identity(people, role))
    listed, examples = _reviewers(people)
    text = text.replace(f'{{issuer: "{_THERE}/issuer", role: reviewer}}', listed)
    for person, written in examples.items():
        text = text.replace(_written(f"{_THERE}/issuer", f"{_THERE}/roles/reviewer/{person}"), written)
    return text


def _identity(people: People, role: str) -> str:
    known = f"https://{people.authority}/roles/{role}" if people.authority else None
    san = people.roles.get(role, known)
    if san is None:
        raise Misuse(
            f"nobody is named for the role {role}",
            expected=", ".join(ROLES),
            remedy=f"pass --identity {role}=SAN; without --issuer the pinned authority's roles are taken",
        )
    return _written(people.issuer, san)


def _reviewers(people: People) -> tuple[str, dict[str, str]]:
    """Who may approve, as a policy lists it, and two of them by name, as its controls imagine them."""
    issuer = people.reviewers_issuer or people.issuer
    if not people.reviewers:
        if people.authority is None or issuer != people.issuer:
            raise Misuse(
                "nobody may approve", expected="people", remedy="pass --identity reviewer=SAN, or reviewer=@domain"
            )
        sans = {person: f"https://{people.authority}/roles/reviewer/{person}" for person in ("ana", "ben")}
        return f"{{issuer: {json.dumps(issuer)}, role: reviewer}}", {k: _written(issuer, v) for k, v in sans.items()}
    listed = [
        f"{{issuer: {json.dumps(issuer)}, emailDomain: {json.dumps(one[1:])}}}"
        if one.startswith("@")
        else _written(issuer, one)
        for one in people.reviewers
    ]
    imagined = [
        person for one in people.reviewers for person in ([f"ana{one}", f"ben{one}"] if one.startswith("@") else [one])
    ]
    ana, ben = imagined[0], imagined[min(1, len(imagined) - 1)]
    return ", ".join(listed), {"ana": _written(issuer, ana), "ben": _written(issuer, ben)}


def _written(issuer: str, san: str) -> str:
    return f"{{issuer: {json.dumps(issuer)}, san: {json.dumps(san)}}}"
