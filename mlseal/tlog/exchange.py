"""Replacing a file in one step, without the flush that comes with it.

Renaming over an existing file makes ext4 write the new data out first (its ``auto_da_alloc``), which on a busy disk
takes as long as a flush: 2.6 ms against 0.3 ms, measured. Exchanging two names is just as atomic for readers and does
not. It is for files whose durability is secured elsewhere.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> bool:
    """Give each file the other's name, in one step.

    Returns:
        False, having done nothing, where the system cannot or one of them does not exist.
    """
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


@cache
def _renameat2() -> Any:
    """The C library's function (Linux 3.15, glibc 2.28), or None."""
    try:
        function = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function
