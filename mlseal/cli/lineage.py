"""``mlseal lineage``: what something was made from, or what was made of it, from evidence alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlseal.cli.evidence import JSON, STORE, TRUST
from mlseal.errors import Misuse, Unchecked
from mlseal.evidence import trust as trust_roots

if TYPE_CHECKING:
    from mlseal.evidence.lineage import Graph

FORMATS = ("text", "dot", "json", "html", "openlineage")


@click.command()
@click.argument("digest")
@click.option("--up/--down", default=True, help="What it was made from (default), or what was made of it.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="text", show_default=True, help="How to say it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write to, instead of standard output.")
@click.option(
    "--tiles", "tiles_dir", type=click.Path(path_type=Path), help="Directory with ORIGIN/checkpoint and ORIGIN/tile/…."
)
@TRUST
@STORE
@JSON
def lineage(
    digest: str,
    up: bool,
    style: str,
    output: Path | None,
    tiles_dir: Path | None,
    trust_path: str | None,
    store_path: str | None,
    as_json: bool,
) -> None:
    """Show what DIGEST was made from, or with --down what was made of it.

    DIGEST is a SHA-256, its first eight digits or more, an evidence id, or a file or directory, which is then measured.
    Every statement shown was verified; who signed it stands beside it, and whether that suffices is for 'mlseal gate'
    to judge. Exit 11 when a statement of the log cannot be read: what is known is shown, the rest as gaps.

    \b
    Example: mlseal lineage model/ --up --format html -o lineage.html
             mlseal lineage 9f86d081 --down
             mlseal lineage model/ --format openlineage -o events.ndjson
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from mlseal.cli.progress import bar
    from mlseal.evidence import lineage_walk
    from mlseal.evidence.archive import Archive
    from mlseal.evidence.audit import directory_tiles

    if as_json and style not in {"text", "json"}:
        raise Misuse("--json and --format contradict each other", got=f"--format {style}", remedy="pass one of them")
    trust = trust_roots.resolve(trust_path)
    tiles = directory_tiles(trust, tiles_dir) if tiles_dir else None
    archive = Archive.open(trust, store_path, tiles=tiles)
    with bar("reading evidence") as advance:
        graph = lineage_walk.read(archive, digest, "up" if up else "down", progress=advance)
    _write(graph, "json" if as_json else style, output)
    missing = [gap for gap in graph.gaps.values() if not gap.accounted]
    if missing:
        raise Unchecked(
            "the lineage is incomplete",
            got=f"{len(missing)} statement{'s' * (len(missing) > 1)} that cannot be read,"
            f" the first: evidence {missing[0].evidence_id[:16]}…, {missing[0].message}",
            expected="every entry of the log resolved, and every statement reached verified",
            remedy="pass --store DIR with all bundles, or copy the missing ones there",
        )


def _write(graph: Graph, style: str, output: Path | None) -> None:
    if style == "text" and output is None:
        from rich.console import Console

        from mlseal.cli.lineage_text import write_text

        write_text(graph, Console())
        return
    words = _words(graph, style)
    if output is None:
        click.echo(words, nl=not words.endswith("\n"))
        return
    from mlseal.evidence.bundle import write_atomic

    write_atomic(output, words.encode() if words.endswith("\n") else f"{words}\n".encode())
    click.echo(f"wrote {output}", err=True)


def _words(graph: Graph, style: str) -> str:
    if style == "json":
        from mlseal.cli.lineage_words import document

        return json.dumps(document(graph))
    if style == "html":
        from mlseal.cli import lineage_html

        return lineage_html.write(graph)
    if style == "openlineage":
        from mlseal.cli import lineage_events

        return lineage_events.write(graph)
    from mlseal.cli import lineage_text

    if style == "dot":
        return lineage_text.write_dot(graph)
    from io import StringIO

    from rich.console import Console

    held = StringIO()
    lineage_text.write_text(graph, Console(file=held, width=200))
    return held.getvalue()
