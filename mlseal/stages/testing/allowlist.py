"""What an ordinary model file may name, for each flavour, and why each name is harmless.

Exact pairs of module and name, nothing by prefix. Three kinds, because they differ in what a file can do with them:

* *classes* are made by ``__new__`` and filled with state. Reviewed: state that can hold a callable is called with data
  at most, and every callable must be on the list itself.
* *calls* may be called by the file with arguments of its choice, so each has a rule for them. Left out are all that
  call what they are given (``functools.partial`` of all functions but one, ``operator.methodcaller``,
  ``builtins.getattr``), import, open or evaluate (``numpy.load``, ``numpy.memmap``, ``torch.hub.load``,
  ``builtins.eval``), or wrap another loader (``pickle.loads``, ``dill``, ``cloudpickle``, joblib's old array wrappers,
  which open files named beside them).
  Where one that is needed can be made to call (NumPy's constructors of random generators take a constructor), the rule
  pins that argument.
* *values* lie in the result and may be called later, with a model's data: types of NumPy, a few ufuncs, metrics.

A class of its maker's own, such as a `torch.nn.Module` saved whole, is not here: its code is not in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from mlseal.stages.testing import arrays
from mlseal.stages.testing.opcodes import Const, Global, Items, Made, Pairs, Rules, Unsafe
from mlseal.stages.testing.sklearn_classes import CLASSES

VERSION = "2"
"""Stands in the evidence; raised whenever a name is added or removed."""
Rule = Callable[[Sequence[Any]], bool]
Names = Mapping[tuple[str, str], Rule]


def _pairs(modules: str, names: str) -> list[tuple[str, str]]:
    return [(module, name) for module in modules.split() for name in names.split()]


def _any(_: Sequence[Any]) -> bool:
    return True


def _is(item: Any, *names: str) -> bool:
    return isinstance(item, Global) and f"{item.module}.{item.name}" in names


def _text(item: Any) -> bool:
    return isinstance(item, Const) and isinstance(item.value, str)


def _plain(args: Sequence[Any]) -> bool:
    """Constants and containers of them, no names."""
    return all(
        isinstance(a, Const)
        or (isinstance(a, Items) and _plain(a.items))
        or (isinstance(a, Pairs) and _plain([one for pair in a.pairs for one in pair]))
        or (isinstance(a, Made) and _plain(a.args))
        for a in args
    )


def _first(*names: str) -> Rule:
    return lambda args: bool(args) and _is(args[0], *names)


def _factory(args: Sequence[Any]) -> bool:
    types = ("builtins.list", "builtins.dict", "builtins.set", "builtins.int", "builtins.float")
    return len(args) <= 1 and all(_is(a, *types) or (isinstance(a, Const) and a.value is None) for a in args)


def _encoded(args: Sequence[Any]) -> bool:
    """Bytes as protocols below 3 write them. Other codecs are modules that would be imported by name."""
    return len(args) == 2 and all(map(_text, args)) and args[1].value == "latin1"


def _generator(args: Sequence[Any]) -> bool:
    """NumPy's constructors call the constructor that they are given: it must be NumPy's own."""
    return all(
        _text(a)
        or _is(a, "numpy.random._pickle.__bit_generator_ctor", *_BIT_GENERATORS)
        or (isinstance(a, Made) and _is(a.of, "numpy.random._pickle.__bit_generator_ctor"))
        for a in args
    )


def _buffer(args: Sequence[Any]) -> bool:
    arrays.require_buffer(list(args))
    return True


def _made_by_name(args: Sequence[Any]) -> bool:
    """A fresh instance of a listed class, as ``copyreg`` makes it below protocol 2."""
    return (
        len(args) == 3
        and isinstance(args[0], Global)
        and (args[0].module, args[0].name) in _SKLEARN_CLASSES
        and _is(args[1], "builtins.object")
        and isinstance(args[2], Const)
        and args[2].value is None
    )


def _hookless(args: Sequence[Any]) -> bool:
    """No backward hooks: those are callables."""
    return all(not isinstance(a, Made) or not _is(a.of, "collections.OrderedDict") or not a.more for a in args)


_BIT_GENERATORS = tuple(
    f"numpy.random.{name}" for name in ("_mt19937.MT19937", "_pcg64.PCG64", "_pcg64.PCG64DXSM", "_philox.Philox")
)
_PLAIN_CALLS: Names = {
    **dict.fromkeys(_pairs("builtins", "set frozenset list tuple dict bytearray bytes complex slice range"), _plain),
    **dict.fromkeys(_pairs("collections", "OrderedDict Counter deque"), _plain),
    ("collections", "defaultdict"): _factory,
    **dict.fromkeys(_pairs("datetime", "datetime date time timedelta timezone"), _plain),
    ("decimal", "Decimal"): _plain,
    ("fractions", "Fraction"): _plain,
    ("_codecs", "encode"): _encoded,
}
_NUMPY_CALLS: Names = {
    **dict.fromkeys(_pairs("numpy._core.multiarray numpy.core.multiarray", "_reconstruct"), _first("numpy.ndarray")),
    **dict.fromkeys(
        _pairs("numpy._core.multiarray numpy.core.multiarray", "scalar"),
        lambda args: bool(args) and isinstance(args[0], Made) and _is(args[0].of, "numpy.dtype"),
    ),
    **dict.fromkeys(_pairs("numpy._core.numeric numpy.core.numeric", "_frombuffer"), _buffer),
    ("numpy", "dtype"): lambda args: bool(args) and _text(args[0]) and _plain(args),
    ("numpy.ma.core", "_mareconstruct"): _first("numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"),
    **dict.fromkeys(
        _pairs("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor"), _generator
    ),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): _first("numpy.random.bit_generator.SeedSequence"),
}
_CHECKED = "sklearn.utils.validation.check_array"
_SKLEARN_CALLS: Names = {
    ("copyreg", "_reconstructor"): _made_by_name,
    # What histogram boosting puts before its categories. Its state names the function anew: see `AllowList.state`.
    ("functools", "partial"): lambda args: len(args) == 1 and _is(args[0], _CHECKED),
    ("sklearn.tree._tree", "Tree"): lambda args: len(args) == 3,
    **dict.fromkeys(
        _pairs(
            "sklearn._loss._loss",
            "CyHalfSquaredError CyAbsoluteError CyPinballLoss CyHuberLoss CyHalfPoissonLoss CyHalfGammaLoss "
            "CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHalfBinomialLoss CyHalfMultinomialLoss CyExponentialLoss",
        ),
        _plain,
    ),
    **dict.fromkeys(
        _pairs(
            "sklearn.linear_model._sgd_fast",
            "Hinge SquaredHinge Log ModifiedHuber SquaredLoss Huber EpsilonInsensitive SquaredEpsilonInsensitive",
        ),
        _plain,
    ),
    **dict.fromkeys(
        _pairs("sklearn.neighbors._kd_tree sklearn.neighbors._ball_tree sklearn.metrics._dist_metrics", "newObj"),
        _first(
            "sklearn.neighbors._kd_tree.KDTree",
            "sklearn.neighbors._ball_tree.BallTree",
            "sklearn.metrics._dist_metrics.EuclideanDistance64",
            "sklearn.metrics._dist_metrics.ManhattanDistance64",
        ),
    ),
}
_TORCH_CALLS: Names = {
    **dict.fromkeys(_pairs("torch._utils", "_rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter"), _hookless),
    **dict.fromkeys(_pairs("torch", "Size device"), _plain),
}
_TYPES = _pairs("builtins", "object int float bool str bytes list dict set tuple complex")
_NUMPY_VALUES = [
    *_pairs(
        "numpy",
        "ndarray dtype generic number integer floating inexact bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 "
        "uint64 float16 float32 float64 complex64 complex128 str_ bytes_ object_ datetime64 timedelta64",
    ),
    *_pairs("numpy", "log log1p log2 log10 exp expm1 sqrt cbrt square absolute negative reciprocal sin cos tanh sign"),
    *_pairs("numpy.ma numpy.ma.core", "MaskedArray"),
    *_pairs("numpy.random.bit_generator", "SeedSequence"),
    *_pairs("numpy.random._pickle", "__bit_generator_ctor"),
    *((name.rpartition(".")[0], name.rpartition(".")[2]) for name in _BIT_GENERATORS),
]
_SKLEARN_VALUES = [
    *_pairs("sklearn.utils.validation", "check_array"),
    *_pairs("sklearn.feature_selection._univariate_selection", "f_classif f_regression chi2"),
    *_pairs("sklearn.metrics._classification", "accuracy_score f1_score log_loss balanced_accuracy_score"),
    *_pairs("sklearn.metrics._ranking", "roc_auc_score average_precision_score"),
    *_pairs("sklearn.metrics._regression", "r2_score mean_squared_error mean_absolute_error"),
]
_TORCH_VALUES = _pairs(
    "torch",
    "bool uint8 int8 int16 int32 int64 float16 float32 float64 bfloat16 complex64 complex128 strided",
)
_STORAGES = _pairs(
    "torch",
    "FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage "
    "ByteStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage",
)
_SKLEARN_CLASSES = {(module, name) for module, names in CLASSES.items() for name in names.split()}
_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_FILLED = frozenset(_pairs("collections", "OrderedDict Counter defaultdict deque")) | {
    ("sklearn.utils._bunch", "Bunch")
}

FLAVOURS = ("plain", "sklearn", "torch")


class AllowList(Rules):
    """The rules of one flavour: ``plain`` (containers and NumPy), ``sklearn`` or ``torch``.

    Attributes:
        flavour: one of `FLAVOURS`.
        used: names that were found and allowed.
    """

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.used: set[str] = set()
        self._calls: dict[tuple[str, str], Rule] = {**_PLAIN_CALLS, **_NUMPY_CALLS}
        self._classes: set[tuple[str, str]] = {_WRAPPER}
        self._values: set[tuple[str, str]] = {*_TYPES, *_NUMPY_VALUES}
        self._storages: set[tuple[str, str]] = set()
        if flavour == "sklearn":
            self._calls |= _SKLEARN_CALLS
            self._classes |= _SKLEARN_CLASSES
            self._values |= {*_SKLEARN_VALUES, *_SKLEARN_CLASSES}
        elif flavour == "torch":
            self._calls |= _TORCH_CALLS
            self._classes.discard(_WRAPPER)
            self._values |= set(_TORCH_VALUES)
            self._storages = set(_STORAGES)
            self._values |= self._storages

    def resolve(self, name: Global) -> None:
        """Raise `Unsafe` unless `name` is on the list."""
        pair = (name.module, name.name)
        if pair not in self._calls and pair not in self._classes and pair not in self._values:
            raise Unsafe(f"{name} is not on the list of {self.flavour}")
        self.used.add(str(name))

    def call(self, name: Global, args: Sequence[Any]) -> None:
        """Raise `Unsafe` unless `name` may be called with these arguments."""
        rule = self._calls.get((name.module, name.name))
        if rule is None:
            raise Unsafe(f"{name} is called, and may not be")
        if not rule(args):
            raise Unsafe(f"{name} is called with arguments that are not allowed")

    def new(self, name: Global, args: Sequence[Any]) -> None:
        """Raise `Unsafe` unless `name` is a listed class, made without arguments."""
        if (name.module, name.name) not in self._classes or args:
            raise Unsafe(f"an instance of {name} is made, and may not be")

    def value(self, name: Global) -> None:
        """Raise `Unsafe` if `name` may be called by the file but not handed on."""
        if (name.module, name.name) not in self._values:
            raise Unsafe(f"{name} is handed on as a value, and may not be")

    def fills(self, name: Global) -> bool:
        """Whether `name` is a container."""
        return (name.module, name.name) in _FILLED

    def persistent(self, pid: Any) -> Global:
        """The storage that PyTorch keeps beside the pickle: ``("storage", TYPE, KEY, LOCATION, COUNT)``."""
        if isinstance(pid, Items) and pid.kind == "tuple" and len(pid.items) == 5 and self._storages:
            mark, kind, key, location, count = pid.items
            fits = _text(mark) and mark.value == "storage" and _text(key) and _text(location) and _plain([count])
            if fits and isinstance(kind, Global) and (kind.module, kind.name) in self._storages:
                return kind
        raise Unsafe("it has a persistent id that is no storage")

    def state(self, made: Made) -> None:
        """Raise `Unsafe` if NumPy would take something for what it is not."""
        if _is(made.of, "numpy.dtype"):
            arrays.require_dtype(made)
        elif _is(made.of, "numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"):
            arrays.require_array(made)
        elif _is(made.of, "functools.partial"):
            items = made.state.items if isinstance(made.state, Items) else []
            if len(items) != 4 or not _is(items[0], _CHECKED):
                raise Unsafe("functools.partial is given another function by its state")

    def raw_array(self, made: Made, stream: IO[bytes]) -> bool | None:
        """Skip the bytes of an array as joblib reads them; True if a pickle follows, None if it is no such array."""
        return arrays.skip_raw(made, stream) if (made.of.module, made.of.name) == _WRAPPER else None
