"""The part of YAML that cannot be misread.

A policy is read by people and judged by machines, so both must see the same thing. Refused, each with its line:
duplicate keys (the last one wins silently elsewhere), anchors and aliases (what is read is not what stands there),
tags (they construct objects), keys that are not text, several documents, an empty document, more than 256 kB, and
nesting deeper than 32. Scalars are read as JSON would: ``yes``, ``on``, ``1:30``, ``0o17`` and dates are text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from mlseal.errors import PolicyInvalid

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
Path = tuple[str | int, ...]
_BOOL = {"true": True, "false": False}
_NULL = {"null", "~", ""}
_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True)
class Document:
    """A parsed document and, for each path in it, the line where its value stands."""

    value: dict[str, Any]
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest thing around it that exists."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse(raw: bytes, name: str) -> Document:
    """The mapping in `raw`. Raises `PolicyInvalid` naming `name` and the line."""
    require_size(len(raw), name)
    try:
        text = raw.decode("utf-8")
        _require_plain(text, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{name} is not UTF-8", got=f"byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyInvalid(f"{name} line {_line(mark)} is not YAML", got=error.problem) from error
    except yaml.YAMLError as error:
        raise PolicyInvalid(f"{name} is not YAML", got=str(error)[:120]) from error
    except RecursionError as error:  # the composer recurses before `_require_plain` can be asked
        raise PolicyInvalid(f"{name} is nested too deeply", expected=f"at most {MAX_DEPTH} levels") from error
    lines: dict[Path, int] = {}
    value = _value(node, (), lines, name) if node is not None else None
    if not isinstance(value, dict) or not value:
        raise PolicyInvalid(f"{name} is empty or not a mapping", expected="a policy", remedy="see 'mlseal init'")
    return Document(value, lines)


def require_size(size: int, name: str) -> None:
    """Raise `PolicyInvalid` for a file of more bytes than a policy may have."""
    if size > MAX_BYTES:
        raise PolicyInvalid(
            f"{name} is too large", got=f"{size} bytes", expected=f"at most {MAX_BYTES}", remedy="divide it"
        )


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark is not None else 1


def _require_plain(text: str, name: str) -> None:
    """Refuse every construct that makes the reader and the parser see different documents."""
    documents = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        found: str | None = None
        if isinstance(event, yaml.AliasEvent):
            found = "an alias"
        elif getattr(event, "anchor", None) is not None:
            found = "an anchor"
        elif getattr(event, "tag", None) is not None:
            found = "a tag"
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            found = "a second document" if documents > 1 else None
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            found = "deep nesting" if depth > MAX_DEPTH else None
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if found:
            raise PolicyInvalid(
                f"{name} line {_line(event.start_mark)} holds {found}",
                expected="plain mappings, lists and values",
                remedy="write the value out",
            )


def _value(node: yaml.Node, path: Path, lines: dict[Path, int], name: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*path, index), lines, name) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            key = _key(key_node, name)
            if key in result:
                raise PolicyInvalid(
                    f"{name} line {key_node.start_mark.line + 1} repeats the key {key!r}",
                    expected="each key once",
                    remedy="remove one of them",
                )
            result[key] = _value(child, (*path, key), lines, name)
            lines[(*path, key)] = key_node.start_mark.line + 1
        return result
    return _scalar(node, name)


def _key(node: yaml.Node, name: str) -> str:
    text = isinstance(node, yaml.ScalarNode) and (node.style in {"'", '"'} or isinstance(_scalar(node, name), str))
    if not text or not node.value:
        raise PolicyInvalid(
            f"{name} line {node.start_mark.line + 1} has a key that is not text",
            got=str(node.value)[:40],
            remedy="quote it if it is meant as text",
        )
    return str(node.value)


def _scalar(node: yaml.Node, name: str) -> Any:
    text = str(node.value)
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise PolicyInvalid(f"{name} line {node.start_mark.line + 1} holds a number out of range", got=text)
        return number
    return text
