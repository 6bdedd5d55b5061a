"""A lineage as one HTML page that needs nothing else: a picture (SVG), its legend, and everything in words below.

The page is well-formed XML too, loads nothing, runs nothing and forbids both (Content-Security-Policy). Names stand in
it as text only, escaped after `visible` made them harmless to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from mlseal.cli.lineage_layout import Box, Point, place
from mlseal.cli.lineage_words import DISCLAIMER, SCHEMA, Style, lines, style, title, visible
from mlseal.evidence.lineage import Edge, Graph

WIDTH = 272.0
_LINE, _PAD, _MARGIN = 15.0, 10.0, 24.0
_CHARS = 38
"""Characters of the small print that fit into a box; a title has room for fewer."""
_TITLE_CHARS = 31
_REST = {"about", "read"}
"""Edges that are no lineage; drawn thin, and `about` from the artifact on, since the statement came after it."""
_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #202124; background: #fff; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
code, td.id { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85em; overflow-wrap: anywhere; }
p { margin: .3rem 0; max-width: 60rem; }
.alarm { background: #fde3e1; border: 1px solid #c5221f; padding: .5rem .8rem; }
.picture { overflow: auto; border: 1px solid #dadce0; margin: 1rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; font-size: .85rem; margin: .6rem 0; }
.legend svg { vertical-align: middle; margin-right: .4rem; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { text-align: left; vertical-align: top; border-top: 1px solid #dadce0; padding: .3rem .6rem .3rem 0; }
svg text { font-family: system-ui, "DejaVu Sans", sans-serif; font-size: 11.5px; fill: #3c4043; }
svg text.title { font-size: 13px; font-weight: 600; fill: #202124; }
svg text.kind { font-size: 10px; fill: #5f6368; letter-spacing: .04em; }
rect.box { fill: #fff; stroke: #5f6368; stroke-width: 1.2; }
.artifact rect.box { fill: #e8f0fb; stroke: #1a56b0; }
.aside rect.box { fill: #fff; stroke: #8ab0e8; }
.build rect.box { fill: #e6f4ea; stroke: #137333; }
.measured rect.box { fill: #f3eefc; stroke: #6a3fb5; }
.judged rect.box { fill: #f1f3f4; stroke: #5f6368; }
.claim rect.box { fill: #fff8e1; stroke: #a36a00; stroke-dasharray: 5 3; }
.revoked rect.box, .revocation rect.box { fill: #fde3e1; stroke: #c5221f; }
.revoked rect.box { stroke-width: 2.2; }
.revoked text.title { text-decoration: line-through; fill: #c5221f; }
.gap rect.box { fill: #fff; stroke: #c5221f; stroke-width: 1.8; stroke-dasharray: 2 3; }
.gap text.title { fill: #c5221f; }
.asked rect.box { stroke-width: 3; }
path.edge { fill: none; stroke: #3c4043; stroke-width: 1.6; }
path.claimed { stroke: #a36a00; stroke-dasharray: 7 4; }
path.rest { stroke: #9aa0a6; stroke-width: 1; }
path.revokes { stroke: #c5221f; stroke-width: 1.6; }
"""


