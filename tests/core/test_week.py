"""The diary of a week: what is kept how long, when a disk is foreseen to be full, and that a damaged one harms nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.week import Happening, Room, Week, full_in

NOW = datetime(2026, 4, 18, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("rooms", "left"),
    [
        ([], None),
        ([(0, 100)], None),
        ([(48, 300), (0, 100)], DAY),  # 100 a day, and 100 left
        ([(48, 300), (24, 500), (0, 100)], DAY),  # what was freed in between is taken back
        ([(48, 100), (0, 300)], None),  # it empties
        ([(48, 100), (0, 100)], None),  # it rests
        ([(11, 300), (0, 100)], None),  # too short a time says nothing of a week
        ([(24 * 9, 10_000), (48, 300), (0, 100)], DAY),  # older than a week
        ([(48, 300), (0, 0)], timedelta(0)),  # it is full
        ([(-5, 300), (0, 100)], None),  # of the future: the clock was set back
        ([(168, 10**15 + 1), (0, 10**15)], timedelta(days=36_500)),  # it takes for ever
    ],
)
def test_a_disk_is_full_at_the_rate_of_the_week(rooms: list[tuple[float, int]], left: timedelta | None) -> None:
    samples = tuple(Room(NOW - timedelta(hours=ago), free_bytes) for ago, free_bytes in rooms)
    assert full_in(samples, now=NOW) == left


def test_room_is_noted_once_an_hour_and_kept_for_a_week() -> None:
    week = Week().with_room("A", here=Room(NOW, 10), there=None)
    assert week.with_room("A", here=Room(NOW + HOUR / 2, 9), there=None) is week
    assert week.with_room("A", here=None, there=None) is week
    later = week.with_room("A", here=Room(NOW + HOUR, 8), there=Room(NOW, 5))
    assert ([room.free_bytes for room in later.here["A"]], [room.free_bytes for room in later.there["A"]]) == (
        [10, 8],
        [5],
    )
    assert later.with_room("A", here=Room(NOW + 8 * DAY, 1), there=None).here["A"] == (Room(NOW + 8 * DAY, 1),)
    assert later.with_room("A", here=Room(NOW - DAY, 7), there=None).here["A"] == (Room(NOW - DAY, 7),), (
        "a clock set back"
    )


def test_what_happened_is_kept_for_a_week() -> None:
    old, new = (Happening(at, "outage_ended", "A", "it was away") for at in (NOW - 8 * DAY, NOW))
    assert Week((old,)).with_happening(new).happened == (new,)


def test_what_is_written_is_read_back() -> None:
    week = Week(
        (Happening(NOW, "outage_ended", "A", "it was damaged", "/run"),),
        {"A": (Room(NOW, 10),)},
        {"A": (Room(NOW, 5),)},
    )
    assert Week.from_json(json.loads(json.dumps(week.to_json()))) == week


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["at", "free_bytes", "A"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["happened", "here", "there"]), VALUES) | VALUES)
def test_whatever_is_there_is_read_without_an_error(left: Any) -> None:
    json.dumps(Week.from_json(left).to_json())
