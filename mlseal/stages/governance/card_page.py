"""Records → one HTML page: no script, nothing loaded from elsewhere, every word escaped, one plot.

The plot shows each measured figure with its interval; the same figures stand in a table beneath, so nothing is in the
picture alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from mlseal.evidence.digest import Measured
from mlseal.stages.base import require
from mlseal.stages.governance import mlbom
from mlseal.stages.governance.records import Records

WANTED = {
    "slsa-provenance": "how it was trained, from which data and code",
    "data-provenance": "where its data come from",
    "fairness": "how it treats groups, with intervals",
    "security-evaluation": "how it stands attacks",
    "human-approval": "who approved it",
}
"""What a reader of a card expects; what is not there is said."""


def page_of(model: Measured, name: str, records: Records, stated: Mapping[str, Any]) -> str:
    """The page as HTML text. The same records give the same bytes."""
    require("jinja2", "card")
    from jinja2 import Environment, StrictUndefined

    source = files("mlseal.stages.governance").joinpath("model_card.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    figures = mlbom.metrics(records)
    kinds = {record.kind for record in records.model if record.taken_back is None}
    kinds |= {record.kind for about in records.data.values() for record in about if record.taken_back is None}
    return environment.from_string(source).render(
        name=name,
        sha256=model.sha256,
        files=len(model.manifest.files) if model.manifest else 1,
        stated=stated,
        records=records,
        figures=figures,
        plot=_plot([figure for figure in figures if "confidenceInterval" in figure]),
        groups=[record for record in records.of("fairness") if record.said.get("groups")],
        missing=[text for kind, text in WANTED.items() if kind not in kinds],
        not_proven=mlbom.not_proven(records),
    )


def _plot(figures: list[dict[str, Any]]) -> str:
    """The figures with their intervals as inline SVG; "" for none. Texts are drawn as paths, so no font is needed."""
    if not figures:
        return ""
    require("matplotlib", "card")
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "mlseal", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(7.5, 0.9 + 0.34 * len(figures)), layout="constrained")
        axes = figure.add_subplot()
        for row, entry in enumerate(reversed(figures)):
            value = float(entry["value"])
            low, high = (float(entry["confidenceInterval"][end]) for end in ("lowerBound", "upperBound"))
            axes.plot([low, high], [row, row], color="#30506b", linewidth=2.2, solid_capstyle="round")
            axes.plot([value], [row], "o", color="#30506b", markersize=5)
        axes.set_yticks(range(len(figures)), [_label(entry) for entry in reversed(figures)])
        axes.set_ylim(-0.7, len(figures) - 0.3)
        axes.axvline(0, color="#999", linewidth=0.8)
        axes.grid(axis="x", color="#e3e3e3")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _label(entry: Mapping[str, Any]) -> str:
    return f"{entry['type']} ({entry['slice']})" if entry["slice"] else str(entry["type"])
