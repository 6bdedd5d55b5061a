"""A lineage as an indented list, and as Graphviz source.

The list begins at what was asked for and goes on with what it rests on (or what rests on it), each node once: where it
turns up again stands a reference. It is written from a stack, so that a long chain costs no recursion, and its
indentation stops where the terminal would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mlseal.cli.lineage_words import DISCLAIMER, Style, lines, short, style, title, visible
from mlseal.evidence.lineage import EDGE_KINDS, Edge, EdgeKind, Graph

if TYPE_CHECKING:
    from rich.console import Console

_INDENT_STOPS = 14
_TO_SOURCE: dict[EdgeKind, str] = {
    "used": "used",
    "produced": "produced by",
    "recorded": "recorded by",
    "about": "spoken of by",
    "read": "rests on",
    "revokes": "taken back by",
}
_TO_TARGET: dict[EdgeKind, str] = {
    "used": "used by",
    "produced": "produced",
    "recorded": "recorded",
    "about": "about",
    "read": "relied on by",
    "revokes": "takes back",
}
_COLOURS: dict[Style, str] = {
    "artifact": "bold cyan",
    "build": "bold",
    "claim": "yellow",
    "measured": "bold",
    "judged": "bold",
    "revoked": "bold red",
    "revocation": "red",
    "gap": "bold red",
}
_FILL: dict[Style, str] = {
    "artifact": "#e8f0fb",
    "build": "#e6f4ea",
    "claim": "#fff6dc",
    "measured": "#f1ecfb",
    "judged": "#eef2f4",
    "revoked": "#fde3e1",
    "revocation": "#fde3e1",
    "gap": "#fde3e1",
}


def write_text(graph: Graph, console: Console) -> None:
    """Print the list to `console`; on a terminal each line is cut to its width, elsewhere nothing is."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    for indent, text, colour in _rows(graph):
        row = "  " * min(indent, _INDENT_STOPS) + (f"[{indent}] " if indent > _INDENT_STOPS else "") + text
        if console.is_terminal and cell_len(row) > console.width:
            row = set_cell_size(row, console.width - 1).rstrip() + "…"
        console.print(Text(row, style=colour), soft_wrap=True, highlight=False)


def write_dot(graph: Graph) -> str:
    """Graphviz source. Names stand in quoted strings only, never in its markup."""
    words = ["digraph lineage {", "  rankdir=LR;", '  node [shape=box, fontname="sans-serif", style="filled"];']
    for node in graph.ids:
        look = style(graph, node)
        label = "\\n".join(_quoted(line) for line in [title(graph, node), *lines(graph, node)])
        shape = "rounded,filled" if look == "artifact" else "filled,dashed" if look in ("claim", "gap") else "filled"
        colour = "#c5221f" if look in ("revoked", "revocation", "gap") else "#3c4043"
        words.append(
            f'  "{_quoted(node)}" [label="{label}", style="{shape}", fillcolor="{_FILL[look]}", color="{colour}"];'
        )
    for edge in graph.edges:
        line = "dashed" if edge.claimed else "solid"
        colour = {"revokes": "#c5221f", "about": "#80868b", "read": "#80868b"}.get(edge.kind, "#3c4043")
        words.append(
            f'  "{_quoted(edge.source)}" -> "{_quoted(edge.target)}"'
            f' [label="{edge.kind}", style="{line}", color="{colour}", fontsize=9];'
        )
    return "\n".join([*words, "}"])


def _quoted(text: str) -> str:
    """`text` for a double-quoted string: no backslash starts an escape of Graphviz, no ``&`` an entity of HTML."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def _rows(graph: Graph) -> Iterator[tuple[int, str, str]]:
    """Indentation, text and colour of every line."""
    what = "was made from" if graph.direction == "up" else "was used for"
    yield 0, f"What sha256 {short(graph.asked)} {what}, up to log size {graph.tree_size}", "dim"
    near, seen = _near(graph), set[str]()
    stack = [(node, 0, "") for node in reversed(graph.start)]
    while stack:
        node, depth, how = stack.pop()
        known = node in seen
        seen.add(node)
        yield depth, f"{how}{_marked(graph, node)}{' (see above)' if known else ''}", _COLOURS[style(graph, node)]
        if known:
            continue
        yield depth + 2, " · ".join(lines(graph, node)), "dim"
        stack += [(other, depth + 1, note) for note, other in reversed(near[node])]
    unplaced = [node for node in graph.gaps if node not in seen]
    if unplaced:
        yield 0, "In the log, and nobody can say what about:", _COLOURS["gap"]
    for node in unplaced:
        yield 1, _marked(graph, node), _COLOURS["gap"]
        yield 3, " · ".join(lines(graph, node)), "dim"
    yield 0, DISCLAIMER, "dim"


def _near(graph: Graph) -> dict[str, list[tuple[str, str]]]:
    """For each node what stands under it, and why: what the walk came to from there, and what stands beside."""
    place = {node: number for number, node in enumerate(graph.ids)}
    aside = {node for node, artifact in graph.artifacts.items() if not artifact.followed}
    found: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)

    def put(under: str, other: str, edge: Edge, words: Mapping[EdgeKind, str]) -> None:
        claimed = " (claimed)" if edge.claimed and edge.kind != "about" else ""
        thing = graph.artifacts.get(other)
        called = (
            f" as {visible(edge.name, 60)}" if thing and thing.names and edge.name not in {"", *thing.names} else ""
        )
        note = f"{words[edge.kind]}{claimed}{called}: "
        found[under].append((EDGE_KINDS.index(edge.kind), place[other], note, other))

    for edge in graph.edges:
        up = graph.direction == "up" or edge.kind == "revokes"
        if (edge.target if up else edge.source) in aside:
            up = not up  # what stands beside a step is named there, and nothing under it
        if up:
            put(edge.target, edge.source, edge, _TO_SOURCE)
        else:
            put(edge.source, edge.target, edge, _TO_TARGET)
    return defaultdict(
        list, {node: [(note, other) for *_, note, other in sorted(rows)] for node, rows in found.items()}
    )


def _marked(graph: Graph, node: str) -> str:
    """The title, with a mark that says what a colour would."""
    marks: dict[Style, str] = {"revoked": "REVOKED ", "gap": "GAP ", "claim": "claim: "}
    return marks.get(style(graph, node), "") + title(graph, node)
