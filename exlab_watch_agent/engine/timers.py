"""Timers of the engine's loop: monotonic due times, one a key, so that a jumping clock hastens or delays nothing."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import StrEnum


class TimerKind(StrEnum):
    LOOK = "look"
    READY = "ready"
    ERRAND = "errand"
    AUDIT = "audit"
    CACHE = "cache"
    PROBE = "probe"
    SILENCE = "silence"
    SCAN = "scan"
    SCAN_AGAIN = "scan_again"
    ROOM = "room"


@dataclass
class Timers:
    """At most one timer for each (kind, key); setting it again replaces it. Cost of each call: logarithmic."""

    _heap: list[tuple[float, int, TimerKind, str]] = field(default_factory=list)
    _current: dict[tuple[TimerKind, str], tuple[int, float]] = field(default_factory=dict)
    _serial: int = 0

    def set(self, kind: TimerKind, key: str, *, due_s: float) -> None:
        self._serial += 1
        self._current[(kind, key)] = (self._serial, due_s)
        heapq.heappush(self._heap, (due_s, self._serial, kind, key))

    def set_earlier(self, kind: TimerKind, key: str, *, due_s: float) -> None:
        """Set the timer unless one is due before that."""
        current = self._current.get((kind, key))
        if current is not None and current[1] <= due_s:
            return
        self.set(kind, key, due_s=due_s)

    def cancel(self, kind: TimerKind, key: str) -> None:
        self._current.pop((kind, key), None)

    def has(self, kind: TimerKind, key: str) -> bool:
        return (kind, key) in self._current

    def next_due_s(self) -> float | None:
        """Return when the next timer is due, None when there is none."""
        while self._heap:
            due_s, serial, kind, key = self._heap[0]
            if self._current.get((kind, key)) == (serial, due_s):
                return due_s
            heapq.heappop(self._heap)
        return None

    def take_due(self, now_s: float) -> list[tuple[TimerKind, str]]:
        """Return and forget the timers that are due."""
        due: list[tuple[TimerKind, str]] = []
        while (next_s := self.next_due_s()) is not None and next_s <= now_s:
            _, _, kind, key = heapq.heappop(self._heap)
            del self._current[(kind, key)]
            due.append((kind, key))
        return due
