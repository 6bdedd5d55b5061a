"""Reads the ```console blocks of a page and runs them, in order, in one directory of one isolated home.

    $ mlseal gate model.bin --policy policy.yaml   # exit 11
    mlseal: … no evidence …

A line that starts with ``$ `` is a command (continued by a trailing backslash); it must end with 0, or with the number
in a final ``# exit N``. Lines after it are what it prints, standard output and error together: they must appear in
that order, where ``…`` stands for anything and runs of blanks are one. A command without lines after it may print what it likes.
A block of another language with a file's name after it, such as ``python check.py``, is that file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```\w+ ([a-z]+\.[a-z]+)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+#\s*exit (\d+)\s*$")


@dataclass(frozen=True)
class Step:
    """One command of a page, with what the page says of it."""

    command: str
    exit_code: int
    output: tuple[str, ...]
    where: str

    def disagreement(self, exit_code: int, printed: str) -> str | None:
        """What the page says and the program does not, or None."""
        if exit_code != self.exit_code:
            return f"{self.where}: exit {exit_code}, the page says {self.exit_code}\n$ {self.command}\n{printed}"
        rest = _spaced(printed)
        for line in self.output:
            pattern = ".*?".join(re.escape(part) for part in _spaced(line).split("…"))
            found = re.search(pattern, rest)
            if not found:
                return (
                    f"{self.where}: the page says '{line}', not found in what is left of\n$ {self.command}\n{printed}"
                )
            rest = rest[found.end() :]
        return None


def fences(page: Path) -> Iterator[tuple[str, str, int]]:
    """Each fenced block: its language, its text, its line."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        yield match[1], match[2], text.count("\n", 0, match.start()) + 1


def steps(page: Path, first: str = "$ mlseal init") -> list[Step]:
    """The commands of every console block of a page that begins at the beginning: with `first`.

    Other pages show what needs a server, a cluster or somebody else's files; tests of those parts run them.
    """
    blocks = [(text, line) for language, text, line in fences(page) if language == "console"]
    if not blocks or not blocks[0][0].startswith(first):
        return []
    return [step for text, line in blocks for step in _steps(text, f"{page.name}:{line}")]


def files(page: Path) -> dict[str, str]:
    """The files that a page shows whole, by name."""
    return {match[1]: match[2] for match in FILE.finditer(page.read_text())}


def _steps(block: str, where: str) -> Iterator[Step]:
    command, output = "", []
    lines = iter([*block.replace("\\\n", " ").splitlines(), "$ "])
    for line in lines:
        if not line.startswith("$ "):
            output.append(line)
            continue
        if command:
            code = EXIT.search(command)
            kept = tuple(text for text in output if text.strip())
            yield Step(EXIT.sub("", command), int(code[1]) if code else 0, kept, where)
        command, output = line[2:].strip(), []


def _spaced(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
