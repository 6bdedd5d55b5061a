"""NumPy's arrays in pickles: whether what a file says of an item agrees with itself.

NumPy takes the flags of a dtype from the file. One that calls numbers objects, or objects numbers, makes it read bytes
as addresses, or makes joblib unpickle the bytes of an array; so a dtype must be what its code says, before and after.
"""

from __future__ import annotations

import math
from typing import IO, Any

from mlseal.stages.testing.opcodes import Const, Global, Items, Made, Pairs, Unsafe

_OBJECT_FLAGS, _PLAIN_FLAGS = 63, 0x98
"""All of NumPy's flags for objects, and those that a dtype without objects may have: zeroed first, aligned."""
_FLAGS, _SUBTYPE, _NAMES, _FIELDS, _SIZE = 7, 2, 3, 4, 5
_KINDS = "biufcSUVmM"


def code_of(dtype: Any) -> str:
    """The code of a dtype, such as ``f8``. Raises `Unsafe` if it is none that is known."""
    made = isinstance(dtype, Made) and (dtype.of.module, dtype.of.name) == ("numpy", "dtype")
    first = dtype.args[0] if made and dtype.args else None
    code = first.value if isinstance(first, Const) else None
    if not isinstance(code, str):
        raise Unsafe("an array has a dtype that is none")
    if code in {"O8", "O", "|O"}:
        return "O"
    if code[:1] not in _KINDS or not code[1:].isdecimal() or len(code) > 10:
        raise Unsafe(f"an array has a dtype that is not plain ({code[:20]})")
    return code


def item_size(dtype: Any) -> int | None:
    """Bytes of one item; None for objects."""
    code = code_of(dtype)
    if code == "O":
        return None
    return int(code[1:]) * (4 if code[0] == "U" else 1)


def require_dtype(dtype: Made) -> None:
    """Raise `Unsafe` unless the state of a dtype agrees with its code: size, flags, no objects inside of records."""
    code, state = code_of(dtype), dtype.state
    items = state.items if isinstance(state, Items) and state.kind == "tuple" else []
    if len(items) not in {8, 9} or (len(items) == 9 and code[0] not in "mM"):
        raise Unsafe("a dtype has an unknown state")
    flags, size, fields = _number(items[_FLAGS]), _number(items[_SIZE]), items[_FIELDS]
    if code == "O":
        fits = flags == _OBJECT_FLAGS and size == -1
    else:
        fits = flags & ~_PLAIN_FLAGS == 0 and size in {-1, item_size(dtype)} and (size != -1 or code[0] != "V")
    if not fits or not _nothing(items[_SUBTYPE]):
        raise Unsafe("a dtype does not agree with itself")
    if _nothing(fields) and _nothing(items[_NAMES]):
        return
    if code[0] != "V" or not isinstance(fields, Pairs):
        raise Unsafe("a dtype does not agree with itself")
    for _, field in fields.pairs:
        _require_field(field, int(code[1:]))


def _require_field(field: Any, size: int) -> None:
    inside = field.items if isinstance(field, Items) and field.kind == "tuple" else []
    width = item_size(inside[0]) if len(inside) == 2 else None
    offset = _number(inside[1]) if len(inside) == 2 else -1
    if width is None or offset < 0 or offset + width > size:
        raise Unsafe("a record of an array holds objects or reaches out of itself")


def require_array(array: Made) -> None:
    """Raise `Unsafe` unless an array of objects holds a list, and every other holds the bytes that it needs."""
    items = array.state.items if isinstance(array.state, Items) and array.state.kind == "tuple" else []
    if len(items) != 5:
        raise Unsafe("an array has an unknown state")
    _, shape, dtype, _, data = items
    size, count = item_size(dtype), math.prod(shape_of(shape))
    if size is None:
        fits = isinstance(data, Items) and data.kind == "list"
    else:
        raw = data.value if isinstance(data, Const) else None
        if isinstance(data, Made) and not count:  # protocols below 3 write no bytes as ``bytes()``
            raw = b""
        fits = isinstance(raw, bytes | bytearray) and len(raw) == count * size
    if not fits:
        raise Unsafe("an array does not hold what its dtype says")


def require_buffer(args: list[Any]) -> None:
    """Raise `Unsafe` unless ``_frombuffer(BYTES, DTYPE, …)`` is given bytes and a dtype without objects."""
    data = args[0]
    if not isinstance(data, Const) or not isinstance(data.value, bytes | bytearray) or item_size(args[1]) is None:
        raise Unsafe("an array does not hold what its dtype says")


def shape_of(shape: Any) -> list[int]:
    """The lengths of an array's axes."""
    items = shape.items if isinstance(shape, Items) and shape.kind == "tuple" else [None]
    sizes = [_number(item) for item in items]
    if not all(0 <= size < 1 << 48 for size in sizes):
        raise Unsafe("an array has no plain shape")
    return sizes


def skip_raw(wrapper: Made, stream: IO[bytes]) -> bool:
    """Skip the bytes of an array as joblib reads them; True if it holds objects, which are a pickle that follows."""
    state = wrapper.state
    known = state.get("subclass") if isinstance(state, Pairs) else None
    if not isinstance(state, Pairs) or not isinstance(known, Global) or str(known) != "numpy.ndarray":
        raise Unsafe("an array of joblib has an unknown class")
    size, count = item_size(state.get("dtype")), math.prod(shape_of(state.get("shape")))
    if size is None:
        return True
    alignment = state.get("numpy_array_alignment_bytes")
    if alignment is not None and not _nothing(alignment):
        padding = stream.read(1)
        _skip(stream, padding[0] if padding else 1)
    _skip(stream, count * size)
    return False


def _skip(stream: IO[bytes], count: int) -> None:
    here = stream.tell()
    stream.seek(0, 2)
    if here + count > stream.tell():
        raise Unsafe("the bytes of an array are cut off")
    stream.seek(here + count)


def _number(item: Any) -> int:
    value = item.value if isinstance(item, Const) else None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unsafe("a number of an array is none")
    return value


def _nothing(item: Any) -> bool:
    return isinstance(item, Const) and item.value is None
