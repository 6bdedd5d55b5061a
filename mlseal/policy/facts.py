"""What the judging code needs of the world: verified facts, who signed what, what is revoked, what is withheld.

`decide` knows these protocols only. In production `mlseal.policy.source.ArchiveSource` stands behind them and every
fact is a `VerifiedStatement`; a policy's own tests and the unit tests stand behind them with samples, whose verdicts
never leave the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel

from mlseal.errors import Error
from mlseal.evidence.digest import Manifest, Subject
from mlseal.evidence.identity import Identity
from mlseal.evidence.predicates import federated_training, slsa_provenance
from mlseal.evidence.predicates.base import ResourceDescriptor
from mlseal.evidence.revocation import Revocations
from mlseal.policy.model import Matcher
from mlseal.policy.verdict import Input

_MANIFEST = "#manifest"


class Levels(Protocol):
    """Assurance as the verifier computed it."""

    @property
    def identity(self) -> str:
        """``local``, ``key`` or ``verified-token``."""

    @property
    def log(self) -> str:
        """``unwitnessed``, ``pinned`` or ``witnessed``."""

    @property
    def time(self) -> str:
        """``local`` or ``independent``."""


class VerifiedFact(Protocol):
    """A statement whose signature, log entry, time, schema and signer were verified. `VerifiedStatement` is one."""

    @property
    def evidence_id(self) -> str:
        """Hex SHA-256 of the signed bytes."""

    @property
    def bundle_sha256(self) -> str:
        """Hex SHA-256 of the bundle file that was verified."""

    @property
    def predicate_type(self) -> str:
        """URI."""

    @property
    def predicate(self) -> BaseModel:
        """The claim."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What it is about."""

    @property
    def identity(self) -> Identity:
        """Who signed."""

    @property
    def time(self) -> datetime:
        """When, as a time-stamping authority says; never what the predicate says."""

    @property
    def assurance(self) -> Levels:
        """What stands behind it."""


@dataclass(frozen=True)
class Target:
    """What evidence must be about: a name for people and the digest that binds everything.

    For a directory `sha256` is the digest of the manifest, which binds file names too; `manifest` allows evidence that
    knows only the OMS root (an OMS signature) to be compared file by file.
    """

    name: str
    sha256: str
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Rejected:
    """Evidence that a listed identity signed, by the log's word, and that does not verify."""

    evidence_id: str
    error: Error


@dataclass(frozen=True)
class Found:
    """The answer of a source: facts in log order, what does not verify, and signers that nobody listed."""

    facts: tuple[VerifiedFact, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    others: tuple[Identity, ...] = ()


@dataclass(frozen=True)
class Elsewhere:
    """The store that was asked looks like another than the log's: why, and what mends that."""

    why: str
    remedy: str


class Withheld(Protocol):
    """A log leaf that nobody shows a bundle for."""

    @property
    def origin(self) -> str:
        """Which log."""

    @property
    def index(self) -> int:
        """Which entry."""

    @property
    def evidence_id(self) -> str:
        """What was signed."""

    @property
    def identity(self) -> Identity:
        """Who signed it."""


class Source(Protocol):
    """Verified evidence up to a tree size."""

    @property
    def tree_size(self) -> int:
        """Of the log, up to which everything is accounted for."""

    def find(self, target: Target, predicate_type: str, identities: Sequence[Matcher]) -> Found:
        """All evidence of a type about a target; facts are by `identities` only."""

    def signers(self, target: Target, predicate_type: str) -> frozenset[Identity]:
        """Whoever signed evidence of a type about a target, listed or not, as the log knows it."""

    def revocations(self, revokers: Sequence[Matcher]) -> Revocations:
        """What the revokers took back, and how fresh that knowledge is."""

    def revocation_inputs(self, revokers: Sequence[Matcher]) -> tuple[Input, ...]:
        """The statements that `revocations` rests on."""

    def unresolved(self, revocations: Revocations) -> Sequence[Withheld]:
        """Leaves without a bundle."""

    def elsewhere(self) -> Elsewhere | None:
        """Whether all of them are missing because the wrong store was asked; None where it shows any of the log."""


def inputs_of(facts: Iterable[VerifiedFact]) -> tuple[Target, ...]:
    """What the facts were made from, by digest: one target per input.

    SLSA provenance names its ``resolvedDependencies``, federated training the table of each client, any other
    measurement its ``dataset``. Of a directory given as
    ``data`` and ``data#manifest`` the manifest is the target. An input without a SHA-256 cannot be followed; it is kept
    with an empty digest so that the gate sees it.
    """
    targets: list[Target] = []
    for fact in facts:
        named = [(d.name or d.uri or "input", (d.digest or {}).get("sha256", "")) for d in _descriptors(fact.predicate)]
        names = {name for name, _ in named}
        targets += [
            Target(name.removesuffix(_MANIFEST), digest) for name, digest in named if name + _MANIFEST not in names
        ]
    return tuple(dict.fromkeys(targets))


def _descriptors(predicate: BaseModel) -> list[ResourceDescriptor]:
    if isinstance(predicate, slsa_provenance.Predicate):
        return predicate.build_definition.resolved_dependencies
    if isinstance(predicate, federated_training.Predicate):
        return [ResourceDescriptor(name=c.client, digest={"sha256": c.data_sha256}) for c in predicate.clients]
    dataset = getattr(predicate, "dataset", None)
    return [dataset] if isinstance(dataset, ResourceDescriptor) else []
