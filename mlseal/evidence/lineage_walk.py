"""From a digest to its lineage: which statements belong to it, and the graph that they make.

Up: every statement about an artifact, everything that those used, every piece of evidence that they rest on, and so on.
Down: every statement that used it, what they made, what used that, and whoever rests on one of them. A statement that
only says something *about* an artifact made nothing, so the walk down does not go on from there.

What a reached statement names beside the path stands in the graph too, not followed. The walk keeps a list of what to
visit: depth and cycles cost no stack.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlseal.errors import Misuse, NoEvidence
from mlseal.evidence.archive import Archive
from mlseal.evidence.digest import measure
from mlseal.evidence.lineage import (
    Artifact,
    Direction,
    Edge,
    Gap,
    Graph,
    TakenBack,
    artifact_id,
    evidence_node,
)
from mlseal.evidence.lineage_links import Thing
from mlseal.evidence.lineage_shelf import Progress, Shelf, Statement, gap_of
from mlseal.evidence.predicates import revocation

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{8,64})")
_EVIDENCE = evidence_node("")


def read(
    archive: Archive, asked: str, direction: Direction, *, progress: Progress = lambda _done, _total: None
) -> Graph:
    """The lineage of `asked`: a SHA-256, a unique prefix of eight digits or more, an evidence id, or a path.

    The archive is brought up to the log first; a path is measured. What cannot be read is in the graph as a gap, and
    `Graph.complete` is then false: the caller must say so.

    Raises `Misuse` for a prefix that several digests have, `NoEvidence` when nothing that can be read names the digest,
    `Unreadable` and `Unchecked` as the file system and the log have it.
    """
    archive.refresh()
    return _Walk(archive, direction, progress).graph(asked)


class _Walk:
    def __init__(self, archive: Archive, direction: Direction, progress: Progress) -> None:
        self._archive, self._direction = archive, direction
        self._shelf = Shelf(archive, progress)
        self._artifacts: dict[str, Artifact] = {}
        self._reached: dict[str, Statement | Gap] = {}
        self._gap_at: dict[str, set[str]] = defaultdict(set)
        self._pending: list[str] = []

    def graph(self, asked: str) -> Graph:
        sha256, start = self._start(asked)
        taken = self._shelf.taken_back()
        self._visit_all(start)
        found = Graph(sha256, self._direction, self._archive.tree_size, tuple(start))
        edges: list[Edge] = []
        for evidence_id, one in self._in_log_order():
            if isinstance(one, Gap):
                found.gaps[one.id] = one
            else:
                found.steps[one.step.id] = one.step
            edges += self._edges(evidence_id, one)
        found.add([*edges, *self._mark(found, taken)])
        self._add_unplaced(found, taken)
        found.artifacts = self._artifacts
        if not found.steps and not found.edges and not any(node in found.gaps for node in start):
            raise NoEvidence(
                f"no statement that can be read {'is about' if self._direction == 'up' else 'used'} {sha256[:16]}…",
                got=f"{len(found.gaps)} log entries that cannot be read" if found.gaps else None,
                remedy="check the digest and the direction, or pass the --store and --trust that hold its evidence",
            )
        return found

    # Where to start.

    def _start(self, asked: str) -> tuple[str, list[str]]:
        digits, path = _DIGEST.fullmatch(asked), Path(asked)
        if _exists(path):
            if digits:
                raise Misuse("this is a digest and a path", got=asked, remedy=f"write ./{asked} for the path")
            measured = measure(path)
            if measured.manifest is not None:
                self._shelf.pair(measured.sha256, measured.manifest.oms_root)
            return measured.sha256, self._nodes(Thing(measured.name, measured.sha256))
        if not digits:
            raise Misuse(
                "neither a digest nor a path",
                got=asked[:80],
                expected="a SHA-256 (64 hex digits, or the first eight or more), or a file or directory",
            )
        digest = digits[1].lower()
        sha256 = digest if len(digest) == 64 else self._completed(digest)
        if self._archive.index.leaf(sha256) is not None:
            return sha256, [evidence_node(sha256)]
        return sha256, self._nodes(Thing("", sha256))

    def _completed(self, prefix: str) -> str:
        fitting = sorted({digest for digest in self._shelf.digests() if digest.startswith(prefix)})
        if not fitting:
            raise NoEvidence(
                f"no statement names a digest that begins with {prefix}", remedy="check it, or pass all 64 digits"
            )
        if len(fitting) > 1:
            raise Misuse(
                f"{len(fitting)} digests begin with {prefix}",
                got=", ".join(f"{digest[: len(prefix) + 8]}…" for digest in fitting[:4]),
                remedy="write more digits",
            )
        return fitting[0]

    # The walk.

    def _visit_all(self, start: Iterable[str]) -> None:
        self._pending += start
        while self._pending:
            node = self._pending.pop()
            if node.startswith(_EVIDENCE):
                self._visit_evidence(node.removeprefix(_EVIDENCE))
            elif not self._artifacts[node].followed:
                self._visit_artifact(self._artifacts[node])

    def _visit_artifact(self, artifact: Artifact) -> None:
        if artifact.sha256 is None:
            return
        artifact.followed = True
        found = self._shelf.about if self._direction == "up" else self._shelf.using
        for evidence_id in found(artifact.sha256):
            if isinstance(self._shelf.statement(evidence_id), Gap):
                self._gap_at[evidence_id].add(artifact.id)
            self._pending.append(evidence_node(evidence_id))

    def _visit_evidence(self, evidence_id: str) -> None:
        if evidence_id in self._reached:
            return
        one = self._reached[evidence_id] = self._shelf.statement(evidence_id)
        if self._direction == "down":
            self._pending += map(evidence_node, self._shelf.readers(evidence_id))
        if isinstance(one, Gap):
            return
        if self._direction == "up":
            self._pending += [node for thing in one.links.used for node in self._nodes(thing, evidence_id, used=True)]
            self._pending += map(evidence_node, one.links.reads)
            if one.step.predicate_type == revocation.URI:
                self._pending += [evidence_node(target) for target, _ in one.links.revokes]
        elif one.links.makes != "about":
            self._pending += [node for thing in one.links.things for node in self._nodes(thing, evidence_id)]

    # The graph.

    def _nodes(self, thing: Thing, evidence_id: str = "", *, used: bool = False) -> list[str]:
        """Node ids of what `thing` names, made where new. A bare OMS root stands for every directory paired with it."""
        if thing.sha256 is None:
            node = f"undigested:{evidence_id[:16]}:{thing.name}"
            self._artifacts.setdefault(node, Artifact(node, None, called=[thing.name]))
            return [node]
        nodes = []
        for sha256 in [thing.sha256] if thing.root else self._shelf.manifests_of(thing.sha256):
            node = artifact_id(sha256)
            made = self._artifacts.setdefault(node, Artifact(node, sha256))
            made.roots = sorted(self._shelf.roots_of(sha256))
            known = made.called if used else made.names
            if thing.name and thing.name not in known:
                known.append(thing.name)
            nodes.append(node)
        return nodes

    def _edges(self, evidence_id: str, one: Statement | Gap) -> Iterator[Edge]:
        """Every edge of a statement that was reached; of a gap, only where it was met."""
        node = evidence_node(evidence_id)
        if isinstance(one, Gap):
            for artifact in sorted(self._gap_at[evidence_id]):
                up = self._direction == "up"
                yield Edge(node, artifact, "about", True) if up else Edge(artifact, node, "used", True)
            return
        links = one.links
        for thing in links.used:
            for source in self._nodes(thing, evidence_id, used=True):
                yield Edge(source, node, "used", thing.claimed, thing.name)
        for thing in () if links.revokes else links.things:  # the subject of a revocation is the evidence itself
            for target in self._nodes(thing, evidence_id):
                yield Edge(node, target, links.makes, one.step.claimed)
        for earlier in links.reads:
            if earlier in self._reached:
                yield Edge(evidence_node(earlier), node, "read")

    def _in_log_order(self) -> list[tuple[str, Statement | Gap]]:
        def place(item: tuple[str, Statement | Gap]) -> tuple[str, int, str]:
            one = item[1].step if isinstance(item[1], Statement) else item[1]
            return one.log_origin or "", -1 if one.log_index is None else one.log_index, item[0]

        return sorted(self._reached.items(), key=place)

    def _mark(self, found: Graph, taken: dict[str, list[TakenBack]]) -> list[Edge]:
        """Say of each step who took it back, and add the revocations of what is shown; returns their edges."""
        edges = []
        for node in [*found.steps, *found.gaps]:
            for one in taken.get(node.removeprefix(_EVIDENCE), ()):
                by = self._shelf.statement(one.evidence_id)
                if isinstance(by, Statement):
                    found.steps.setdefault(by.step.id, by.step)
                    edges.append(Edge(by.step.id, node, "revokes"))
        for step in found.steps.values():
            step.taken_back = taken.get(step.evidence_id, [])
        return edges

    def _add_unplaced(self, found: Graph, taken: dict[str, list[TakenBack]]) -> None:
        """Gaps that no edge touches: what nobody shows may be about anything."""
        for leaf in self._archive.index.unresolved():
            gap = gap_of(leaf, "withheld", "nobody shows its bundle")
            found.gaps.setdefault(gap.id, gap)
        for evidence_id in self._shelf.unread:
            one = self._shelf.statement(evidence_id)
            if isinstance(one, Gap):
                found.gaps.setdefault(one.id, one)
        for gap in found.gaps.values():
            gap.accounted = any(one.counts for one in taken.get(gap.evidence_id, ()))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a name, or a null byte
        return False
