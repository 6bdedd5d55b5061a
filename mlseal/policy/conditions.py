"""What a condition must be before it may judge: checked when the policy is loaded.

CEL is total but forgiving; each rule below closes a way in which a condition held, or could not fail, by mistake:

* every field must exist in the predicate's schema, also under ``metric("…")`` and inside loops;
* ``<`` and its like compare numbers, times and durations, never texts ("10" < "9"; use ``decLE``, ``decGE``);
* ``==``, ``!=`` and ``in`` compare equal kinds, and a text with a choice of values only with one of them;
* ``all`` over an empty list is true: it needs a list that the schema, ``nonEmpty(x) &&`` or ``size(x) > 0 &&`` fills;
* inside a loop an error can be swallowed by a later element: only operations that cannot fail stand there, and a field
  that may be absent only behind ``has(x) &&``;
* ``matches`` is unanchored and ``double("nan")`` parses: neither exists here.
"""

from __future__ import annotations

from mlseal.errors import PolicyInvalid
from mlseal.policy.guards import Guards, known_false, known_true
from mlseal.policy.shape import ANY, BOOL, DURATION, NUMBER, ORDERED, TEXT, TIME, Shape, of_value
from mlseal.policy.syntax import Node

_CONNECTIVES = {"_&&_", "_||_", "!_", "_?_:_"}
_COMPARE = {"_<_", "_<=_", "_>_", "_>=_"}
_EQUAL = {"_==_", "_!=_"}
_ARITHMETIC = {"_+_", "_-_", "_*_", "_/_", "_%_", "-_"}
_OWN = {"startsWith", "endsWith", "contains", "glob", "decLE", "decGE", "size", "nonEmpty", "metric"}
_ADVICE = {
    "matches": "use glob(), which is anchored",
    "double": "numbers need no conversion; use decLE() for decimals in text",
    "_[_]": "name the field, or use metric(), exists() or all()",
    "_?._": "guard with has()",
}


def check(node: Node, predicate: Shape) -> None:
    """Refuse, as `PolicyInvalid` in one sentence, a condition that could hold by mistake."""
    scope = {"p": predicate, "now": TIME, "signedOn": TIME}
    found = _Checker().shape(node, scope, frozenset(), looped=False)
    if found.kind != "bool":
        raise PolicyInvalid("a condition must be true or false", got=found.kind)


def reads_predicate(node: Node) -> bool:
    """Whether the condition looks at the evidence at all; ``true`` or ``1 < 2`` does not."""
    return (node.kind == "ident" and node.name in {"p", "signedOn"}) or any(reads_predicate(arg) for arg in node.args)


class _Checker:
    def shape(self, node: Node, scope: dict[str, Shape], guards: Guards, *, looped: bool) -> Shape:
        """The shape of `node`, every rule applied to it and to its parts."""
        if node.kind == "const":
            return of_value(node.value)
        if node.kind == "ident":
            if node.name not in scope:
                raise PolicyInvalid(f"unknown name {node.name}", expected=", ".join(sorted(scope)))
            return scope[node.name]
        if node.kind in {"select", "has"}:
            return self._field(node, scope, guards, looped=looped)
        if node.kind == "list":
            items = [self.shape(arg, scope, guards, looped=looped) for arg in node.args]
            return Shape("list", item=items[0] if items and len({i.kind for i in items}) == 1 else ANY)
        return (
            self._macro(node, scope, guards, looped=looped)
            if node.kind == "macro"
            else self._call(node, scope, guards, looped=looped)
        )

    def _field(self, node: Node, scope: dict[str, Shape], guards: Guards, *, looped: bool) -> Shape:
        base = self.shape(node.args[0], scope, guards, looped=looped)
        if base.kind in {"map", "any"}:  # names are data there
            if looped and node.kind == "select" and f"has {node.path}" not in guards:
                raise PolicyInvalid(f"{node.name} may be absent", remedy=f"write has({node.path}) && before it")
            return BOOL if node.kind == "has" else (base.item or ANY)
        if node.name not in base.fields:
            raise PolicyInvalid(
                f"no field {node.name!r}" + (f" in {node.args[0].path}" if node.args[0].path else ""),
                expected=_nearest(node.name, base) if base.fields else f"no field at all: it is {base.kind}",
            )
        if node.kind == "has":
            return BOOL
        if looped and node.name in base.optional and f"has {node.path}" not in guards:
            raise PolicyInvalid(
                f"{node.path or node.name} may be absent", remedy=f"write has({node.path}) && before it"
            )
        return base.fields[node.name]

    def _macro(self, node: Node, scope: dict[str, Shape], guards: Guards, *, looped: bool) -> Shape:
        range_, body = node.args
        over = self.shape(range_, scope, guards, looped=looped)
        if over.kind != "list":
            raise PolicyInvalid(f"{node.name}() runs over a list", got=over.kind)
        if node.variable in scope:
            raise PolicyInvalid(f"{node.variable} is taken already", remedy="name the element otherwise")
        if node.name == "all" and not over.nonempty and f"full {range_.path}" not in guards:
            raise PolicyInvalid(
                "all() holds for an empty list",
                got=f"{range_.path or 'a computed list'} may be empty",
                remedy=f"write nonEmpty({range_.path}) && before it"
                if range_.path
                else "use exists() or name the list",
            )
        inner = self.shape(body, {**scope, node.variable: over.item or ANY}, guards, looped=True)
        _require(inner, "bool", f"the body of {node.name}()")
        return Shape("list", item=over.item) if node.name == "filter" else BOOL

    def _call(self, node: Node, scope: dict[str, Shape], guards: Guards, *, looped: bool) -> Shape:
        if node.name in _CONNECTIVES:
            return self._connective(node, scope, guards, looped=looped)
        args = [self.shape(arg, scope, guards, looped=looped) for arg in node.args]
        if node.name in _EQUAL:
            return _equality(node, args)
        if node.name in _COMPARE:
            return _comparison(args)
        if node.name == "@in":
            return _membership(node, args)
        if node.name in _OWN:
            return _own(node, args)
        if looped:
            raise PolicyInvalid(
                f"{_readable(node.name)} can fail and may not stand inside a loop", remedy="move it out"
            )
        return _partial(node, args)

    def _connective(self, node: Node, scope: dict[str, Shape], guards: Guards, *, looped: bool) -> Shape:
        first = self.shape(node.args[0], scope, guards, looped=looped)
        _require(first, "bool", "what && || ! and ? join")
        if node.name == "!_":
            return BOOL
        when = known_false(node.args[0]) if node.name == "_||_" else known_true(node.args[0])
        second = self.shape(node.args[1], scope, guards | when, looped=looped)
        if node.name != "_?_:_":
            _require(second, "bool", "what && and || join")
            return BOOL
        third = self.shape(node.args[2], scope, guards | known_false(node.args[0]), looped=looped)
        if second.kind != third.kind:
            raise PolicyInvalid("both results of ? must be of one kind", got=f"{second.kind} and {third.kind}")
        return second


