"""The limit in force at a local time, and when it changes."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exlab_watch_agent.core.bandwidth import BandwidthLimit, Window, bwlimit_kib, next_change, rate_bytes_per_s

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


def test_no_limit_is_no_rate_and_never_changes() -> None:
    assert rate_bytes_per_s(None, berlin(FRIDAY, 12)) is None
    assert next_change(None, berlin(FRIDAY, 12)) is None


def test_a_limit_without_windows_always_holds_and_never_changes() -> None:
    assert rate_bytes_per_s(BandwidthLimit(50), berlin(SUNDAY, 3)) == FIFTY_MBPS
    assert next_change(BandwidthLimit(50), berlin(SUNDAY, 3)) is None


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
    assert next_change(limit, berlin(FRIDAY, 8)) == berlin(SATURDAY, 8)


def test_windows_that_cover_the_whole_week_never_change() -> None:
    limit = BandwidthLimit(50, (Window(frozenset(range(7)), time(0), time(0)),))
    assert next_change(limit, berlin(FRIDAY, 12)) is None


@pytest.mark.parametrize(
    ("limit", "at", "expected"),
    [
        (OFFICE, berlin(FRIDAY, 7), berlin(FRIDAY, 8)),
        (OFFICE, berlin(FRIDAY, 8), berlin(FRIDAY, 18)),
        (OFFICE, berlin(FRIDAY, 18), berlin(MONDAY, 8)),
        (NIGHT, berlin(FRIDAY, 23), berlin(SATURDAY, 6)),
        (NIGHT, berlin(SATURDAY, 6), berlin(FRIDAY + 7, 22)),
    ],
)
def test_the_next_change_is_the_next_edge_that_matters(
    limit: BandwidthLimit, at: datetime, expected: datetime | None
) -> None:
    assert next_change(limit, at) == expected


def test_the_edge_between_two_adjoining_windows_is_no_change() -> None:
    limit = BandwidthLimit(50, (Window(WEEKDAYS, time(8), time(12)), Window(WEEKDAYS, time(12), time(18))))
    assert next_change(limit, berlin(FRIDAY, 9)) == berlin(FRIDAY, 18)


def test_a_window_that_starts_in_the_skipped_hour_begins_at_the_jump() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({6}), time(2, 30), time(4)),))
    change = next_change(limit, berlin(29, 1, month=3))
    assert change is not None
    assert change.astimezone(UTC) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert (change.hour, change.minute) == (3, 0)


def test_a_window_that_lies_in_the_skipped_hour_is_left_out_that_week() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({6}), time(2, 15), time(2, 45)),))
    assert next_change(limit, berlin(22, 3, month=3)) == berlin(5, 2, 15)


def test_a_window_in_the_hour_that_comes_twice_holds_both_times() -> None:
    limit = BandwidthLimit(50, (Window(frozenset({6}), time(2, 15), time(2, 45)),))
    changes = []
    at = berlin(25, 0, month=10)
    for _ in range(4):
        change = next_change(limit, at)
        assert change is not None
        at = change
        changes.append(at.astimezone(UTC).strftime("%d %H:%M"))
    assert changes == ["25 00:15", "25 00:45", "25 01:15", "25 01:45"]


def test_local_times_without_a_zone_are_taken_as_the_wall_clock() -> None:
    at = datetime(2026, 4, FRIDAY, 7)  # noqa: DTZ001
    assert next_change(OFFICE, at) == datetime(2026, 4, FRIDAY, 8)  # noqa: DTZ001


windows = st.builds(
    Window,
    weekdays=st.frozensets(st.integers(0, 6), min_size=1),
    start=st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
    end=st.times().map(lambda moment: moment.replace(second=0, microsecond=0)),
)
limits = st.builds(BandwidthLimit, upload_mbps=st.floats(0.01, 1e4), windows=st.lists(windows, max_size=4).map(tuple))
zones = st.sampled_from(
    [
        UTC,
        timezone(timedelta(hours=5, minutes=30)),
        BERLIN,
        ZoneInfo("America/New_York"),
        ZoneInfo("Australia/Lord_Howe"),  # its clocks move by half an hour
        ZoneInfo("America/Santiago"),  # its clocks move at midnight
    ]
)
# Around the changes of the clocks on both hemispheres.
instants = st.one_of(
    [
        st.datetimes(datetime(2026, month, day), datetime(2026, month, day + 8))  # noqa: DTZ001
        for month, day in [(3, 6), (3, 22), (4, 1), (9, 1), (9, 20), (10, 1), (10, 20)]
    ]
).map(lambda moment: moment.replace(tzinfo=UTC))


@settings(max_examples=400)
@given(limit=limits, zone=zones, at_utc=instants, shares=st.lists(st.floats(0, 1), max_size=20))
@example(limit=OFFICE, zone=BERLIN, at_utc=datetime(2026, 3, 29, 0, 59, 59, 999_999, tzinfo=UTC), shares=[0.5])
def test_the_rate_stays_until_the_next_change_and_differs_from_then_on(
    limit: BandwidthLimit, zone: ZoneInfo, at_utc: datetime, shares: list[float]
) -> None:
    at = at_utc.astimezone(zone)
    rate = rate_bytes_per_s(limit, at)
    change = next_change(limit, at)
    end_utc = at_utc + timedelta(days=14) if change is None else change.astimezone(UTC)
    assert end_utc > at_utc
    if change is not None:
        assert change.tzinfo is zone
        assert rate_bytes_per_s(limit, change) != rate
    last_before = end_utc - timedelta(microseconds=1)
    for moment in [last_before, *(at_utc + (last_before - at_utc) * share for share in shares)]:
        assert rate_bytes_per_s(limit, moment.astimezone(zone)) == rate
