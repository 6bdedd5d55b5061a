"""Finds `mlseal …` commands in prose and in source text, and checks them against the program without running them."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

# `mlseal WORD …` in backticks or quotes, up to the closing mark.
QUOTED = re.compile(r"`(mlseal [a-z][^`\n]*)`|'(mlseal [a-z][^'\n]*)'")

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def in_page(page: Path) -> Iterator[str]:
    """Commands in inline code and in fenced blocks of a page."""
    text = page.read_text()
    for match in QUOTED.finditer(text):
        yield match[1] or match[2]
    for block in FENCED.findall(text.replace("\\\n", " ")):
        for line in block.splitlines():
            if found := re.match(r"\s*(?:\$ )?(mlseal [a-z].*)", line):
                yield re.sub(r"\s+#.*$", "", found[1])


def in_source(file: Path) -> Iterator[str]:
    """Commands that messages of the program tell people to type; `{…}` of an f-string reads as a word."""
    for node in ast.walk(ast.parse(file.read_text())):
        text = _text(node)
        for match in QUOTED.finditer(text or ""):
            yield match[1] or match[2]
        if isinstance(node, ast.keyword) and node.arg == "remedy":
            text = _text(node.value) or ""
            if text.startswith("mlseal "):
                yield text


def fault(command: str) -> str | None:
    """Why `command` cannot be typed: no such command or option. None when the program knows every part."""
    from mlseal.cli import main

    try:
        words = shlex.split(re.split(r"\s[|;&]|\s>|…|\.\.\.", command)[0])[1:]
    except ValueError:
        return None  # an apostrophe in prose, not a command line
    group: click.Command = main
    context = click.Context(main, info_name="mlseal")
    while words and isinstance(group, click.Group) and not words[0].startswith("-"):
        if not re.fullmatch(r"[a-z][a-z0-9-]*", words[0]):
            return None  # a placeholder such as STAGE
        found = group.get_command(context, words[0])
        if found is None:
            return f"'{command}': there is no command {words[0]}"
        group, words = found, words[1:]
        context = click.Context(group, info_name=group.name, parent=context)
    if (
        context.ignore_unknown_options
        or context.allow_extra_args
        or group.context_settings.get("ignore_unknown_options")
    ):
        return None  # its options come from elsewhere, such as a stage's signature
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "-h",
    }
    if group is main:
        known.add("--version")
    for word in words:
        option = word.split("=")[0].rstrip(".,;:)")
        if re.match(r"--?[a-z]", option) and option not in known:
            return f"'{command}': {group.name} has no option {option}"
    return None


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
    return None
