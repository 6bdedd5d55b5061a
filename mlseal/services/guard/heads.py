"""Connections that never say what they want are closed: uvicorn waits for the head of a request without end.

Whoever connects and keeps silent, or sends a byte now and then, would hold one of the places that all callers share,
without a token (Slowloris). A head must be whole within `SECONDS`; bodies have a limit of their own in the settings.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

SECONDS = 10.0


class Heads(H11Protocol):
    """uvicorn's protocol on h11, with a deadline for each head."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new caller: the first head is due."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Some of a head, or of what follows it."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """A deadline that runs goes on, however many bytes came meanwhile."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
