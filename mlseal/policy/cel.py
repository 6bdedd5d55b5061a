"""Conditions in CEL, accepted only as BOOL true.

The library *returns* run-time errors as values whose text is truthy, raises others, and lets ``error || true`` be true.
Here a condition has three results, and every doubt is the third:

1. Connectives (``&& || ! ?:``) outside of loops are evaluated here, strictly from left to right: an error on the left
   is an error, whatever stands on the right. ``has(x) && x > 3`` still works: the right side is not looked at then.
2. What remains is evaluated by CEL. The operands of a comparison are evaluated first; a number that is not finite is
   an error.
3. A result counts only if its type is BOOL. Error, unknown and any other type: no answer.
4. An error in one of our own functions is remembered, so that no loop inside CEL can swallow it.
"""

from __future__ import annotations

import contextlib
import decimal
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from mlseal.errors import PolicyInvalid
from mlseal.policy import conditions, syntax
from mlseal.policy.shape import of_predicate
from mlseal.policy.syntax import Node

MAX_LENGTH = 4096
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
_COMPARISONS = {"_<_", "_<=_", "_>_", "_>=_", "_==_", "_!=_"}
_GLOB_TOKEN = re.compile(r"\*\*|\*|[^*]+")
_swallowed = threading.local()


@dataclass(frozen=True)
class Answer:
    """True, False, or no answer with the reason; ``got`` shows the values that decided."""

    holds: bool | None
    problem: str | None = None
    got: str | None = None


class _NoAnswer(Exception):
    """Evaluation gave something else than BOOL."""


@dataclass(frozen=True)
class Condition:
    """One condition, checked against its predicate type. Make with `compile_condition`; evaluate from any thread."""

    source: str
    _root: Node = field(repr=False)
    _serialized: bytes = field(repr=False)

    def evaluate(self, predicate: Mapping[str, Any], *, now: datetime, signed_on: datetime) -> Answer:
        """Judge one predicate (plain JSON values). Never raises for what the evidence holds."""
        activation = _environment().Activation({"p": dict(predicate), "now": now, "signedOn": signed_on})
        values: list[str] = []
        with _remembering() as errors:
            try:
                holds = self._truth(self._root, activation, values)
            except _NoAnswer as problem:
                return Answer(None, str(problem), ", ".join(values) or None)
        if errors:  # (4)
            return Answer(None, errors[0], ", ".join(values) or None)
        return Answer(holds, None, ", ".join(dict.fromkeys(values)) or None)

    def _truth(self, node: Node, activation: Any, values: list[str]) -> bool:
        if node.kind == "call" and node.name in {"_&&_", "_||_"}:  # (1)
            left = self._truth(node.args[0], activation, values)
            decided = (not left) if node.name == "_&&_" else left
            return left if decided else self._truth(node.args[1], activation, values)
        if node.kind == "call" and node.name == "!_":
            return not self._truth(node.args[0], activation, values)
        if node.kind == "call" and node.name == "_?_:_":
            chosen = node.args[1] if self._truth(node.args[0], activation, values) else node.args[2]
            return self._truth(chosen, activation, values)
        if node.kind == "call" and node.name in _COMPARISONS:  # (2)
            for operand in node.args:
                self._operand(operand, activation, values)
        return self._bool(node, activation)

    def _operand(self, node: Node, activation: Any, values: list[str]) -> None:
        if node.kind == "const":
            return
        result = _run(self._program(node), activation)
        plain = result.value()
        if isinstance(plain, float) and not math.isfinite(plain):
            raise _NoAnswer(f"{node.path or 'a number'} is not finite")
        if isinstance(plain, str | int | float | bool):
            values.append(f"{node.path or 'value'} = {str(plain)[:80]}")

    def _bool(self, node: Node, activation: Any) -> bool:
        from cel_expr_python import cel

        result = _run(self._program(node), activation)
        if result.type() != cel.Type.BOOL:  # (3)
            raise _NoAnswer(f"the condition gave {result.type().name()}, not true or false")
        return result.value() is True

    def _program(self, node: Node) -> Any:
        return _deserialized(self._serialized, node)


