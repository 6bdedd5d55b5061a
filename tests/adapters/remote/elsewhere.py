"""A trust service whose evidence goes to another store than its own directory."""

from __future__ import annotations

from typing import Any


class Elsewhere:
    """`authority`, except that `store` is given, and where its signers publish."""

    def __init__(self, authority: Any, store: Any) -> None:
        self._authority, self.store = authority, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._authority, name)

    def signer(self, role: str = "producer", **kwargs: Any) -> Any:
        return self._authority.signer(role, **({"store": self.store} | kwargs))
