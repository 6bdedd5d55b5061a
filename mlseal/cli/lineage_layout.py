"""Places for the boxes of a directed graph: layers from left to right, none over another, few crossings.

The known steps (Sugiyama, Tagawa and Toda, 1981), each in its simplest form that looks right:

1. Edges that close a cycle are turned round, found by a depth-first walk with a stack of its own.
2. A node's layer is the longest path to it. Edges over several layers get a bend in each layer between.
3. Within a layer nodes are sorted by the mean place of their neighbours, forth and back.
4. Heights: each node as near to the mean of its neighbours as order and sizes allow, which is an isotonic regression
   (pool adjacent violators).

Knows nothing of lineage and nothing of drawing. Linear in nodes and edges but for sorting; no recursion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

Size = tuple[float, float]
Point = tuple[float, float]
Edge = tuple[int, int]
_SWEEPS = 8
_BEND_HEIGHT = 8.0
_MAX_BENDS = 40_000
"""With more, edges go straight: nobody reads such a picture, and it should not cost minutes."""


@dataclass(frozen=True)
class Box:
    """A place: left upper corner and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Boxes by the number of the node, for each edge the points through which it goes, and the extent of all."""

    boxes: tuple[Box, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def place(sizes: Sequence[Size], edges: Sequence[Edge], *, gap_x: float = 64, gap_y: float = 24) -> Layout:
    """Places for nodes of these `sizes`, numbered from 0, with `edges` between their numbers.

    No two boxes overlap. A route goes from the right side of its source to the left side of its target; one that was
    turned round goes from the source's left side back to the target's right side, one to itself is a point.
    """
    forward = _without_cycles(len(sizes), edges)
    layer = _layers(len(sizes), forward)
    heights = [height for _, height in sizes]
    rows: list[list[int]] = [[] for _ in range(max(layer, default=-1) + 1)]
    for node, index in enumerate(layer):
        rows[index].append(node)
    chains = _chains(forward, layer, rows, heights)
    links = [pair for chain in chains for pair in pairwise(chain) if pair[0] != pair[1]]
    before, after = _neighbours(len(heights), links)
    _order(rows, before, after)
    tops = _tops(rows, heights, before, after, gap_y)
    widths = [max(sizes[node][0] for node in row if node < len(sizes)) for row in rows]
    lefts = list(accumulate((width + gap_x for width in widths), initial=0.0))
    boxes = tuple(Box(lefts[layer[node]], tops[node], *size) for node, size in enumerate(sizes))
    routes = []
    for (source, _), chain in zip(edges, chains, strict=True):
        points = list(_route(chain, boxes, tops, layer, lefts, widths))
        routes.append(tuple(points if chain[0] == source else reversed(points)))
    ends = [top + height for top, height in zip(tops, heights, strict=True)]
    return Layout(boxes, tuple(routes), max((b.x + b.width for b in boxes), default=0.0), max(ends, default=0.0))


def _without_cycles(count: int, edges: Sequence[Edge]) -> list[Edge]:
    """The edges, those that lead back to a node on the walk's own path turned round (step 1)."""
    after: list[list[int]] = [[] for _ in range(count)]
    for number, (source, _) in enumerate(edges):
        after[source].append(number)
    result, state = list(edges), [0] * count  # 0 unseen, 1 on the path, 2 done
    for root in range(count):
        path = [(root, iter(after[root]))] if not state[root] else []
        state[root] = state[root] or 1
        while path:
            node, numbers = path[-1]
            for number in numbers:
                target = edges[number][1]
                if state[target] == 1:
                    result[number] = (target, node)
                elif not state[target]:
                    state[target] = 1
                    path.append((target, iter(after[target])))
                    break
            else:
                state[node] = 2
                path.pop()
    return result


def _layers(count: int, edges: Sequence[Edge]) -> list[int]:
    """Longest path to each node; a node that nothing leads to stands just before the first that it leads to."""
    before, after = _neighbours(count, [edge for edge in edges if edge[0] != edge[1]])
    layer, open_ = [0] * count, [len(sources) for sources in before]
    ready = [node for node in range(count) if not open_[node]]
    for node in ready:  # grows while it is read
        for target in after[node]:
            layer[target] = max(layer[target], layer[node] + 1)
            open_[target] -= 1
            if not open_[target]:
                ready.append(target)
    for node in range(count):
        if not before[node] and after[node]:
            layer[node] = min(layer[target] for target in after[node]) - 1
    return layer


