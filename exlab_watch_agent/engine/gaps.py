"""Notices that the loop was not there for a while: what happened then is unknown, so everything is looked through."""

from __future__ import annotations

import logging

from exlab_watch_agent.ports import Clock

log = logging.getLogger(__name__)

GAP_MIN_S = 30.0
"""A pass comes at least once a second or two: who was away for so long may have missed what happened."""
CLOCK_SET_BACK_MIN_S = 1.0


class Gaps:
    """Notices that the machine slept, the process was stopped, or the wall clock was set: what happened then is unknown."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_s, self._last_at = clock.monotonic_s(), clock.now()

    def has_been_away(self) -> bool:
        """Return whether either clock says that the last pass, at most a second or two ago, is longer ago than that.

        On some platforms the monotonic clock stops while the machine sleeps; the wall clock never does.
        """
        now_s, now_at = self._clock.monotonic_s(), self._clock.now()
        passed_s, passed_wall_s = now_s - self._last_s, (now_at - self._last_at).total_seconds()
        self._last_s, self._last_at = now_s, now_at
        is_away = max(passed_s, passed_wall_s) > GAP_MIN_S or passed_wall_s < -CLOCK_SET_BACK_MIN_S
        if is_away:
            log.info("%.0f s passed, %.0f s by the wall clock: all is looked through", passed_s, passed_wall_s)
        return is_away
