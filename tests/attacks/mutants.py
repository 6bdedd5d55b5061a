"""Mutation testing of our own checks: each is taken out once, and an attack must then come through.

A mutant of a module is its source with one ``raise`` turned into ``pass``; with `told`, also one ``return`` of words,
where a function answers with the reason against. A check that can be taken out without any attack noticing is either
dead or untested.
"""

import ast
import copy
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


class _Disable(ast.NodeTransformer):
    def __init__(self, target: int, functions: set[str] | None, told: bool) -> None:
        self.target, self.functions, self.told, self.count, self.where = target, functions, told, -1, ""
        self._inside: list[str] = []

    def visit_FunctionDef(self, node):
        self._inside.append(node.name)
        self.generic_visit(node)
        self._inside.pop()
        return node

    def visit_Raise(self, node):
        return self._without(node, message_of(node))

    def visit_Return(self, node):
        if self.told and isinstance(node.value, ast.JoinedStr | ast.Constant) and _words([node.value]):
            return self._without(node, _words([node.value]))
        return node

    def _without(self, node, message):
        if self._inside and (
            self.functions is None or self._inside[0] in self.functions or self._inside[-1] in self.functions
        ):
            self.count += 1
            if self.count == self.target:
                self.where = f"{self._inside[-1]}: {message}"
                return ast.copy_location(ast.Pass(), node)
        return node


def message_of(node: ast.Raise) -> str:
    """What a ``raise`` says, an ellipsis where it names a value; '' for one that only passes an error on."""
    return _words(node.exc.args if isinstance(node.exc, ast.Call) else [])


def _words(arguments: list[ast.expr]) -> str:
    if arguments and isinstance(arguments[0], ast.Constant) and not isinstance(arguments[0].value, str):
        return ""
    parts = arguments[0].values if arguments and isinstance(arguments[0], ast.JoinedStr) else arguments[:1]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)


def names(module: ModuleType, functions: set[str] | None = None, *, told: bool = False) -> list[str]:
    """The names of all mutants of `module`, in order, without making any."""
    found: list[str] = []
    tree = ast.parse(Path(module.__file__).read_text())
    while True:
        disable = _Disable(len(found), functions, told)
        disable.visit(copy.deepcopy(tree))
        if not disable.where:
            return found
        found.append(disable.where)


def mutants(
    module: ModuleType, functions: set[str] | None = None, *, told: bool = False
) -> Iterator[tuple[str, ModuleType]]:
    """Every mutant of `module` by name (function: message), compiled but not installed."""
    source = Path(module.__file__).read_text()
    target = 0
    while True:
        tree = ast.parse(source)
        disable = _Disable(target, functions, told)
        tree = ast.fix_missing_locations(disable.visit(tree))
        if not disable.where:
            return
        spec = importlib.util.spec_from_loader(module.__name__, loader=None, origin=module.__file__)
        mutant = importlib.util.module_from_spec(spec)
        mutant.__file__ = module.__file__
        mutant.__package__ = module.__package__
        previous = sys.modules[module.__name__]
        sys.modules[module.__name__] = mutant
        try:
            exec(compile(tree, module.__file__, "exec"), mutant.__dict__)
        finally:
            sys.modules[module.__name__] = previous
        yield disable.where, mutant
        target += 1


def mutant(module: ModuleType, where: str, *, told: bool = False) -> ModuleType:
    """The one mutant of that name."""
    return next(made for name, made in mutants(module, told=told) if name == where)


@contextmanager
def installed(holder: ModuleType, attribute: str, value: object) -> Iterator[None]:
    """`holder.attribute` is `value` for a while."""
    before = getattr(holder, attribute)
    setattr(holder, attribute, value)
    try:
        yield
    finally:
        setattr(holder, attribute, before)
