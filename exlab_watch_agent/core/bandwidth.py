"""The bandwidth limit in force at an instant, and when it changes.

Decided here: which windows hold at a moment of the local wall clock, and the rate that follows. Not here: who keeps to
it (the transports), and what the local time zone is (the clock's adapter).

The wall clock decides, not elapsed time: a window from 02:30 that falls into the hour that is skipped in spring begins
at the jump, and in the hour that comes twice in autumn it holds both times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

# Windows repeat weekly, but the one window of a week can fall into a skipped hour: then the next is two weeks away.
_HORIZON_DAYS = 16


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


def next_change(limit: BandwidthLimit | None, at_local: datetime) -> datetime | None:
    """Return the first moment after `at_local` whose rate differs from the one at `at_local`, None if it never does.

    The answer is in the time zone of `at_local`. A zone with rules (`ZoneInfo`) gives the exact instant across a
    change of the clocks. A fixed offset, as `datetime.astimezone()` yields, knows of none: ask again at least hourly.
    """
    if limit is None or not limit.windows:
        return None
    holds_now = _holds(limit, at_local)
    for moment in _edges_after(limit, at_local):
        if _holds(limit, moment) != holds_now:
            return moment
    return None


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


def _edges_after(limit: BandwidthLimit, at_local: datetime) -> list[datetime]:
    """Return, in order, every later moment at which the answer can change: edges of windows, changes of the clocks."""
    edges = {edge for window in limit.windows for edge in (window.start, window.end)}
    days = [at_local.date() + timedelta(days=offset) for offset in range(_HORIZON_DAYS + 1)]
    if at_local.tzinfo is None:
        walls = (datetime.combine(day, edge) for day in days for edge in edges)
        return sorted(wall for wall in walls if wall > at_local)
    # Two moments of one zone are compared by their wall clocks, which is wrong around a change: compare in UTC.
    at = at_local.astimezone(UTC)
    moments = {moment for day in days for edge in edges for moment in _instants(day, edge, at_local)}
    moments.update(_clock_changes(at, at_local))
    return [moment.astimezone(at_local.tzinfo) for moment in sorted(moments) if moment > at]


def _instants(day: date, edge: time, at_local: datetime) -> tuple[datetime, datetime]:
    """Return, in UTC, both instants at which the wall clock may show this time: nearly always the same one."""
    wall = datetime.combine(day, edge, tzinfo=at_local.tzinfo)
    return wall.replace(fold=0).astimezone(UTC), wall.replace(fold=1).astimezone(UTC)


def _clock_changes(at: datetime, at_local: datetime) -> list[datetime]:
    """Return, in UTC and to the second, when the zone's offset changes within the horizon (at most once a day)."""
    changes = []
    zone = at_local.tzinfo
    start = at.replace(microsecond=0)
    for day in range(_HORIZON_DAYS):
        before, after = start + timedelta(days=day), start + timedelta(days=day + 1)
        old = before.astimezone(zone).utcoffset()
        if after.astimezone(zone).utcoffset() == old:
            continue
        while after - before > timedelta(seconds=1):
            middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
            if middle.astimezone(zone).utcoffset() == old:
                before = middle
            else:
                after = middle
        changes.append(after)
    return changes