def _own(node: Node, args: list[Shape]) -> Shape:
    """Functions on texts and lists; ours, and those of CEL that cannot fail on the right kind."""
    if node.name == "metric":
        return _metric(args)
    if node.name in {"size", "nonEmpty"}:
        _require(args[0], "list", f"what {node.name}() counts")
        return NUMBER if node.name == "size" else BOOL
    for arg in args:
        _require(arg, "text", f"what {node.name}() compares")
    return BOOL


def _equality(node: Node, args: list[Shape]) -> Shape:
    left, right = args
    if "any" in {left.kind, right.kind} and node.name == "_==_":
        return BOOL
    if left.kind != right.kind or left.kind in {"object", "map", "list", "any", "null"}:
        raise PolicyInvalid(f"{_readable(node.name)} compares unlike things", got=f"{left.kind} with {right.kind}")
    for shape, other in ((left, node.args[1]), (right, node.args[0])):
        _require_choice(shape, other)
    return BOOL


def _comparison(args: list[Shape]) -> Shape:
    left, right = args
    if left.kind != right.kind or left.kind not in ORDERED:
        text = "text" in {left.kind, right.kind}
        raise PolicyInvalid(
            "< <= > >= compare numbers, times or durations",
            got=f"{left.kind} with {right.kind}",
            remedy='use decLE(x, "8") for decimals in text' if text else None,
        )
    return BOOL


def _membership(node: Node, args: list[Shape]) -> Shape:
    item, container = args
    if container.kind == "list" and container.item is not None and container.item.kind == item.kind:
        for element in node.args[1].args:
            _require_choice(item, element)
        _require_choice(container.item, node.args[0])
        return BOOL
    raise PolicyInvalid("in looks for a value among values of its kind", got=f"{item.kind} in {container.kind}")


def _metric(args: list[Shape]) -> Shape:
    metrics = args[0].fields.get("metrics")
    if metrics is None or metrics.item is None or "name" not in metrics.item.fields:
        raise PolicyInvalid("metric() needs a predicate with metrics by name", got=args[0].kind)
    _require(args[1], "text", "the name of a metric")
    return metrics.item


def _partial(node: Node, args: list[Shape]) -> Shape:
    """Operations that can fail: allowed outside of loops, where an error is always seen."""
    kinds = [arg.kind for arg in args]
    if node.name in _ARITHMETIC and set(kinds) == {"number"}:
        return NUMBER
    if node.name == "_-_" and kinds == ["time", "time"]:
        return DURATION
    if node.name in {"_-_", "_+_"} and kinds == ["time", "duration"]:
        return TIME
    if node.name in {"timestamp", "duration"} and kinds == ["text"]:
        return TIME if node.name == "timestamp" else DURATION
    if node.name == "_+_" and set(kinds) == {"text"}:
        return TEXT
    raise PolicyInvalid(
        f"{_readable(node.name)} may not be used on {' and '.join(kinds)}",
        remedy=_ADVICE.get(node.name, "see docs/policy.md"),
    )


def _require(shape: Shape, kind: str, what: str) -> None:
    if shape.kind != kind:
        raise PolicyInvalid(f"{what} must be {kind}", got=shape.kind)


def _require_choice(shape: Shape, other: Node) -> None:
    if shape.choices and other.kind == "const" and other.value not in shape.choices:
        raise PolicyInvalid(
            "this value can never stand there",
            got=str(other.value),
            expected="one of " + ", ".join(sorted(shape.choices)),
        )


def _nearest(name: str, shape: Shape) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, shape.fields, n=2)
    return " or ".join(close) if close else "one of " + ", ".join(sorted(shape.fields))


def _readable(function: str) -> str:
    """``_<=_`` as ``<=``, ``matches`` as ``matches()``."""
    return function.strip("_@") if function.startswith(("_", "@")) or function.endswith("_") else f"{function}()"