def write(graph: Graph) -> str:
    """The page. Every node of the graph is in the picture, except gaps that nobody can place; those stand in words."""
    name = title(graph, graph.start[0]) if graph.start else graph.asked
    what = "what it was made from" if graph.direction == "up" else "what it was used for"
    heading = f"{name}: {what}"
    parts = [
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head><meta charset="utf-8"/>',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>",
        '<meta name="viewport" content="width=device-width"/>',
        f"<title>{_text(heading)}</title><style>{_CSS}</style></head><body>",
        f"<h1>{_text(heading)}</h1>",
        f"<p><code>sha256:{_text(graph.asked)}</code> up to log size {graph.tree_size} · {_text(SCHEMA)}</p>",
        f"<p>{_text(DISCLAIMER)}</p>",
        *_alarm(graph),
        *_legend(),
        f'<div class="picture" tabindex="0">{picture(graph)}</div>',
        *_tables(graph),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def picture(graph: Graph) -> str:
    """The SVG alone."""
    nodes = _nodes(graph)
    number = {node.id: index for index, node in enumerate(nodes)}
    edges = [edge for edge in graph.edges if edge.source in number and edge.target in number]
    drawn = [
        (number[e.target], number[e.source]) if _turned(e) else (number[e.source], number[e.target]) for e in edges
    ]
    layout = place([(WIDTH, node.height) for node in nodes], drawn)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    paths = [_path(edge, route) for edge, route in zip(edges, layout.routes, strict=True)]
    boxes = [_box(node, box) for node, box in zip(nodes, layout.boxes, strict=True)]
    extent = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {extent} role="img" aria-label="lineage">',
            _MARKERS,
            f'<g transform="translate({_MARGIN:.0f} {_MARGIN:.0f})">',
            *paths,
            *boxes,
            "</g></svg>",
        ]
    )


@dataclass(frozen=True)
class _Node:
    id: str
    look: Style
    kind: str
    title: str
    lines: list[str]
    asked: bool
    aside: bool

    @property
    def height(self) -> float:
        return 2 * _PAD + 12 + 17 + _LINE * len(self.lines)


def _nodes(graph: Graph) -> list[_Node]:
    placed = graph.placed()
    return [
        _Node(
            node,
            style(graph, node),
            _kind(graph, node),
            _cut(title(graph, node), _TITLE_CHARS),
            [_cut(line, _CHARS) for line in lines(graph, node)[:6]],
            node in graph.start,
            node in graph.artifacts and not graph.artifacts[node].followed,
        )
        for node in graph.ids
        if node in placed
    ]


def _kind(graph: Graph, node: str) -> str:
    if node in graph.artifacts:
        artifact = graph.artifacts[node]
        beside = "" if artifact.followed or artifact.sha256 is None else " · not followed"
        return ("directory" if artifact.roots else "artifact") + beside
    look = style(graph, node)
    return {
        "build": "build provenance",
        "claim": "claim",
        "measured": "statement",
        "judged": "decision",
        "revoked": "taken back",
        "revocation": "revocation",
        "gap": "gap",
    }.get(look, look)


def _turned(edge: Edge) -> bool:
    """Whether the edge is laid out against its direction: what is said of a thing comes after the thing."""
    return edge.kind in {"about", "revokes"}


def _path(edge: Edge, route: tuple[Point, ...]) -> str:
    look = "revokes" if edge.kind == "revokes" else "rest" if edge.kind in _REST else "claimed" if edge.claimed else ""
    marker = {"about": "", "revokes": ' marker-start="url(#red)"'}.get(
        edge.kind, ' marker-end="url(#grey)"' if edge.kind == "read" else ' marker-end="url(#tip)"'
    )
    dashed = ' stroke-dasharray="3 3"' if edge.claimed and edge.kind == "about" else ""
    return f'<path class="edge {look}" d="{_curve(route)}"{marker}{dashed}><title>{edge.kind}</title></path>'


