"""Records → one HTML page: no script, nothing loaded from elsewhere, every word escaped, one plot.

The plot shows each measured figure with its interval; the same figures stand in a table beneath, so nothing is in the
picture alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from mlseal.evidence.digest import Measured
from mlseal.stages.base import require
from mlseal.stages.governance import figures, mlbom
from mlseal.stages.governance.figures import Figure
from mlseal.stages.governance.records import Records

WANTED = {
    "slsa-provenance": "how it was trained, from which data and code",
    "data-provenance": "where its data come from",
    "fairness": "how it treats groups, with intervals",
    "security-evaluation": "how it stands attacks",
    "human-approval": "who approved it",
}
"""What a reader of a card expects; what is not there is said."""


SEEN = {
    "white-box": "parameters",
    "black-box-scores": "scores",
    "black-box-decisions": "decisions",
    "no-model": "nothing of the model",
}
"""Threat model → what it sees."""


def page_of(model: Measured, name: str, records: Records, stated: Mapping[str, Any]) -> str:
    """The page as HTML text. The same records give the same bytes."""
    require("jinja2", "card")
    from jinja2 import Environment, StrictUndefined

    source = files("mlseal.stages.governance").joinpath("model_card.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    measured = figures.of_records(records)
    kinds = {record.kind for record in records.model if record.taken_back is None}
    kinds |= {record.kind for about in records.data.values() for record in about if record.taken_back is None}
    return environment.from_string(source).render(
        name=name,
        sha256=model.sha256,
        files=len(model.manifest.files) if model.manifest else 1,
        stated=stated,
        records=records,
        figures=measured,
        plot=_plot([(figure, figure.ends) for figure in measured if figure.ends]),
        groups=[record for record in records.of("fairness") if record.said.get("groups")],
        attacks=[(record.said, _tried(record.said)) for record in records.of("security-evaluation")],
        seen=SEEN,
        missing=[text for kind, text in WANTED.items() if kind not in kinds],
        not_proven=mlbom.not_proven(records),
    )


def _tried(said: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Attacks with what they were aimed at: this model, the one before its hardening, or what explains the figures."""
    before = said.get("hardening") or {}
    return [
        *(("", attack) for attack in said["attacks"]),
        *(("control", attack) for attack in said["controls"]),
        *(("before hardening", attack) for attack in before.get("attacks", [])),
    ]


def _plot(measured: Sequence[tuple[Figure, tuple[float, float]]]) -> str:
    """The figures with their intervals as inline SVG; "" for none. Texts are drawn as paths, so no font is needed.

    What decides nothing is hollow and grey.
    """
    if not measured:
        return ""
    require("matplotlib", "card")
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Drawing

    style = {"svg.hashsalt": "mlseal", "svg.fonttype": "path", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        drawing = Drawing(figsize=(7.5, 0.9 + 0.3 * len(measured)), layout="constrained")
        axes = drawing.add_subplot()
        for row, (figure, ends) in enumerate(reversed(measured)):
            colour = "#30506b" if figure.decides else "#8d98a3"
            axes.plot(ends, [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
            fill = colour if figure.decides else "white"
            axes.plot([float(figure.value)], [row], "o", color=colour, markerfacecolor=fill, markersize=5)
        axes.set_yticks(range(len(measured)), [f"{figure.name} ({figure.of})" for figure, _ in reversed(measured)])
        axes.set_ylim(-0.7, len(measured) - 0.3)
        axes.axvline(0, color="#999", linewidth=0.8)
        axes.grid(axis="x", color="#e3e3e3")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
        out = io.StringIO()
        FigureCanvasSVG(drawing).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
