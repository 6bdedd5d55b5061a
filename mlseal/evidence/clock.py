"""The one clock. Everything that asks for the time takes a `Clock`, so that tests choose it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]

SKEW = timedelta(minutes=5)
"""How far two machines' clocks may differ before a time counts as in the future (DESIGN, section 3)."""


def utcnow() -> datetime:
    """The machine's time, aware, in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with whole seconds and a ``Z``."""
    return moment.astimezone(UTC).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> datetime:
    """The aware moment in `text`; raises `ValueError` for a time without an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text[:40]!r}")
    return moment.astimezone(UTC)
