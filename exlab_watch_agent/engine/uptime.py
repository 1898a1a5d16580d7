"""For how long the agent has run, over all its lives as far as they are known: a clock that nobody can set."""

from __future__ import annotations

from exlab_watch_agent.ports import Clock


class AgentUptime:
    """For how long agents of this state folder have run, as far as the passes that they made know: never more."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._before_s = 0.0

    def take_up(self, sum_s: float) -> None:
        """Go on from what a pass of an earlier agent knew."""
        self._before_s = max(self._before_s, sum_s)

    def sum_s(self) -> float:
        return self._before_s + self._clock.monotonic_s() - self._began_s
