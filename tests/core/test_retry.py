"""Failure kind and attempts → put back or give up; how long a wait still is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.core.retry import GiveUp, PutBack, after_failure, remaining_wait_s
from exlab_watch_agent.errors import FailureKind

SCHEDULE = Policy().retry_schedule_s
PATIENT = [FailureKind.NETWORK, FailureKind.UNKNOWN, FailureKind.DESTINATION_FULL]
HOPELESS = [FailureKind.AUTH, FailureKind.LOCAL_FILE_VANISHED, FailureKind.BINARY_MISSING]

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001
waits = st.floats(0, 1e7)


@pytest.mark.parametrize("kind", PATIENT)
def test_the_waits_of_the_schedule_come_in_order_and_the_fifth_failure_is_the_last(kind: FailureKind) -> None:
    answers = [after_failure(kind, attempts=n, mismatches=0, schedule_s=SCHEDULE) for n in range(1, 7)]
    assert answers[:4] == [PutBack(30), PutBack(120), PutBack(480), PutBack(1800)]
    assert answers[4] == GiveUp("5 attempts failed")
    assert isinstance(answers[5], GiveUp)


@pytest.mark.parametrize("kind", HOPELESS)
def test_what_time_does_not_heal_fails_at_once(kind: FailureKind) -> None:
    assert isinstance(after_failure(kind, attempts=1, mismatches=0, schedule_s=SCHEDULE), GiveUp)


def test_a_hash_mismatch_is_pushed_once_more_at_once_and_then_fails() -> None:
    kind = FailureKind.HASH_MISMATCH
    assert after_failure(kind, attempts=1, mismatches=1, schedule_s=SCHEDULE) == PutBack(0)
    assert isinstance(after_failure(kind, attempts=2, mismatches=2, schedule_s=SCHEDULE), GiveUp)


def test_network_failures_before_a_mismatch_do_not_cost_it_its_second_push() -> None:
    answer = after_failure(FailureKind.HASH_MISMATCH, attempts=5, mismatches=1, schedule_s=SCHEDULE)
    assert answer == PutBack(0)


def test_a_schedule_of_one_wait_gives_up_at_the_first_failure() -> None:
    answer = after_failure(FailureKind.NETWORK, attempts=1, mismatches=0, schedule_s=(30,))
    assert answer == GiveUp("the only attempt allowed failed")


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_failure_kind_ends_with_a_reason(kind: FailureKind) -> None:
    answer = after_failure(kind, attempts=99, mismatches=99, schedule_s=SCHEDULE)
    assert isinstance(answer, GiveUp)
    assert answer.reason


@given(st.sampled_from(PATIENT), st.lists(waits, min_size=1, max_size=9), st.integers(1, 20))
def test_a_wait_is_always_one_of_the_schedule(kind: FailureKind, schedule: list[float], attempts: int) -> None:
    answer = after_failure(kind, attempts=attempts, mismatches=0, schedule_s=tuple(schedule))
    assert isinstance(answer, GiveUp) if attempts >= len(schedule) else answer == PutBack(schedule[attempts - 1])


@given(due_at=moments, wait_s=waits, now=moments)
def test_a_remaining_wait_is_never_negative_and_never_longer_than_was_ordered(
    due_at: datetime, wait_s: float, now: datetime
) -> None:
    assert 0 <= remaining_wait_s(due_at=due_at, wait_s=wait_s, now=now) <= wait_s


@given(now=moments, wait_s=st.integers(0, 10**6), passed_s=st.integers(0, 10**6))
def test_with_a_sound_clock_the_rest_of_the_wait_is_left(now: datetime, wait_s: float, passed_s: int) -> None:
    due_at = now + timedelta(seconds=wait_s)
    later = now + timedelta(seconds=passed_s)
    assert remaining_wait_s(due_at=due_at, wait_s=wait_s, now=later) == max(0, wait_s - passed_s)


def test_a_clock_set_back_by_a_year_lengthens_no_wait() -> None:
    now = datetime(2026, 4, 17, tzinfo=UTC)
    assert remaining_wait_s(due_at=now + timedelta(days=365), wait_s=120, now=now) == 120
