"""The syntax tree of a condition, as the CEL library itself parsed it.

``Expression.serialize`` gives the checked expression in protobuf's wire format (cel-spec, proto/cel/expr/checked.proto
and syntax.proto). It is read here with a dozen lines, so that no second parser can disagree with the one that
evaluates, and no protobuf runtime is needed. Macros come back as the loops they stand for, recognised by
their shape.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from mlseal.errors import PolicyInvalid

Kind = Literal["const", "ident", "select", "has", "call", "list", "macro"]
_EXPRESSION = 4  # field of CheckedExpr
_SIGN = 1 << 63


@dataclass(frozen=True)
class Node:
    """One expression.

    Attributes:
        kind: what it is; ``has`` is the macro ``has(x.y)``, ``macro`` one of all, exists, exists_one, filter.
        name: identifier, field, function or macro.
        args: operands; for a member function its object first; for a macro the list and the body.
        value: of a constant.
        variable: of a macro.
        wire: the bytes of this expression.
    """

    kind: Kind
    name: str
    args: tuple[Node, ...]
    value: object
    variable: str
    wire: bytes = field(repr=False)

    @property
    def path(self) -> str | None:
        """``p.groups`` for a chain of fields from a variable, ``p.metric("x").ciHigh`` for a metric; else None."""
        if self.kind == "ident":
            return self.name
        if self.kind in {"select", "has"}:
            base = self.args[0].path
            return f"{base}.{self.name}" if base else None
        if self.kind == "call" and self.name == "metric" and self.args[0].path and self.args[1].kind == "const":
            return f'{self.args[0].path}.metric("{self.args[1].value}")'
        return None


def parse(serialized: bytes) -> Node:
    """The tree in the bytes of ``Expression.serialize``. Raises `PolicyInvalid` for what policies may not use."""
    checked = dict(_fields(serialized))[2]
    assert isinstance(checked, bytes)
    for number, value in _fields(checked):
        if number == _EXPRESSION and isinstance(value, bytes):
            return _node(value)
    raise PolicyInvalid("the condition has no expression")


def part(serialized: bytes, node: Node) -> bytes:
    """What ``Env.deserialize`` needs to evaluate `node`, a part of `serialized`, alone."""
    wrapped = dict(_fields(serialized))
    checked = wrapped[2]
    assert isinstance(checked, bytes)
    body = b"".join(
        _field(number, node.wire if number == _EXPRESSION else value)
        for number, value in _fields(checked)
        if isinstance(value, bytes)
    )
    url = wrapped[1]
    assert isinstance(url, bytes)
    return _field(1, url) + _field(2, body)


def _node(wire: bytes) -> Node:
    for number, value in _fields(wire):
        if isinstance(value, bytes) and number in _READERS:
            return _READERS[number](value, wire)
    raise PolicyInvalid("the condition uses something that policies may not use", remedy="see docs/policy.md")


def _make(
    kind: Kind, wire: bytes, name: str = "", args: tuple[Node, ...] = (), value: object = None, variable: str = ""
) -> Node:
    return Node(kind, name, args, value, variable, wire)


def _const(body: bytes, wire: bytes) -> Node:
    found = list(_fields(body))
    number, raw = found[0] if found else (1, 0)
    value: object = None
    if isinstance(raw, int):
        value = bool(raw) if number == 2 else raw - (1 << 64) if number == 3 and raw >= _SIGN else raw
    elif number == 5:
        value = struct.unpack("<d", raw)[0]
    elif number == 6:
        value = raw.decode("utf-8")
    return _make("const", wire, value=value)


def _ident(body: bytes, wire: bytes) -> Node:
    return _make("ident", wire, name=_text(dict(_fields(body))[1]))


def _select(body: bytes, wire: bytes) -> Node:
    fields = dict(_fields(body))
    kind: Kind = "has" if fields.get(3) else "select"
    return _make(kind, wire, name=_text(fields[2]), args=(_node(_bytes(fields[1])),))


def _call(body: bytes, wire: bytes) -> Node:
    fields = list(_fields(body))
    target = [_node(_bytes(value)) for number, value in fields if number == 1]
    args = [_node(_bytes(value)) for number, value in fields if number == 3]
    return _make("call", wire, name=_text(dict(fields)[2]), args=(*target, *args))


def _list(body: bytes, wire: bytes) -> Node:
    return _make("list", wire, args=tuple(_node(_bytes(value)) for number, value in _fields(body) if number == 1))


def _struct(body: bytes, wire: bytes) -> Node:
    del body, wire
    raise PolicyInvalid("a condition may not build maps or messages", remedy="compare the fields one by one")


def _comprehension(body: bytes, wire: bytes) -> Node:
    """The macro that was expanded to this loop (cel-spec, macros); anything else is refused."""
    fields = dict(_fields(body))
    range_, start, step = (_node(_bytes(fields[n])) for n in (2, 4, 6))
    variable = _text(fields[1])
    name, inner = "", None
    if step.kind == "call" and len(step.args) > 1:
        if step.name == "_&&_" and start.value is True:
            name, inner = "all", step.args[1]
        elif step.name == "_||_" and start.value is False:
            name, inner = "exists", step.args[1]
        elif step.name == "_?_:_" and start.kind == "const" and start.value == 0:
            name, inner = "exists_one", step.args[0]
        elif step.name == "_?_:_" and start.kind == "list" and _keeps(step.args[1], variable):
            name, inner = "filter", step.args[0]
    if inner is None:
        raise PolicyInvalid(
            "a condition may loop only by all, exists, exists_one and filter", remedy="rewrite it with one of them"
        )
    return _make("macro", wire, name=name, args=(range_, inner), variable=variable)


def _keeps(step: Node, variable: str) -> bool:
    """Whether a loop step appends the element itself, as ``filter`` does and ``map`` does not."""
    added = step.args[1] if step.kind == "call" and len(step.args) > 1 else step
    return (
        added.kind == "list"
        and len(added.args) == 1
        and added.args[0].kind == "ident"
        and added.args[0].name == variable
    )


_READERS = {3: _const, 4: _ident, 5: _select, 6: _call, 7: _list, 8: _struct, 9: _comprehension}


def _text(value: int | bytes) -> str:
    return _bytes(value).decode("utf-8")


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message: wire types varint, 64-bit and length-delimited."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        length, at = (8, at) if tag & 7 == 1 else _varint(data, at)
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, at


def _field(number: int, payload: bytes) -> bytes:
    return _to_varint(number << 3 | 2) + _to_varint(len(payload)) + payload


def _to_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
