"""Transports that do what another one does, but for what a test has them do otherwise."""

from __future__ import annotations

from typing import Any


class Wrapped:
    """A transport that hands everything on to another one, for tests to change one thing about."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