def _chains(edges: Sequence[Edge], layer: list[int], rows: list[list[int]], heights: list[float]) -> list[list[int]]:
    """Each edge as the nodes and bends that it passes; bends are numbered on, and added to `rows` and `heights`."""
    straight = sum(max(layer[target] - layer[source] - 1, 0) for source, target in edges) > _MAX_BENDS
    chains = []
    for source, target in edges:
        between = range(0) if straight else range(layer[source] + 1, layer[target])
        chain = [source]
        for index in between:
            chain.append(len(heights))
            rows[index].append(len(heights))
            heights.append(_BEND_HEIGHT)
            layer.append(index)
        chains.append([*chain, target])
    return chains


def _neighbours(count: int, edges: Iterable[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for source, target in edges:
        after[source].append(target)
        before[target].append(source)
    return before, after


def _order(rows: list[list[int]], before: list[list[int]], after: list[list[int]]) -> None:
    """Sort each row by the mean place of its neighbours in the row it was swept from (step 3)."""
    at = {node: float(index) for row in rows for index, node in enumerate(row)}
    for sweep in range(_SWEEPS):
        near = before if sweep % 2 == 0 else after
        for row in rows if sweep % 2 == 0 else reversed(rows):
            means = {node: _mean([at[other] for other in near[node]], at[node]) for node in row}
            row.sort(key=lambda node: means[node])
            at.update({node: float(index) for index, node in enumerate(row)})


def _tops(
    rows: Sequence[list[int]],
    heights: Sequence[float],
    before: Sequence[list[int]],
    after: Sequence[list[int]],
    gap: float,
) -> list[float]:
    """Upper edges (step 4), the least of them 0."""
    middle = [0.0] * len(heights)
    for row in rows:
        for node, top in zip(row, accumulate((heights[n] + gap for n in row), initial=0.0), strict=False):
            middle[node] = top + heights[node] / 2
    for sweep in range(_SWEEPS):
        last = sweep >= _SWEEPS - 2
        for row in rows if sweep % 2 == 0 else reversed(rows):
            near = [[*before[n], *after[n]] if last else before[n] if sweep % 2 == 0 else after[n] for n in row]
            wanted = [
                _mean([middle[other] for other in others], middle[n]) for n, others in zip(row, near, strict=True)
            ]
            apart = [(heights[one] + heights[two]) / 2 + gap for one, two in pairwise(row)]
            for node, place_ in zip(row, _spread(wanted, apart), strict=True):
                middle[node] = place_
    tops = [centre - height / 2 for centre, height in zip(middle, heights, strict=True)]
    least = min(tops, default=0.0)
    return [top - least for top in tops]


def _spread(wanted: Sequence[float], apart: Sequence[float]) -> list[float]:
    """Places nearest to `wanted` (least squares) that keep their order and at least `apart` from one to the next."""
    offsets = list(accumulate(apart, initial=0.0))
    blocks: list[tuple[float, int]] = []  # mean and number of members
    for value in (want - offset for want, offset in zip(wanted, offsets, strict=True)):
        mean, members = value, 1
        while blocks and blocks[-1][0] > mean:
            other, more = blocks.pop()
            mean, members = (mean * members + other * more) / (members + more), members + more
        blocks.append((mean, members))
    flat = [mean for mean, members in blocks for _ in range(members)]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]


def _route(
    chain: Sequence[int],
    boxes: Sequence[Box],
    tops: Sequence[float],
    layer: Sequence[int],
    lefts: Sequence[float],
    widths: Sequence[float],
) -> Iterable[Point]:
    """From the right side of the first box, level through each column between, to the left side of the last."""
    first, last = boxes[chain[0]], boxes[chain[-1]]
    yield first.x + first.width, first.y + first.height / 2
    for bend in chain[1:-1]:
        left, middle = lefts[layer[bend]], tops[bend] + _BEND_HEIGHT / 2
        yield left, middle
        yield left + widths[layer[bend]], middle
    if chain[0] != chain[-1]:
        yield last.x, last.y + last.height / 2


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
