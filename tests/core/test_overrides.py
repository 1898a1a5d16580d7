"""Overrides: what revokes what, what an expiry means, and that doubt never prolongs one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.creation import OverrideEntry
from exlab_watch_agent.core.overrides import (
    OverrideStanding,
    active_classes,
    active_overrides,
    dangling_tombstones,
    next_expiry,
    override_standing,
    parse_time,
)

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
PLACEHOLDER = "unresolved_placeholder_token"


def override(
    entry_id: str | None = "a", *, expires_at: str | None = None, of: str | None = PLACEHOLDER
) -> OverrideEntry:
    return OverrideEntry(index=0, id=entry_id, problem_class=of, expires_at=expires_at)


def tombstone(revokes: str, entry_id: str | None = "t") -> OverrideEntry:
    return OverrideEntry(index=0, id=entry_id, revokes=revokes)


# --- Times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-10-18T09:14:22Z", datetime(2026, 10, 18, 9, 14, 22, tzinfo=UTC)),
        ("2026-10-18t09:14:22z", datetime(2026, 10, 18, 9, 14, 22, tzinfo=UTC)),
        ("2026-10-18 09:14:22Z", datetime(2026, 10, 18, 9, 14, 22, tzinfo=UTC)),
        ("2026-10-18T09:14Z", datetime(2026, 10, 18, 9, 14, tzinfo=UTC)),
        ("2026-10-18T09:14:22.5Z", datetime(2026, 10, 18, 9, 14, 22, 500_000, tzinfo=UTC)),
        ("2026-10-18T09:14:22.1234567Z", datetime(2026, 10, 18, 9, 14, 22, 123_456, tzinfo=UTC)),
        ("2026-10-18T09:14:22+02:00", datetime(2026, 10, 18, 7, 14, 22, tzinfo=UTC)),
        ("2026-10-18T23:14:22-05:30", datetime(2026, 10, 19, 4, 44, 22, tzinfo=UTC)),
    ],
)
def test_a_well_formed_time_is_read_as_utc(text: str, expected: datetime) -> None:
    parsed = parse_time(text)
    assert parsed == expected
    assert parsed is not None
    assert parsed.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "never",
        "null",
        "2026-10-18",
        "2026-10-18T09:14:22",  # naive: whose noon?
        "2026-10-18T09:14:22 Z",
        " 2026-10-18T09:14:22Z",
        "2026-10-18T09:14:22Z\n",
        "2026-13-18T09:14:22Z",
        "2026-02-30T09:14:22Z",
        "2026-10-18T25:14:22Z",
        "2026-10-18T09:14:60Z",
        "2026-10-18T09:14:22.Z",
        "2026-10-18T09:14:22+0200",
        "2026-10-18T09:14:22+25:00",
        "20261018T091422Z",
        "2026-W42-7T09:14:22Z",
        "18.10.2026 09:14Z",
        "1792314862",
        "２０２６-10-18T09:14:22Z",  # digits, but not ASCII ones
        "9999-12-31T23:59:59-01:00",  # past the last instant that a datetime can hold
        "0001-01-01T00:00:00+01:00",
        "0000-01-01T00:00:00Z",
    ],
)
def test_anything_else_is_a_malformed_time_and_counts_as_expired(text: str) -> None:
    assert parse_time(text) is None
    assert override_standing(override(expires_at=text), [], now=NOW) is OverrideStanding.EXPIRED


@given(st.text(max_size=40))
def test_no_text_at_all_makes_parsing_raise(text: str) -> None:
    parse_time(text)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)), st.integers(-1439, 1439))  # noqa: DTZ001
def test_a_time_survives_being_written_and_read(naive: datetime, offset_minutes: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    assert parse_time(moment.isoformat()) == moment


# --- Standing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "others", "standing"),
    [
        (override(), [], "active"),
        (override(expires_at="2026-05-01T12:00:01Z"), [], "active"),
        (override(expires_at="2026-05-01T12:00:00Z"), [], "expired"),  # "in the future" is strict
        (override(expires_at="2026-05-01T11:59:59Z"), [], "expired"),
        (override(expires_at="2026-05-01T14:00:00+02:00"), [], "expired"),  # that is now, elsewhere
        (override(), [tombstone("a")], "revoked"),
        (override(expires_at="2020-01-01T00:00:00Z"), [tombstone("a")], "revoked"),
        (override(), [tombstone("b")], "active"),
        (override(), [tombstone("A")], "active"),
        (override(None), [tombstone("None"), tombstone("")], "active"),  # nothing can name it
        (tombstone("a"), [override()], "tombstone"),
        (tombstone("a"), [], "tombstone"),
        (tombstone(""), [], "tombstone"),  # it revokes nothing, but it is no override either
        (tombstone("a", "a"), [], "tombstone"),
        (tombstone("a", "t"), [tombstone("t", "u")], "tombstone"),
    ],
)
def test_each_kind_of_entry_has_one_standing(entry: OverrideEntry, others: list[OverrideEntry], standing: str) -> None:
    for overrides in ([entry, *others], [*others, entry]):
        assert override_standing(entry, overrides, now=NOW) == standing
        assert (entry in active_overrides(overrides, now=NOW)) == (standing == "active")


def test_revoking_a_tombstone_brings_nothing_back() -> None:
    overrides = [override("a"), tombstone("a", "t"), tombstone("t", "u")]
    assert active_overrides(overrides, now=NOW) == ()


def test_a_revocation_covers_every_override_with_that_id() -> None:
    overrides = [override("a"), tombstone("a"), override("a", of="case_collision"), override("b", of="orphan")]
    assert active_classes(overrides, now=NOW) == {"orphan"}


def test_a_class_is_covered_while_one_of_its_overrides_is_active() -> None:
    overrides = [
        override("a"),
        override("b"),
        override("c", of="case_collision", expires_at="2026-01-01T00:00:00Z"),
        override("d", of=None),
        tombstone("a"),
    ]
    assert active_classes(overrides, now=NOW) == {PLACEHOLDER}


def test_active_overrides_keep_the_order_of_the_list() -> None:
    overrides = [override("c"), override("a"), tombstone("a"), override("b")]
    assert [entry.id for entry in active_overrides(overrides, now=NOW)] == ["c", "b"]


def test_the_next_expiry_is_the_earliest_among_active_overrides_only() -> None:
    overrides = [
        override("never"),
        override("late", expires_at="2026-07-01T00:00:00Z"),
        override("next", expires_at="2026-06-01T00:00:00+02:00"),
        override("revoked", expires_at="2026-05-02T00:00:00Z"),
        override("past", expires_at="2026-04-01T00:00:00Z"),
        override("malformed", expires_at="tomorrow"),
        tombstone("revoked"),
    ]
    assert next_expiry(overrides, now=NOW) == datetime(2026, 5, 31, 22, tzinfo=UTC)


def test_there_is_no_next_expiry_where_nothing_active_ever_lapses() -> None:
    assert next_expiry([], now=NOW) is None
    assert next_expiry([override("a"), override("b", expires_at="2026-05-01T12:00:00Z")], now=NOW) is None


def test_a_tombstone_dangles_unless_it_names_an_override() -> None:
    missing, of_tombstone, empty = tombstone("gone", "t1"), tombstone("t1", "t2"), tombstone("", "t3")
    overrides = [missing, tombstone("a", "t4"), of_tombstone, empty, override("a"), override(None)]
    assert dangling_tombstones(overrides) == (missing, of_tombstone, empty)


# --- Laws -------------------------------------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c", "t", None])
TIMES = st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
OVERRIDES = st.builds(
    OverrideEntry,
    index=st.just(0),
    id=IDS,
    problem_class=st.sampled_from([PLACEHOLDER, "case_collision", None]),
    expires_at=st.none() | st.just("malformed") | TIMES.map(datetime.isoformat),
)
TOMBSTONES = st.builds(OverrideEntry, index=st.just(0), id=IDS, revokes=st.sampled_from(["a", "b", "c", "t", "gone"]))
LISTS = st.lists(OVERRIDES | TOMBSTONES, max_size=8).map(
    lambda entries: [replace(entry, index=index) for index, entry in enumerate(entries)]
)


@given(LISTS, TIMES, st.data())
def test_the_order_of_the_entries_does_not_matter(
    overrides: list[OverrideEntry], now: datetime, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(overrides))
    assert set(active_overrides(shuffled, now=now)) == set(active_overrides(overrides, now=now))
    assert set(dangling_tombstones(shuffled)) == set(dangling_tombstones(overrides))
    assert next_expiry(shuffled, now=now) == next_expiry(overrides, now=now)


@given(LISTS, TIMES, TIMES)
def test_what_is_not_active_never_becomes_active_as_time_goes_on(
    overrides: list[OverrideEntry], one: datetime, other: datetime
) -> None:
    earlier, later = sorted((one, other))
    assert set(active_overrides(overrides, now=later)) <= set(active_overrides(overrides, now=earlier))


@given(LISTS, TOMBSTONES, TIMES)
def test_appending_a_tombstone_activates_nothing(
    overrides: list[OverrideEntry], added: OverrideEntry, now: datetime
) -> None:
    assert set(active_overrides([*overrides, added], now=now)) <= set(active_overrides(overrides, now=now))


@given(LISTS, LISTS, TIMES)
def test_a_revoked_override_stays_revoked_whatever_is_appended(
    overrides: list[OverrideEntry], added: list[OverrideEntry], now: datetime
) -> None:
    for entry in overrides:
        if override_standing(entry, overrides, now=now) is OverrideStanding.REVOKED:
            assert override_standing(entry, [*overrides, *added], now=now) is OverrideStanding.REVOKED


@given(LISTS, TIMES)
def test_nothing_changes_before_the_next_expiry_and_something_does_at_it(
    overrides: list[OverrideEntry], now: datetime
) -> None:
    active = active_overrides(overrides, now=now)
    at = next_expiry(overrides, now=now)
    if at is None:
        assert active_overrides(overrides, now=datetime.max.replace(tzinfo=UTC)) == active
        return
    assert at > now
    assert active_overrides(overrides, now=at - timedelta(microseconds=1)) == active
    assert set(active_overrides(overrides, now=at)) < set(active)


@given(LISTS, TIMES)
def test_dangling_tombstones_have_no_effect(overrides: list[OverrideEntry], now: datetime) -> None:
    dangling = dangling_tombstones(overrides)
    without = [entry for entry in overrides if entry not in dangling]
    assert active_overrides(without, now=now) == active_overrides(overrides, now=now)
