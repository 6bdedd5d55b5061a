"""The components and their ports, for people: the list on the terminal and the table in ``docs/kfp.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlseal_kfp.ports import Interface, Port

_TYPES = {"str": "text", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "list"}


def describe(port: Port) -> dict[str, Any]:
    """One port as JSON."""
    return {
        "name": port.name,
        "direction": "output" if port.output else "input",
        "type": type_name(port),
        "required": port.required,
        "default": port.default,
        "help": port.help,
    }


def type_name(port: Port) -> str:
    """The type as a pipeline author knows it."""
    name = port.type if isinstance(port.type, str) else _TYPES[port.type.__name__]
    return f"list of {name}" if port.many else name


def lines(interface: Interface) -> str:
    """One component on the terminal; ``*`` marks what must be connected."""
    rows = [f"{interface.stage}: {interface.summary}"]
    for port in interface.ports:
        arrow = "→" if port.output else "*" if port.required else " "
        rows.append(f"  {arrow} {port.name:28} {type_name(port):18} {port.help}")
    return "\n".join(rows) + "\n"


def markdown(interfaces: Sequence[Interface]) -> str:
    """Every component as a section with a table; compared with the page by a test."""
    parts = []
    for interface in interfaces:
        parts += [f"### `{interface.stage}`", "", interface.summary, "", "| port | type | |", "|---|---|---|"]
        parts += [_row(port) for port in interface.ports]
        parts.append("")
    return "\n".join(parts)


def _row(port: Port) -> str:
    note = "output. " if port.output else "" if port.required else "optional. "
    default = f" Default `{port.default!r}`." if port.default not in (None, "") else ""
    return f"| `{port.name}` | {type_name(port)} | {note}{port.help.replace('|', chr(92) + '|')}{default} |"
