"""What the parts of the loop work with. One for each engine; only the loop's thread touches any of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.engine.commit import Commit
from exlab_watch_agent.engine.errands import Errands
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.messages import Message
from exlab_watch_agent.engine.timers import Timers
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


@dataclass(frozen=True)
class Bench:
    """`commit`: the records of this pass; `errands`: what runs; `post`: the loop's own inbox, for the next pass."""

    commit: Commit
    errands: Errands
    timers: Timers
    lanes: Mapping[str, Lane]
    policy: Policy
    clock: Clock
    post: Callable[[Message], None]

    uptime: AgentUptime

    def in_s(self, wait_s: float) -> float:
        """Return the monotonic time at which `wait_s` will be over."""
        return self.clock.monotonic_s() + wait_s