def compile_condition(source: str, predicate_type: str) -> Condition:
    """`source` as a condition on predicates of `predicate_type` (URI).

    Raises `PolicyInvalid` in one sentence for a syntax error, an unknown name, or what `conditions.check` refuses.
    """
    if len(source) > MAX_LENGTH:
        raise PolicyInvalid(
            "the condition is too long", got=f"{len(source)} characters", expected=f"at most {MAX_LENGTH}"
        )
    try:
        compiled = _environment().compile(source)
    except RuntimeError as error:
        # "INVALID_ARGUMENT: ERROR: :1:5: undeclared reference …" over several lines; the first says it
        said = str(error).splitlines()[0].partition("ERROR: ")[2] or str(error).splitlines()[0]
        advice = "use glob(), which is anchored" if "matches" in said else None
        raise PolicyInvalid("the condition is not valid CEL", got=said[:200], remedy=advice) from error
    serialized = bytes(compiled.serialize())
    root = syntax.parse(serialized)
    conditions.check(root, of_predicate(predicate_type))
    if not conditions.reads_predicate(root):
        raise PolicyInvalid("the condition does not look at the evidence", remedy="name a field of p")
    return Condition(source, root, serialized)


def glob(text: str, pattern: str) -> bool:
    """Whether all of `text` matches: ``*`` stops at a slash, ``**`` does not; case matters; nothing else is special."""
    parts = (".*" if t == "**" else "[^/]*" if t == "*" else re.escape(t) for t in _GLOB_TOKEN.findall(pattern))
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def dec_le(left: str, right: str) -> bool:
    """Whether decimal `left` is at most decimal `right`, exactly; anything but a plain decimal raises `ValueError`."""
    return _decimal(left) <= _decimal(right)


def _decimal(text: str) -> decimal.Decimal:
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a plain decimal")
    return decimal.Decimal(text)


def _metric(predicate: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = [m for m in predicate["metrics"] if m["name"] == name]
    if len(found) != 1:
        raise ValueError(f"{len(found)} metrics are called {name[:60]!r}, one is expected")
    return dict(found[0])


def _run(program: Any, activation: Any) -> Any:
    """Evaluate; an error that CEL returns and one that it raises are the same to us."""
    from cel_expr_python import cel

    try:
        result = program.eval(activation)
    except RuntimeError as error:
        raise _NoAnswer(str(error).splitlines()[0][:200]) from None
    if result.type() == cel.Type.ERROR or result.type() == cel.Type.UNKNOWN:
        raise _NoAnswer(str(result.value()).splitlines()[0][:200])
    return result


@cache
def _deserialized(serialized: bytes, node: Node) -> Any:
    return _environment().deserialize(syntax.part(serialized, node))


@cache
def _environment() -> Any:
    """The language of conditions: CEL's core, three variables, five functions, no extension."""
    from cel_expr_python import cel

    kind = cel.Type
    document = kind.Map(kind.STRING, kind.DYN)

    def function(name: str, params: list[Any], returns: Any, impl: Callable[..., Any], *, member: bool = False) -> Any:
        overload = cel.Overload(
            f"mlseal_{name}", return_type=returns, parameters=params, is_member=member, impl=_remembered(impl)
        )
        return cel.FunctionDecl(name, [overload])

    return cel.NewEnv(
        variables={"p": document, "now": kind.TIMESTAMP, "signedOn": kind.TIMESTAMP},
        functions=[
            function("decLE", [kind.STRING, kind.STRING], kind.BOOL, dec_le),
            function("decGE", [kind.STRING, kind.STRING], kind.BOOL, lambda a, b: dec_le(b, a)),
            function("glob", [kind.STRING, kind.STRING], kind.BOOL, glob, member=True),
            function("nonEmpty", [kind.List(kind.DYN)], kind.BOOL, lambda items: len(items) > 0),
            function("metric", [document, kind.STRING], document, _metric, member=True),
        ],
    )


def _remembered(impl: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        try:
            return impl(*args)
        except Exception as error:
            getattr(_swallowed, "errors", []).append(str(error))
            raise

    return call


@contextlib.contextmanager
def _remembering() -> Iterator[list[str]]:
    errors: list[str] = []
    _swallowed.errors = errors
    try:
        yield errors
    finally:
        _swallowed.errors = []
