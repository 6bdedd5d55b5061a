"""What loading a skops file would do, without doing it: ``schema.json`` is a tree of nodes, each held to the list.

MLflow writes scikit-learn models so unless told otherwise. skops asks before it loads a type that it does not trust,
but MLflow answers for the user, with a list that it reads from the model itself (``skops_trusted_types``). So what
counts here is which names stand in the tree, and what its reader does with each (reviewed: skops 0.16, protocol 2):
makes an instance and fills it, calls it with what stands beside, or hands it on. `AllowList` knows these kinds from
pickles.

A node without an id, or with that of one that says something else, is `Unsafe`: the reader takes the first that has
the id, so that what is harmless in one place would stand in for another. So is a node of a kind that is not listed,
among them methods and operators, which call what they name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mlseal.errors import Error
from mlseal.evidence import canonical
from mlseal.stages.testing.allowlist import AllowList
from mlseal.stages.testing.opcodes import Const, Global, Items, Made, Pairs, Unsafe

PROTOCOL = 2
_MOST = 256 << 20
_KEYS = ("str", "int", "float", "bool")
_FACTORIES = ("list", "dict", "set", "int", "float")
_SCALARS = {
    *("bool", "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32"),
    *("float64", "complex64", "complex128", "str_", "bytes_", "datetime64", "timedelta64"),
}
_TREES = frozenset(
    {
        *(("sklearn.neighbors._kd_tree", name) for name in ("KDTree", "KDTree64", "KDTree32")),
        *(("sklearn.neighbors._ball_tree", name) for name in ("BallTree", "BallTree64", "BallTree32")),
        *(("sklearn.metrics._dist_metrics", f"{name}Distance64") for name in ("Euclidean", "Manhattan")),
    }
)
"""Made by ``__new__`` here, where pickles call a function of scikit-learn for it."""
_PLAIN = frozenset({"builtins", "collections", "datetime", "decimal", "fractions"})
_REDUCED = {
    "TreeNode": frozenset({"sklearn.tree._tree"}),
    "LossNode": frozenset({"sklearn._loss._loss", "sklearn.linear_model._sgd_fast"}),
}
_CHECKED = Global("sklearn.utils.validation", "check_array")


def require(raw: bytes, files: Collection[str], allowed: AllowList) -> None:
    """Raise `Unsafe` unless everything that ``schema.json`` (`raw`) names is on the list, and `files` are its own.

    `files` are the other entries of the zip; each must belong to some node. Their content is checked elsewhere.
    """
    try:
        schema = canonical.parse(raw, what="schema.json", limit=_MOST)
        if schema.get("protocol") is True or schema.get("protocol") != PROTOCOL:
            raise Unsafe(f"its skops protocol is {str(schema.get('protocol'))[:20]}, and {PROTOCOL} was reviewed")
        tree = _Tree(frozenset(files), allowed)
        tree.value(schema)
    except (Error, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Unsafe(f"its schema is not one of skops ({type(error).__name__})") from error
    if stray := sorted(tree.files - tree.used):
        raise Unsafe(f"the skops file holds {stray[0][:60]}, which nothing in it names")


class _Tree:
    """The walk through one file: each method says what a node gives, as the walk through a pickle would."""

    def __init__(self, files: frozenset[str], allowed: AllowList) -> None:
        self.files, self.used, self._allowed = files, set[str](), allowed
        self._open = set[int]()
        self._seen: dict[int, Mapping[str, Any]] = {}

    def value(self, node: Mapping[str, Any]) -> Any:
        """What loading `node` would give. Raises `Unsafe`."""
        number, kind = node["__id__"], node["__loader__"]
        if type(number) is not int:
            raise Unsafe("a node of the skops file has no id of its own")
        if number in self._seen and _bare(self._seen[number]) != _bare(node):
            raise Unsafe("two nodes of the skops file have one id and differ")
        if number in self._open:
            raise Unsafe("a node of the skops file stands in for one that is in it")
        if kind not in _KINDS:
            raise Unsafe(f"the skops file has a {str(kind)[:40]}, and may not")
        self._open.add(number)
        found = _KINDS[kind](self, node, _name(node))
        self._open.remove(number)
        self._seen[number] = node
        return found

    def containers(self, node: Mapping[str, Any], name: Global) -> Items:
        """ListNode, SetNode and TupleNode: the type is called with what it holds."""
        if name.module != "builtins" or name.name not in {"list", "set", "frozenset", "tuple"}:
            raise Unsafe(f"{name} is called, and may not be")
        return Items(name.name, [self.value(one) for one in node["content"]])

    def mapping(self, node: Mapping[str, Any], name: Global) -> Pairs:
        """DictNode: the type is called, then filled; the type of each key is called with its text."""
        if name != Global("builtins", "dict") and not self._allowed.fills(name):
            raise Unsafe(f"{name} is called, and may not be")
        for kind in self.value(node["key_types"]).items:
            plain = kind.module == "builtins" and kind.name in _KEYS
            if not plain and not (kind.module == "numpy" and kind.name in _SCALARS):
                raise Unsafe(f"{kind} is called with a key, and may not be")
        return Pairs([(Const(key), self.value(one)) for key, one in node["content"].items()])

    def defaults(self, node: Mapping[str, Any], name: Global) -> Any:
        """DefaultDictNode."""
        factory = self.value(node["content"]["default_factory"])
        known = isinstance(factory, Global) and factory.module == "builtins" and factory.name in _FACTORIES
        if name != Global("collections", "defaultdict") or not (known or factory == Const(None)):
            raise Unsafe(f"{factory if isinstance(factory, Global) else name} is called, and may not be")
        return self.value(node["content"]["main"])

    def named(self, _: Mapping[str, Any], name: Global) -> Global:
        """FunctionNode and TypeNode: handed on as it is."""
        self._allowed.resolve(name)
        self._allowed.value(name)
        return name

    def partial(self, node: Mapping[str, Any], name: Global) -> Made:
        """PartialNode: of one function, as histogram boosting has it; with data."""
        given = {key: self.value(one) for key, one in node["content"].items()}
        if name != Global("functools", "partial") or given["func"] != _CHECKED:
            raise Unsafe(f"{name} is made of another function than one that is listed")
        return Made(name, [given["func"]], new=False)

    def slices(self, node: Mapping[str, Any], name: Global) -> Const:
        """SliceNode."""
        ends = [node["content"][key] for key in ("start", "stop", "step")]
        if name != Global("builtins", "slice") or not all(end is None or type(end) is int for end in ends):
            raise Unsafe("a slice of the skops file is none")
        return Const(tuple(ends))

    def instance(self, node: Mapping[str, Any], name: Global) -> Made:
        """ObjectNode: made by ``__new__``, then filled."""
        if (name.module, name.name) not in _TREES or self._allowed.flavour != "sklearn":
            self._allowed.resolve(name)
            self._allowed.new(name, [])
        self._allowed.used.add(str(name))
        content = node.get("content")
        return Made(name, [], new=True, state=None if content is None else self.value(content))

    def called(self, node: Mapping[str, Any], name: Global) -> Made:
        """ConstructorFromReduceNode: the type is called with what stands beside; plain types of Python, with data."""
        if name.module not in _PLAIN:
            raise Unsafe(f"{name} is called, and may not be")
        return self._call(name, self.value(node["content"]))

    def reduced(self, node: Mapping[str, Any], name: Global) -> Made:
        """TreeNode and LossNode: called, then filled; the reader takes any type for a loss."""
        kind = node["__loader__"]
        if name.module not in _REDUCED[kind]:
            raise Unsafe(f"{name} stands in a {kind}, and may not")
        made = self._call(name, self.value(node["__reduce__"]["args"]))
        made.state = self.value(node["content"])
        self._allowed.state(made)
        return made

    def _call(self, name: Global, args: Any) -> Made:
        if not isinstance(args, Items) or args.kind != "tuple":
            raise Unsafe(f"{name} is called with what is no tuple")
        self._allowed.resolve(name)
        self._allowed.call(name, args.items)
        return Made(name, args.items, new=False)

    def literal(self, node: Mapping[str, Any], _: Global) -> Const:
        """JsonNode."""
        return Const(json.loads(node["content"]))

    def raw(self, node: Mapping[str, Any], name: Global) -> Const:
        """BytesNode and BytearrayNode."""
        if name.module != "builtins" or name.name not in {"bytes", "bytearray"}:
            raise Unsafe(f"{name} is no type of bytes")
        return Const(self._file(node, ".bin"))

    def array(self, node: Mapping[str, Any], name: Global) -> Made:
        """NdArrayNode: an array, or a scalar, whose type is called with it; of objects, each a node."""
        if name != Global("numpy", "ndarray") and not (name.module == "numpy" and name.name in _SCALARS):
            raise Unsafe(f"{name} is called, and may not be")
        if node["type"] == "numpy":
            self._file(node, ".npy")
            return Made(name, [], new=False)
        self.value(node["shape"])
        return Made(name, [self.value(one) for one in node["content"]], new=False)

    def masked(self, node: Mapping[str, Any], name: Global) -> Made:
        """MaskedArrayNode."""
        if name.name != "MaskedArray" or name.module not in {"numpy.ma", "numpy.ma.core"}:
            raise Unsafe(f"{name} is no masked array")
        return Made(name, [self.value(node["content"][key]) for key in ("data", "mask")], new=False)

    def dtype(self, node: Mapping[str, Any], name: Global) -> Made:
        """DTypeNode: of an array that stands for it."""
        if name != Global("numpy", "dtype"):
            raise Unsafe(f"{name} is no type of NumPy")
        return Made(name, [self.value(node["content"])], new=False)

    def random(self, node: Mapping[str, Any], name: Global) -> Made:
        """RandomStateNode and RandomGeneratorNode; the latter calls the generator that its state names."""
        if node["__loader__"] == "RandomStateNode":
            if name.name != "RandomState" or name.module not in {"numpy.random", "numpy.random.mtrand"}:
                raise Unsafe(f"{name} is called, and may not be")
            return Made(name, [self.value(node["content"])], new=False)
        bits = self.value(node["content"]["bit_generator"])
        self.value(node["content"]["seed_seq"])
        said = bits.get("bit_generator")
        known = isinstance(said, Const) and said.value in {"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"}
        if name != Global("numpy.random._generator", "Generator") or not known:
            raise Unsafe("a random generator of the skops file is none of NumPy's")
        return Made(name, [], new=False)

    def sparse(self, node: Mapping[str, Any], name: Global) -> Made:
        """SparseMatrixNode: SciPy reads it, whatever type it is said to have."""
        self._file(node, ".npz")
        return Made(name, [], new=False)

    def _file(self, node: Mapping[str, Any], ending: str) -> str:
        file = node["file"]
        if file not in self.files or not file.endswith(ending):
            raise Unsafe(f"the skops file lacks {str(file)[:60]}, or it is no {ending}")
        self.used.add(file)
        return str(file)


def _bare(state: Any) -> Any:
    """What a node says, without ids and names of files: two of one object, as it was found twice, are equal then."""
    if isinstance(state, list):
        return [_bare(one) for one in state]
    if isinstance(state, dict):
        # What a dictionary of the model holds under such a key is a node, and stays.
        dropped = {key for key in ("__id__", "file") if not isinstance(state.get(key), (dict, list))}
        return {key: _bare(one) for key, one in state.items() if key not in dropped}
    return state


def _name(node: Mapping[str, Any]) -> Global:
    module, name = node["__module__"], node["__class__"]
    if not isinstance(module, str) or not isinstance(name, str):
        raise Unsafe("a node of the skops file has no type")
    return Global(module, name)


_KINDS: Mapping[str, Callable[[_Tree, Mapping[str, Any], Global], Any]] = {
    **dict.fromkeys(("ListNode", "SetNode", "TupleNode"), _Tree.containers),
    "DictNode": _Tree.mapping,
    "DefaultDictNode": _Tree.defaults,
    **dict.fromkeys(("FunctionNode", "TypeNode"), _Tree.named),
    "PartialNode": _Tree.partial,
    "SliceNode": _Tree.slices,
    "ObjectNode": _Tree.instance,
    "ConstructorFromReduceNode": _Tree.called,
    **dict.fromkeys(("TreeNode", "LossNode"), _Tree.reduced),
    "JsonNode": _Tree.literal,
    **dict.fromkeys(("BytesNode", "BytearrayNode"), _Tree.raw),
    "NdArrayNode": _Tree.array,
    "MaskedArrayNode": _Tree.masked,
    "DTypeNode": _Tree.dtype,
    **dict.fromkeys(("RandomStateNode", "RandomGeneratorNode"), _Tree.random),
    "SparseMatrixNode": _Tree.sparse,
}
"""What the reader calls a node → what it does with it."""
