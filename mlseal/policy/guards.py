"""What a part of a condition may rely on, because the part before it was true or false."""

from __future__ import annotations

from mlseal.policy.syntax import Node

Guards = frozenset[str]
"""Facts such as ``has p.clusters`` and ``full p.groups`` (the list is not empty)."""


def known_true(node: Node) -> Guards:
    """What is certain once `node` is true: ``has x`` and ``full x``."""
    if node.kind == "has":
        return frozenset({f"has {node.path}"})
    if node.kind != "call":
        return frozenset()
    if node.name == "_&&_":
        return known_true(node.args[0]) | known_true(node.args[1])
    if node.name == "!_":
        return known_false(node.args[0])
    if node.name == "nonEmpty":
        return frozenset({f"full {node.args[0].path}"})
    counted = node.args[0] if node.args and node.args[0].kind == "call" and node.args[0].name == "size" else None
    least = {"_>_": 0, "_>=_": 1, "_!=_": 0}.get(node.name)
    if counted is not None and least is not None and node.args[1].kind == "const":
        bound = node.args[1].value
        if isinstance(bound, int) and (bound == 0 if node.name == "_!=_" else bound >= least):
            return frozenset({f"full {counted.args[0].path}"})
    return frozenset()


def known_false(node: Node) -> Guards:
    """What is certain once `node` is false."""
    if node.kind == "call" and node.name == "!_":
        return known_true(node.args[0])
    if node.kind == "call" and node.name == "_||_":
        return known_false(node.args[0]) | known_false(node.args[1])
    return frozenset()
