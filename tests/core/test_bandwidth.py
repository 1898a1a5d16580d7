"""The limit in force at a local time."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exlab_watch_agent.core.bandwidth import BandwidthLimit, Window, bwlimit_kib, rate_bytes_per_s

BERLIN = ZoneInfo("Europe/Berlin")
WEEKDAYS = frozenset(range(5))
OFFICE = BandwidthLimit(50, (Window(WEEKDAYS, time(8), time(18)),))
NIGHT = BandwidthLimit(50, (Window(frozenset({4}), time(22), time(6)),))
FIFTY_MBPS = 50 * 1024 / 8 * 1024

# 2026-04-17 is a Friday; Berlin's clocks go forward on 2026-03-29 at 02:00 and back on 2026-10-25 at 03:00.
FRIDAY, SATURDAY, SUNDAY, MONDAY = 17, 18, 19, 20


def berlin(day: int, hour: int, minute: int = 0, *, month: int = 4, fold: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(("mbps", "kib"), [(50, 6400), (1, 128), (0.5, 64), (0.001, 1), (1e-9, 1), (0.75, 96)])
def test_megabits_become_whole_kibibytes_and_at_least_one(mbps: float, kib: int) -> None:
    assert bwlimit_kib(BandwidthLimit(mbps)) == kib
    assert rate_bytes_per_s(BandwidthLimit(mbps), berlin(FRIDAY, 12)) == kib * 1024


def test_no_limit_is_no_rate() -> None:
    assert rate_bytes_per_s(None, berlin(FRIDAY, 12)) is None


def test_a_limit_without_windows_always_holds() -> None:
    assert rate_bytes_per_s(BandwidthLimit(50), berlin(SUNDAY, 3)) == FIFTY_MBPS


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        (berlin(FRIDAY, 7, 59), False),
        (berlin(FRIDAY, 8), True),
        (berlin(FRIDAY, 17, 59) + timedelta(seconds=59, microseconds=999_999), True),
        (berlin(FRIDAY, 18), False),
        (berlin(SATURDAY, 12), False),
    ],
)
def test_a_window_is_half_open_and_outside_it_there_is_no_limit(at: datetime, holds: bool) -> None:
    assert rate_bytes_per_s(OFFICE, at) == (FIFTY_MBPS if holds else None)


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        (berlin(FRIDAY, 5), False),  # a Friday morning belongs to Thursday's window, and there is none
        (berlin(FRIDAY, 21, 59), False),
        (berlin(FRIDAY, 22), True),
        (berlin(SATURDAY, 0), True),
        (berlin(SATURDAY, 5, 59), True),
        (berlin(SATURDAY, 6), False),
        (berlin(SATURDAY, 22), False),
    ],
)
def test_a_window_past_midnight_belongs_to_the_day_on_which_it_starts(at: datetime, holds: bool) -> None:
    assert rate_bytes_per_s(NIGHT, at) == (FIFTY_MBPS if holds else None)


def test_a_window_that_ends_when_it_starts_is_twenty_four_hours() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({4}), time(8), time(8)),))
    assert rate_bytes_per_s(limit, berlin(FRIDAY, 7, 59)) is None
    assert rate_bytes_per_s(limit, berlin(FRIDAY, 8)) == FIFTY_MBPS
    assert rate_bytes_per_s(limit, berlin(SATURDAY, 7, 59)) == FIFTY_MBPS
    assert rate_bytes_per_s(limit, berlin(SATURDAY, 8)) is None


def rates_at(limit: BandwidthLimit, *moments_utc: datetime) -> list[bool]:
    """Return at which of these instants of Berlin the limit holds."""
    return [rate_bytes_per_s(limit, moment.astimezone(BERLIN)) is not None for moment in moments_utc]


def test_a_window_that_starts_in_the_skipped_hour_begins_at_the_jump() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({6}), time(2, 30), time(4)),))
    jump = datetime(2026, 3, 29, 1, tzinfo=UTC)  # 02:00 becomes 03:00
    assert rates_at(limit, jump - timedelta(seconds=1), jump, jump + timedelta(hours=1)) == [False, True, False]


def test_a_window_that_lies_in_the_skipped_hour_is_left_out_that_week() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({6}), time(2, 15), time(2, 45)),))
    day = datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert not any(rates_at(limit, *(day + timedelta(minutes=minutes) for minutes in range(23 * 60))))


def test_a_window_in_the_hour_that_comes_twice_holds_both_times() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({6}), time(2, 15), time(2, 45)),))
    edges = [(0, 14), (0, 15), (0, 44), (0, 45), (1, 14), (1, 15), (1, 44), (1, 45)]
    moments = [datetime(2026, 10, 25, hour, minute, tzinfo=UTC) for hour, minute in edges]
    assert rates_at(limit, *moments) == [False, True, True, False] * 2


def test_local_times_without_a_zone_are_taken_as_the_wall_clock() -> None:
    assert rate_bytes_per_s(OFFICE, datetime(2026, 4, FRIDAY, 7)) is None  # noqa: DTZ001
    assert rate_bytes_per_s(OFFICE, datetime(2026, 4, FRIDAY, 8)) == FIFTY_MBPS  # noqa: DTZ001


windows = st.builds(
    Window,
    weekdays=st.frozensets(st.integers(0, 6), min_size=1),
    start=st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
    end=st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
)
limits = st.builds(BandwidthLimit, upload_mbps=st.floats(0.01, 1e4), windows=st.lists(windows, max_size=4).map(tuple))


def minutes_of(window: Window) -> set[int]:
    """Return the minutes of the week in a window, counted out one by one."""
    start = window.start.hour * 60 + window.start.minute
    length = (window.end.hour * 60 + window.end.minute - start) % 1440 or 1440
    return {(day * 1440 + start + minute) % 10080 for day in window.weekdays for minute in range(length)}


@settings(max_examples=400)
@given(limit=limits, minute=st.integers(0, 10079))
def test_a_limit_holds_in_the_minutes_of_its_windows_and_in_no_other(limit: BandwidthLimit, minute: int) -> None:
    at = datetime(2026, 4, MONDAY) + timedelta(minutes=minute)  # noqa: DTZ001
    holds = not limit.windows or any(minute in minutes_of(window) for window in limit.windows)
    assert rate_bytes_per_s(limit, at) == (bwlimit_kib(limit) * 1024 if holds else None)
