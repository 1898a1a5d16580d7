"""The bandwidth limit in force at an instant.

Decided here: which windows hold at a moment of the local wall clock, and the rate that follows. Not here: who keeps to
it (the transports), and what the local time zone is (the clock's adapter).

The wall clock decides, not elapsed time: a window from 02:30 that falls into the hour that is skipped in spring begins
at the jump, and in the hour that comes twice in autumn it holds both times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open `[start, end)` in local time on `weekdays` (0 = Monday).

    Where `end <= start` it runs past midnight, and belongs to the day on which it starts. `end == start` is therefore
    24 hours: reading it as "never" would leave a limit unkept that somebody wrote down.
    """

    weekdays: frozenset[int]
    start: time
    end: time


@dataclass(frozen=True, slots=True)
class BandwidthLimit:
    """`upload_mbps` megabits per second; no windows: it always holds; else only inside one."""

    upload_mbps: float
    windows: tuple[Window, ...] = ()


def bwlimit_kib(limit: BandwidthLimit) -> int:
    """Return the limit in whole KiB per second, at least 1: the value K that rsync and rclone take as `--bwlimit`."""
    return max(1, round(limit.upload_mbps * 1024 / 8))


def rate_bytes_per_s(limit: BandwidthLimit | None, at_local: datetime) -> float | None:
    """Return the bytes per second that may be sent at this local time, None for no limit.

    The same number as `bwlimit_kib` says to the tools, in bytes.
    """
    if limit is None or not _holds(limit, at_local):
        return None
    return float(bwlimit_kib(limit) * 1024)


def _holds(limit: BandwidthLimit, at_local: datetime) -> bool:
    if not limit.windows:
        return True
    today = at_local.weekday()
    yesterday = (today - 1) % 7
    now = at_local.time()
    return any(_covers(window, now, today=today, yesterday=yesterday) for window in limit.windows)


def _covers(window: Window, now: time, *, today: int, yesterday: int) -> bool:
    if window.start < window.end:
        return today in window.weekdays and window.start <= now < window.end
    began_today = today in window.weekdays and now >= window.start
    began_yesterday = yesterday in window.weekdays and now < window.end
    return began_today or began_yesterday
