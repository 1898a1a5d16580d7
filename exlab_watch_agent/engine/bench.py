"""What the parts of the loop work with. One for each engine; only the loop's thread touches any of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from exlab_watch_agent.core.pace import Pace
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.engine.commit import Commit
from exlab_watch_agent.engine.errands import Errands
from exlab_watch_agent.engine.lane import Lane
from exlab_watch_agent.engine.messages import Message
from exlab_watch_agent.engine.timers import Timers
from exlab_watch_agent.ports import Clock


@dataclass(frozen=True)
class Bench:
    """`commit`: the records of this pass; `errands`: what runs; `post`: the loop's own inbox, for the next pass."""

    commit: Commit
    errands: Errands
    timers: Timers
    lanes: Mapping[str, Lane]
    policy: Policy
    clock: Clock
    pace: Pace
    post: Callable[[Message], None]

    def in_s(self, wait_s: float) -> float:
        """Return the monotonic time at which `wait_s` will be over."""
        return self.clock.monotonic_s() + wait_s
