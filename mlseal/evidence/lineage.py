"""Lineage: what a thing was made from, and what was made of it, as signed statements tell it.

A graph of three sorts of nodes. *Artifacts* are digests: data, models, programs. *Steps* are verified statements, each
with its signer, its verified time and how far its claim reaches. *Gaps* are statements that the log holds and that
cannot be read here. Edges say how a step and an artifact, or two steps, belong together (`EdgeKind`).

Lineage judges nothing: evidence by anybody is in it, with the name of who signed. What counts is for a policy to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from mlseal.evidence.identity import Identity
from mlseal.evidence.verifying import Assurance

Direction = Literal["up", "down"]
EdgeKind = Literal["used", "produced", "recorded", "about", "read", "revokes"]
"""Which way an edge points, and what it says.

========  =====================  ==============================================================================
used      artifact → step        the step's signer names the artifact as an input
produced  step → artifact        build provenance: made by this step
recorded  step → artifact        data provenance: pushed as that, its inputs as somebody recorded them; a claim
about     step → artifact        the statement says something of it: a measurement, an approval, a verdict
read      step or gap → step     the later statement names the earlier one as what it rests on
revokes   step → step or gap     the first takes the second back
========  =====================  ==============================================================================
"""
EDGE_KINDS: tuple[EdgeKind, ...] = get_args(EdgeKind)
GapReason = Literal["withheld", "unverifiable", "unknown"]
"""``withheld``: in the log, and nobody shows the bundle. ``unverifiable``: the bundle does not verify or cannot be
understood. ``unknown``: named by somebody, and in no log of this trust root."""


@dataclass
class Artifact:
    """A thing by its digest.

    Attributes:
        id: ``sha256:…``; for an input that nobody gave a SHA-256, ``undigested:…``.
        sha256: None for such an input, which cannot be followed.
        names: what statements about it call it; untrusted text.
        called: what steps that used it call it, such as ``data`` or ``code``; untrusted too.
        roots: OMS root digests under which the same directory was signed, names of files left out.
        followed: whether the walk went on from here; False for what only stands beside a step.
    """

    id: str
    sha256: str | None
    names: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    followed: bool = False


@dataclass(frozen=True)
class TakenBack:
    """Somebody took a statement back. It `counts` when that was its signer, or the monitor of the local authority."""

    by: Identity
    reason: str
    evidence_id: str
    counts: bool


@dataclass
class Step:
    """One verified statement.

    Attributes:
        id: ``evidence:…``.
        kind: short name of the predicate type.
        time: verified time of the signature.
        job: what ran: a stage, a build type, or the kind again.
        strength: ``measured``, ``declared``, ``inferred`` as the statement says, ``claimed`` for recorded lineage; None
            where the type knows no such thing.
        origin: of data: how they came to be, as far as is known.
        outcome: of a verdict, approval or test.
        builder: who vouches for a build.
        run_id: which run, as the statement says.
        taken_back: by whom, if at all.
    """

    id: str
    evidence_id: str
    predicate_type: str
    kind: str
    signer: Identity
    time: datetime
    log_origin: str
    log_index: int
    bundle_sha256: str
    assurance: Assurance
    job: str
    strength: str | None = None
    origin: str | None = None
    outcome: str | None = None
    builder: str | None = None
    run_id: str | None = None
    taken_back: list[TakenBack] = field(default_factory=list)

    @property
    def claimed(self) -> bool:
        """Whether its lineage is somebody's word rather than what a build or a measurement stated of itself."""
        return self.strength in {"claimed", "declared", "inferred"}

    @property
    def revoked(self) -> bool:
        """Whether somebody took it back whose word counts here."""
        return any(one.counts for one in self.taken_back)


@dataclass
class Gap:
    """A statement that cannot be read here.

    Attributes:
        id: ``evidence:…``, as the step would have it.
        accounted: its signer, or the monitor of the local authority, took it back: then it is not missed.
    """

    id: str
    evidence_id: str
    reason: GapReason
    message: str
    signer: Identity | None = None
    log_origin: str | None = None
    log_index: int | None = None
    accounted: bool = False


@dataclass(frozen=True)
class Edge:
    """One arrow, from node id to node id. `name` is what the step calls an input; untrusted text."""

    source: str
    target: str
    kind: EdgeKind
    claimed: bool = False
    name: str = ""


@dataclass
class Graph:
    """A lineage: everything that was reached from `start` in one direction.

    Attributes:
        start: ids of the nodes that were asked for.
        asked: digest that was asked for.
        tree_size: of the logs, up to which everything is accounted for or shown as a gap.
        gaps: the unplaced ones too: nobody can say what a withheld statement is about.
    """

    asked: str
    direction: Direction
    tree_size: int = 0
    start: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    gaps: dict[str, Gap] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing that could belong here."""
        return all(gap.accounted for gap in self.gaps.values())

    @property
    def ids(self) -> list[str]:
        """Every node: artifacts, steps and gaps in the order in which they were found."""
        return [*self.artifacts, *self.steps, *self.gaps]

    def placed(self) -> set[str]:
        """Ids of the nodes that an edge touches, and of the start."""
        return {*self.start, *(end for edge in self.edges for end in (edge.source, edge.target))}

    def add(self, edges: Iterable[Edge]) -> None:
        """Add `edges`, each once, in a fixed order."""
        known = dict.fromkeys([*self.edges, *edges])
        self.edges = sorted(known, key=lambda e: (EDGE_KINDS.index(e.kind), e.source, e.target, e.name))


def artifact_id(sha256: str) -> str:
    """The node id of the thing with this digest."""
    return f"sha256:{sha256}"


def evidence_node(evidence_id: str) -> str:
    """The node id of a statement, read or not."""
    return f"evidence:{evidence_id}"
