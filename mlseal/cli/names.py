"""``mlseal names``: what a committed name stands for, and how to make that impossible to say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from mlseal.cli.evidence import JSON, say
from mlseal.cli.group import WholeSentences
from mlseal.errors import Misuse, NoEvidence, Unchecked, Unreadable
from mlseal.evidence import naming, salts
from mlseal.evidence.naming import Naming


@click.group(cls=WholeSentences)
def names() -> None:
    """Committed names of files: what they stand for, and forgetting it.

    Set MLSEAL_NAMES=committed to have names of files signed as salted commitments.
    """


@names.command()
@click.argument("commitment")
@click.option(
    "--in",
    "place",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current directory",
    help="Directory, or manifest (.jsonl), whose names are tried.",
)
@JSON
def reveal(commitment: str, place: Path, as_json: bool) -> None:
    """Say which of the names in a directory or manifest COMMITMENT stands for.

    Tried are names and paths relative to that directory and to those above it, under every salt that you have. Nothing
    else can be tried: a commitment cannot be turned back.

    \b
    Example: mlseal names reveal name:hmac-sha256:5e1f… --in data/
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    if not naming.is_commitment(commitment):
        raise Misuse("not a committed name", got=commitment[:80], expected=f"{naming.PREFIX} and 64 hex digits")
    known = [Naming(salt) for salt in salts.every()]
    if not known:
        raise Unchecked("you have no salt of names", remedy="run it as the person who signed or pulled the data")
    found = sorted(set(naming.matches(commitment, _candidates(place), known)))
    if not found:
        raise NoEvidence(
            f"no name in {place} fits this commitment",
            got=f"{len(known)} salts tried",
            remedy="name the directory or manifest that held it, with --in",
        )
    say(
        as_json,
        {"commitment": commitment, "names": [{"kind": kind, "name": name} for kind, name in found]},
        "\n".join(f"{kind}: {name}" for kind, name in found),
    )


@names.command()
@click.option("--all", "everything", is_flag=True, help="Every salt of yours, those of DVC remotes included.")
@JSON
def forget(everything: bool, as_json: bool) -> None:
    """Erase the salt of this project: names committed with it can never be told again.

    Evidence stays valid, since digests bind it. A DVC remote's salt is shared: 'mlseal dvc forget-names' erases that.
    """
    erased = salts.forget_every() if everything else salts.of_project().forget()
    say(as_json, {"erased": erased}, f"erased {erased} salts")


def _candidates(place: Path) -> Iterator[str]:
    if place.is_file():
        from mlseal.evidence.digest import Manifest

        for entry in Manifest.from_bytes(place.read_bytes()).files:
            yield from (entry.path, entry.path.rpartition("/")[2])
        return
    if not place.is_dir():
        raise Unreadable(f"cannot read {place}", got="nothing there", expected="a directory or a manifest")
    root = place.resolve()
    for directory, folders, files in os.walk(root):
        for name in (".", *folders, *files):
            yield from _spellings(Path(directory) if name == "." else Path(directory, name), root)


def _spellings(path: Path, root: Path) -> Iterator[str]:
    """The name alone, and the path as seen from `root` and every directory above: a git root may be any of them.

    DVC calls a pointer file a stage.
    """
    yield path.name
    for above in (root, *root.parents):
        relative = path.relative_to(above).as_posix()
        yield relative
        yield f"{relative}.dvc"
