"""The loop notices that it was not there for a while, by whichever clock tells."""

from __future__ import annotations

from datetime import timedelta

import pytest

from exlab_watch_agent.engine.gaps import Gaps
from tests.sim.world import FakeClock


@pytest.mark.parametrize(
    ("monotonic_s", "wall_s", "is_away"),
    [
        (1.0, 1.0, False),
        (20.0, 20.0, False),
        (40.0, 40.0, True),  # the process was stopped
        (1.0, 3600.0, True),  # the machine slept, and its monotonic clock with it; or the clock was set
        (1.0, -3600.0, True),
        (1.0, 0.9, False),  # the clock is slewed
    ],
)
def test_a_gap_or_a_clock_that_was_set_is_noticed_once(monotonic_s: float, wall_s: float, is_away: bool) -> None:
    clock = FakeClock()
    gaps = Gaps(clock)
    clock.mono_s += monotonic_s
    clock.wall += timedelta(seconds=wall_s)
    assert gaps.has_been_away() is is_away
    clock.advance(1.0)
    assert gaps.has_been_away() is False
