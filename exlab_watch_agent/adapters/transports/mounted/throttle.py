"""How a bandwidth limit is kept while bytes are moved by ourselves."""

from __future__ import annotations

import threading
from collections.abc import Callable

from exlab_watch_agent.adapters.clock import SYSTEM_CLOCK, PausingClock

_LEAST_PIECE_BYTES = 16 * 1024
_PIECES_PER_S = 8
_LONGEST_WAIT_S = 0.1
"""A limit that changes, and a push that is cancelled, are noticed within this."""


class Throttle:
    """Lets bytes pass at the rate that is in force at the moment. Shared by all threads of one copy."""

    def __init__(
        self,
        rate_bytes_per_s: Callable[[], float | None],
        check: Callable[[], None],
        *,
        clock: PausingClock = SYSTEM_CLOCK,
    ) -> None:
        self._rate = rate_bytes_per_s
        self._check = check
        self._clock = clock
        self._lock = threading.Lock()
        self._ahead_bytes = 0.0
        self._at_s = self._clock.monotonic_s()

    def take(self, wanted_bytes: int) -> int:
        """Return how many of the wanted bytes may be moved now, at least one; waits until some may.

        Raises: what `check` raises, asked at least every 0.1 s.
        """
        with self._lock:
            while True:
                self._check()
                rate = self._rate()
                if rate is None:
                    self._ahead_bytes = 0.0
                    return wanted_bytes
                rate = max(rate, 1.0)
                now_s = self._clock.monotonic_s()
                self._ahead_bytes = max(0.0, self._ahead_bytes - (now_s - self._at_s) * rate)
                self._at_s = now_s
                allowed_ahead = rate / _PIECES_PER_S
                # What was moved at a higher rate is not waited for at the lower one.
                self._ahead_bytes = min(self._ahead_bytes, 2 * allowed_ahead + _LEAST_PIECE_BYTES)
                if self._ahead_bytes < allowed_ahead:
                    granted = min(wanted_bytes, max(_LEAST_PIECE_BYTES, int(allowed_ahead)))
                    self._ahead_bytes += granted
                    return granted
                wait_s = (self._ahead_bytes - allowed_ahead) / rate
                self._clock.pause(min(max(wait_s, 0.001), _LONGEST_WAIT_S))
