"""What a pickle would do, without doing it: `pickletools` reads the opcodes, this keeps an abstract stack.

The stack holds constants, containers, names of globals, and *made* objects of which only is known which allowed thing
was called. Nothing is imported and nothing is called. Every global, every call and every state must be one that the
allow-list knows; every opcode that is not understood, every name that is not a constant and every byte that is not
accounted for is `Unsafe`. So a pickle that passes can do no more than the allow-list says.

Where readers differ the stricter reading counts: protocols below 3 translate names (`_compat_pickle`), joblib puts the
bytes of arrays between opcodes and object arrays as pickles of their own, and a frame may reach over neither.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

MAX_OPCODES = 20_000_000
MAX_DEPTH = 4
"""Pickles inside of pickles."""


class Unsafe(Exception):
    """The file could do something that the allow-list does not know, or cannot be understood."""


@dataclass(frozen=True)
class Const:
    """A number, text, bytes, truth value or None."""

    value: Any


@dataclass(frozen=True)
class Global:
    """A name that unpickling would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:120]


@dataclass(eq=False)
class Items:
    """A tuple, list, set or frozenset."""

    kind: str
    items: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Pairs:
    """A dictionary, in order of setting."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """What was set last under the text `key`; None if nothing was."""
        return next((v for k, v in reversed(self.pairs) if isinstance(k, Const) and k.value == key), None)


@dataclass(eq=False)
class Made:
    """What calling an allowed global gives; `new` if it came from ``__new__`` and not from a call."""

    of: Global
    args: Sequence[Any]
    new: bool
    state: Any = None
    more: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Stored:
    """What a persistent id stands for: the storage of a tensor."""

    kind: Global


class Rules:
    """What the walker asks of an allow-list; each method returns, or raises `Unsafe`."""

    def resolve(self, name: Global) -> None:
        """Whether unpickling may import `name`."""
        raise NotImplementedError

    def call(self, name: Global, args: Sequence[Any]) -> None:
        """Whether it may call `name` with `args`."""
        raise NotImplementedError

    def new(self, name: Global, args: Sequence[Any]) -> None:
        """Whether it may make an instance of class `name` without calling it."""
        raise NotImplementedError

    def value(self, name: Global) -> None:
        """Whether `name` may lie in the result, from where it could be called with anything."""
        raise NotImplementedError

    def fills(self, name: Global) -> bool:
        """Whether an instance of `name` is filled by APPEND or SETITEM as a container is."""
        raise NotImplementedError

    def persistent(self, pid: Any) -> Global:
        """The storage class of a persistent id."""
        raise NotImplementedError

    def state(self, made: Made) -> None:
        """Whether the state that `made` was just given is one that it may have."""
        raise NotImplementedError

    def raw_array(self, made: Made, stream: IO[bytes]) -> bool | None:
        """Consume what follows `made` besides opcodes; True if a pickle of its own is left, None if nothing follows."""
        raise NotImplementedError


def walk(stream: IO[bytes], rules: Rules, *, depth: int = 0) -> Any:
    """Read one pickle from `stream`, which then stands behind its STOP; returns the abstract result.

    Raises `Unsafe` for anything that is not allowed or not understood, a truncated stream included.
    """
    if depth > MAX_DEPTH:
        raise Unsafe("pickles are nested too deep")
    walker = _Walker(stream, rules, depth)
    try:
        for opcode, argument, position in pickletools.genops(stream):
            walker.step(opcode.name, argument, position or 0)
    except Unsafe:
        raise
    except (ValueError, IndexError, KeyError, EOFError, OverflowError, MemoryError, TypeError) as error:
        raise Unsafe(f"it cannot be parsed as a pickle ({type(error).__name__})") from error
    return walker.result


def walk_all(stream: IO[bytes], rules: Rules) -> Any:
    """As `walk`, and nothing may follow. Raises `Unsafe`."""
    result = walk(stream, rules)
    if stream.read(1):
        raise Unsafe("something follows the end of the pickle")
    return result


class _Walker:
    def __init__(self, stream: IO[bytes], rules: Rules, depth: int) -> None:
        self.stream, self.rules, self.depth = stream, rules, depth
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.protocol, self.frame_end, self.begin, self.count = 0, 0, -1, 0
        self.result: Any = None

    def step(self, name: str, argument: Any, position: int) -> None:
        """Do one opcode."""
        if self.begin < 0:
            self.begin = position
        self.count += 1
        if self.count > MAX_OPCODES:
            raise Unsafe("it has too many opcodes to be checked")
        if name in _CONSTANTS:
            self._constant(argument)
        elif (action := _ACTIONS.get(name)) is not None:
            action(self, argument, position)
        else:
            raise Unsafe(f"opcode {name} is not understood")

    # --- constants and structure

    def _constant(self, value: Any) -> None:
        if isinstance(value, bytes | bytearray):
            self._hidden(bytes(value))
        self.stack.append(Const(value))

    def _hidden(self, value: bytes) -> None:
        """Bytes that are a pickle themselves, as cloudpickle and dill nest them: whoever loads them runs them."""
        if len(value) < 3 or value[0] != 0x80 or not 2 <= value[1] <= 5 or value[-1:] != b".":
            return
        import io

        walk(io.BytesIO(value), self.rules, depth=self.depth + 1)

    def proto(self, argument: int, position: int) -> None:
        if position != self.begin:
            raise Unsafe("the protocol changes inside the pickle")
        self.protocol = argument

    def frame(self, argument: int, position: int) -> None:
        if position < self.frame_end:
            raise Unsafe("its frames overlap")
        self.frame_end = position + 9 + argument

    def stop(self, _: Any, position: int) -> None:
        if len(self.stack) != 1 or self.marks:
            raise Unsafe("its stack is not empty at the end")
        if self.frame_end > position + 1:
            raise Unsafe("its frame reaches over its end")
        self.result = self._value(self.stack.pop())

    def mark(self, _: Any, __: int) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def pop(self, _: Any, __: int) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark()

    def pop_mark(self, _: Any, __: int) -> None:
        self._pop_mark()

    def dup(self, _: Any, __: int) -> None:
        self.stack.append(self.stack[-1])

    def put(self, argument: int, _: int) -> None:
        if argument < 0:
            raise Unsafe("its memo has a negative index")
        self.memo[argument] = self.stack[-1]

    def memoize(self, _: Any, __: int) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, argument: int, _: int) -> None:
        self.stack.append(self.memo[argument])

    # --- containers

    def empty(self, kind: str) -> None:
        self.stack.append(Pairs() if kind == "dict" else Items(kind))

    def gather(self, kind: str, count: int | None) -> None:
        """Take `count` items, or those since the mark, into a container."""
        items = self._pop_mark() if count is None else [self.stack.pop() for _ in range(count)][::-1]
        values = [self._value(item) for item in items]
        if kind != "dict":
            self.stack.append(Items(kind, values))
            return
        self.stack.append(Pairs(_paired(values)))

    def append(self, *, many: bool, kind: str = "list") -> None:
        items = self._pop_mark() if many else [self.stack.pop()]
        target = self._filled(Items, kind)
        target.extend(self._value(item) for item in items)

    def set_items(self, *, many: bool) -> None:
        items = self._pop_mark() if many else [self.stack.pop() for _ in range(2)][::-1]
        self._filled(Pairs).extend(_paired([self._value(item) for item in items]))

    def _filled(self, container: type[Items | Pairs], kind: str = "") -> list[Any]:
        top = self.stack[-1]
        if isinstance(top, Items) and container is Items and top.kind == kind:
            return top.items
        if isinstance(top, Pairs) and container is Pairs:
            return top.pairs
        if isinstance(top, Made) and kind != "set" and self.rules.fills(top.of):
            return top.more
        raise Unsafe("it fills something that is no container")

    def _value(self, item: Any) -> Any:
        if isinstance(item, Global):
            self.rules.value(item)
        return item

    # --- names and calls

    def name(self, argument: str, _: int) -> None:
        module, space, name = argument.partition(" ")
        if not space or " " in name:
            raise Unsafe("a global has an ambiguous name")
        self._name(module, name)

    def stack_name(self, _: Any, __: int) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not all(isinstance(one, Const) and isinstance(one.value, str) for one in (name, module)):
            raise Unsafe("the name of a global is not a constant")
        self._name(module.value, name.value)

    def _name(self, module: str, name: str) -> None:
        if self.protocol < 3:
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[module, name]
            elif module in _compat_pickle.IMPORT_MAPPING:
                module = _compat_pickle.IMPORT_MAPPING[module]
        found = Global(module, name)
        self.rules.resolve(found)
        self.stack.append(found)

    def reduce(self, _: Any, __: int) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        name, given = _called(called), _tuple(args)
        self.rules.call(name, given)
        if (name.module, name.name) == ("_codecs", "encode"):
            self._constant(given[0].value.encode("latin-1"))  # bytes, as protocols below 3 write them
        else:
            self.stack.append(Made(name, given, new=False))

    def newobj(self, _: Any, __: int) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        name, given = _called(cls), _tuple(args)
        self.rules.new(name, given)
        self.stack.append(Made(name, given, new=True))

    def newobj_ex(self, _: Any, __: int) -> None:
        named = self.stack.pop()
        if not isinstance(named, Pairs) or named.pairs:
            raise Unsafe("it makes an object from named arguments")
        self.newobj(None, 0)

    def build(self, _: Any, __: int) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Made):
            raise Unsafe("it sets the state of something that it did not make")
        if target.state is not None:
            raise Unsafe("it sets the state of an object twice")
        target.state = self._value(state)
        self.rules.state(target)
        here = self.stream.tell()
        follows = self.rules.raw_array(target, self.stream)
        if follows is not None and here < self.frame_end:
            raise Unsafe("a frame reaches into the bytes of an array")
        if follows:
            walk(self.stream, self.rules, depth=self.depth + 1)

    def persistent(self, _: Any, __: int) -> None:
        self.stack.append(Stored(self.rules.persistent(self.stack.pop())))


def _called(item: Any) -> Global:
    if not isinstance(item, Global):
        raise Unsafe("it calls something that is not a global")
    return item


def _tuple(item: Any) -> list[Any]:
    if not isinstance(item, Items) or item.kind != "tuple":
        raise Unsafe("the arguments of a call are no tuple")
    return item.items


def _paired(values: list[Any]) -> list[tuple[Any, Any]]:
    if len(values) % 2:
        raise Unsafe("a dictionary has a key without a value")
    return list(zip(values[::2], values[1::2], strict=True))


_CONSTANTS = frozenset(
    {
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE"),
        *("BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_Action = Callable[[_Walker, Any, int], None]
_ACTIONS: dict[str, _Action] = {
    "PROTO": _Walker.proto,
    "FRAME": _Walker.frame,
    "STOP": _Walker.stop,
    "MARK": _Walker.mark,
    "POP": _Walker.pop,
    "POP_MARK": _Walker.pop_mark,
    "DUP": _Walker.dup,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Walker.put),
    "MEMOIZE": _Walker.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Walker.get),
    "EMPTY_LIST": lambda w, _, __: w.empty("list"),
    "EMPTY_TUPLE": lambda w, _, __: w.empty("tuple"),
    "EMPTY_SET": lambda w, _, __: w.empty("set"),
    "EMPTY_DICT": lambda w, _, __: w.empty("dict"),
    "LIST": lambda w, _, __: w.gather("list", None),
    "TUPLE": lambda w, _, __: w.gather("tuple", None),
    "TUPLE1": lambda w, _, __: w.gather("tuple", 1),
    "TUPLE2": lambda w, _, __: w.gather("tuple", 2),
    "TUPLE3": lambda w, _, __: w.gather("tuple", 3),
    "FROZENSET": lambda w, _, __: w.gather("frozenset", None),
    "DICT": lambda w, _, __: w.gather("dict", None),
    "APPEND": lambda w, _, __: w.append(many=False),
    "APPENDS": lambda w, _, __: w.append(many=True),
    "ADDITEMS": lambda w, _, __: w.append(many=True, kind="set"),
    "SETITEM": lambda w, _, __: w.set_items(many=False),
    "SETITEMS": lambda w, _, __: w.set_items(many=True),
    "GLOBAL": _Walker.name,
    "STACK_GLOBAL": _Walker.stack_name,
    "REDUCE": _Walker.reduce,
    "NEWOBJ": _Walker.newobj,
    "NEWOBJ_EX": _Walker.newobj_ex,
    "BUILD": _Walker.build,
    "BINPERSID": _Walker.persistent,
}
