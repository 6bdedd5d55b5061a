"""How much a caller asked for lately: a moving window each for requests and for rows, by the library `limits`.

In this process's memory: a guard that starts anew has forgotten, and two guards count each for itself. The windows run
on the monotonic clock, so that a machine whose time is set back neither locks its callers out nor forgets them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlseal.errors import Misuse
from mlseal.services.guard.settings import LimitsPart

if TYPE_CHECKING:
    from limits import RateLimitItem

_SWEPT = 4096  # windows that may lie about before those that are over are thrown away


class TooMany(Misuse):
    """The caller asked for more than the settings allow; ``seconds`` until asking again can succeed."""

    http_status = 429

    def __init__(self, what: str, allowed: str, seconds: int) -> None:
        super().__init__(f"too many {what}", expected=allowed, remedy=f"wait {seconds} s")
        self.seconds = seconds


class Rates:
    """The windows of all callers. Thread-safe."""

    def __init__(self, limits: LimitsPart) -> None:
        from limits import parse
        from limits.strategies import MovingWindowRateLimiter

        self._limiter = MovingWindowRateLimiter(_storage()())
        self._requests, self._rows = parse(limits.requests), parse(limits.rows)
        if self._rows.amount < limits.max_rows:
            raise Misuse("limits.rows is below maxRows, so the largest request could never pass", got=limits.rows)

    def take_request(self, caller: str) -> None:
        """Count one request. Raises `TooMany`; a refused request does not count."""
        self._take("requests", self._requests, caller, 1)

    def take_rows(self, caller: str, rows: int) -> None:
        """Count `rows`. Raises `TooMany`."""
        self._take("rows", self._rows, caller, rows)

    def _take(self, what: str, item: RateLimitItem, caller: str, cost: int) -> None:
        if not self._limiter.hit(item, what, caller, cost=cost):
            reset = self._limiter.get_window_stats(item, what, caller).reset_time
            raise TooMany(what, f"at most {item}", max(1, math.ceil(reset - time.monotonic())))


@dataclass
class _Window:
    """What one caller took: when and how much, and the sum of it."""

    seconds: int
    taken: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def now(self) -> _Window:
        """This window without what is as old as it is long."""
        begin = time.monotonic() - self.seconds
        while self.taken and self.taken[0][0] <= begin:
            self.total -= self.taken.popleft()[1]
        return self


@lru_cache(maxsize=1)
def _storage() -> type[Any]:
    from limits.storage import MemoryStorage

    class Steady(MemoryStorage):
        """The library's storage on the clock that nobody sets; one record for each request, however many rows."""

        def __init__(self) -> None:
            super().__init__()
            self._lock = threading.Lock()
            self._windows: dict[str, _Window] = {}

        def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
            with self._lock:
                if len(self._windows) >= _SWEPT and key not in self._windows:
                    self._windows = {name: one for name, one in self._windows.items() if one.now().taken}
                window = self._windows.setdefault(key, _Window(expiry)).now()
                if window.total + amount > limit:
                    return False
                window.taken.append((time.monotonic(), amount))
                window.total += amount
                return True

        def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
            del limit
            with self._lock:
                window = self._windows.get(key, _Window(expiry)).now()
                return (window.taken[0][0] if window.taken else time.monotonic()), window.total

    return Steady
