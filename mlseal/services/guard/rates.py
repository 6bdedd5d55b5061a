"""How much a caller asked for lately: a moving window each for requests and for rows, by the library `limits`.

In this process's memory: a guard that starts anew has forgotten, and two guards count each for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlseal.errors import Misuse
from mlseal.services.guard.settings import LimitsPart

if TYPE_CHECKING:
    from limits import RateLimitItem


class TooMany(Misuse):
    """The caller asked for more than the settings allow; ``seconds`` until asking again can succeed."""

    http_status = 429

    def __init__(self, what: str, allowed: str, seconds: int) -> None:
        super().__init__(f"too many {what}", expected=allowed, remedy=f"wait {seconds} s")
        self.seconds = seconds


class Rates:
    """The windows of all callers."""

    def __init__(self, limits: LimitsPart) -> None:
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import MovingWindowRateLimiter

        self._limiter = MovingWindowRateLimiter(MemoryStorage())
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
        import math
        import time

        if not self._limiter.hit(item, what, caller, cost=cost):
            reset = self._limiter.get_window_stats(item, what, caller).reset_time
            raise TooMany(what, f"at most {item}", max(1, math.ceil(reset - time.time())))