def _curve(route: tuple[Point, ...]) -> str:
    """A line that leaves and enters each point level."""
    (x, y), *rest = route
    words = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        if abs(to_y - y) < 0.05:
            words.append(f"L{to_x:.1f} {to_y:.1f}")
        else:
            bow = max(abs(to_x - x) / 2, 30)
            words.append(f"C{x + bow:.1f} {y:.1f} {to_x - bow:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return " ".join(words)


def _box(node: _Node, box: Box) -> str:
    round_ = 14 if node.look == "artifact" else 3
    x, y = 12, _PAD
    rows = [
        f'<text class="kind" x="{x:.1f}" y="{y + 8:.1f}">{_text(node.kind.upper())}</text>',
        f'<text class="title" x="{x:.1f}" y="{y + 25:.1f}">{_text(node.title)}</text>',
        *(
            f'<text x="{x:.1f}" y="{y + 42 + _LINE * index:.1f}">{_text(line)}</text>'
            for index, line in enumerate(node.lines)
        ),
    ]
    marks = f"{' asked' if node.asked else ''}{' aside' if node.aside else ''}"
    place_ = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    # The inner svg cuts off what does not fit: glyphs may be as wide as a name's author likes.
    return (
        f'<g class="node {node.look}{marks}"><title>{_text(node.id)}</title><rect class="box" {place_} rx="{round_}"/>'
        f"<svg {place_}>{''.join(rows)}</svg></g>"
    )


_MARKERS = "<defs>{}</defs>".format(
    "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9"'
        f' markerUnits="userSpaceOnUse" orient="auto-start-reverse"><path d="M0 1L10 5L0 9z" fill="{colour}"/></marker>'
        for name, colour in (("tip", "#3c4043"), ("grey", "#9aa0a6"), ("red", "#c5221f"))
    )
)


def _alarm(graph: Graph) -> Iterator[str]:
    missing = [gap for gap in graph.gaps.values() if not gap.accounted]
    if missing:
        yield (
            f'<p class="alarm"><strong>Incomplete.</strong> {len(missing)} statement(s) of the log cannot be read here.'
            " Any of them may belong to this lineage.</p>"
        )


def _legend() -> Iterator[str]:
    looks = [
        ("artifact", "data, model, program: known by its digest"),
        ("build", "build provenance"),
        ("claim", "claimed: recorded or declared by the signer"),
        ("measured", "measurement or other statement"),
        ("judged", "decision of a gate or a person"),
        ("revoked", "taken back"),
        ("gap", "gap: cannot be read"),
    ]
    lines_ = [
        ("", "used or made, as a build or measurement states"),
        ("claimed", "used or made, as somebody claims"),
        ("rest", "says something of it (plain), rests on (arrow)"),
        ("revokes", "takes back"),
    ]
    yield '<div class="legend">'
    for look, words in looks:
        round_ = 6 if look == "artifact" else 1
        yield (
            f'<span><svg width="26" height="16" aria-hidden="true"><g class="{look}"><rect class="box" x="2" y="2"'
            f' width="22" height="12" rx="{round_}"/></g></svg>{_text(words)}</span>'
        )
    for look, words in lines_:
        yield (
            f'<span><svg width="34" height="16" aria-hidden="true"><path class="edge {look}" d="M1 8L33 8"/></svg>'
            f"{_text(words)}</span>"
        )
    yield "</div>"


def _tables(graph: Graph) -> Iterator[str]:
    placed = graph.placed()
    if unplaced := [gap for gap in graph.gaps if gap not in placed]:
        yield "<h2>In the log, and nobody can say what about</h2>"
        yield from _table(graph, unplaced)
    yield "<h2>Statements, in the order of the log</h2>"
    yield from _table(graph, [*graph.steps, *(gap for gap in graph.gaps if gap in placed)])
    yield "<h2>Things</h2>"
    yield from _table(graph, list(graph.artifacts))


def _table(graph: Graph, nodes: list[str]) -> Iterator[str]:
    yield "<table>"
    for node in nodes:
        said = " · ".join(lines(graph, node))
        yield (
            f"<tr><td>{_text(_kind(graph, node))}</td><td>{_text(title(graph, node))}<br/>{_text(said)}</td>"
            f'<td class="id">{_text(node)}</td></tr>'
        )
    yield "</table>"


def _text(text: str) -> str:
    return escape(visible(text), quote=True)


def _cut(text: str, limit: int) -> str:
    """As much of a line as a box holds: the end matters more than the middle, since that is where URIs differ."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 3]}…{text[-(limit - limit // 3 - 1) :]}"
