"""Every construct that a reader and a parser could read differently is refused, with its line."""

from __future__ import annotations

import pytest

from mlseal.errors import PolicyInvalid
from mlseal.policy.plainyaml import MAX_BYTES, parse

REFUSED = {
    "duplicate key": (b"a: 1\nb: 2\na: 3\n", "line 3"),
    "duplicate in a nested flow": (b"a:\n  - {x: 1, x: 2}\n", "line 2"),
    "duplicate by quoting": (b"a: 1\n'a': 2\n", "line 2"),
    "anchor": (b"a: &x 1\n", "line 1"),
    "alias": (b"a: 1\nb: *x\n", "line 2"),
    "merge": (b"a: &x {b: 1}\nc: {<<: *x}\n", "line 1"),
    "tag": (b"a: 1\nb: !!python/object/apply:os.system [id]\n", "line 2"),
    "standard tag": (b"a: !!str 1\n", "line 1"),
    "number as key": (b"a: 1\n2: b\n", "line 2"),
    "bool as key": (b"true: b\n", "line 1"),
    "null as key": (b"a: 1\n~: b\n", "line 2"),
    "empty key": (b"'': b\n", "line 1"),
    "list as key": (b"? [a, b]\n: c\n", "line 1"),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2"),
    "empty": (b"", "empty"),
    "only a comment": (b"# nothing\n", "empty"),
    "empty mapping": (b"{}\n", "empty"),
    "list": (b"- a\n", "mapping"),
    "text": (b"hello\n", "mapping"),
    "syntax": (b"a: [1\nb: 2\n", "line"),
    "tab": (b"a:\n\t- b\n", "line 2"),
    "not UTF-8": (b"a: \xff\n", "UTF-8"),
    "control character": (b"a: \x00\n", "YAML"),
    "deep": (b"a: " + b"[" * 40 + b"]" * 40, "nesting"),
    "very deep": (b"a: " + b"[" * 60_000, "YAML|deep|nest"),
    "infinite": (b"a: 1e999\n", "line 1"),
    "too large": (b"a: " + b"x" * MAX_BYTES, "large"),
}


@pytest.mark.parametrize(("raw", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(raw: bytes, said: str) -> None:
    with pytest.raises(PolicyInvalid, match=said):
        parse(raw, "policy.yaml")


def test_scalars_are_read_as_json_would() -> None:
    text = b"[yes, no, on, off, 1:30, 0o17, 012, 0x1f, 2026-11-23, 1_000, .5, +1, NaN, .inf, True, 24h]"
    assert parse(b"a: " + text, "p").value["a"] == [w.strip() for w in text.decode()[1:-1].split(",")]
    assert parse(b"a: [true, false, null, ~, 12, -3, 0.15, 1e3, '12']", "p").value["a"] == [
        True,
        False,
        None,
        None,
        12,
        -3,
        0.15,
        1000.0,
        "12",
    ]


def test_lines_are_known() -> None:
    document = parse(b"a:\n  - b: 1\n    c:\n      d: 2\n", "p")
    assert [document.line(p) for p in (("a",), ("a", 0, "c"), ("a", 0, "c", "d"), ("a", 0, "c", "nope"))] == [
        1,
        3,
        4,
        3,
    ]
