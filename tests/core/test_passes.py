"""When two passes are two: only as far as every clock shows that time lies between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from exlab_watch_agent.core.passes import UNKNOWN_UPTIME, Uptime, are_apart

AT = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("by_wall_s", "earlier", "uptime", "is_apart"),
    [
        (60, Uptime("a", 100), Uptime("a", 160), True),
        (59, Uptime("a", 100), Uptime("a", 160), False),
        (60, Uptime("a", 100), Uptime("a", 159), False),
        (HOUR_S, Uptime("a", 100), Uptime("a", 105), False),  # the wall clock was set ahead
        (-HOUR_S, Uptime("a", 100), Uptime("a", 105), False),  # ... and back
        (-HOUR_S, Uptime("a", 100), Uptime("a", 160), True),  # one that was set back tells nothing
        (0, Uptime("a", 100), Uptime("a", 160), False),
        (HOUR_S, Uptime("a", 100_000), Uptime("b", 60), True),  # since the reboot a minute has passed at least
        (HOUR_S, Uptime("a", 100_000), Uptime("b", 59), False),
        (-HOUR_S, Uptime("a", 100_000), Uptime("b", 60), True),  # no battery: the clock begins anew at each boot
        (59, Uptime("a", 100_000), Uptime("b", 60), False),
        (HOUR_S, UNKNOWN_UPTIME, Uptime("a", 9_000), False),
        (HOUR_S, Uptime("a", 100), UNKNOWN_UPTIME, False),
        (HOUR_S, UNKNOWN_UPTIME, UNKNOWN_UPTIME, False),
    ],
)
def test_two_passes_are_apart_when_every_clock_says_so(
    by_wall_s: float, earlier: Uptime, uptime: Uptime, is_apart: bool
) -> None:
    now = AT + timedelta(seconds=by_wall_s)
    assert are_apart(earlier_at=AT, earlier=earlier, now=now, uptime=uptime) is is_apart
