"""Which lanes may start a push now."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.core.queueing import lanes_to_start


def start(
    *lanes: str, busy: tuple[str, ...] = (), waiting: tuple[str, ...] = (), at_most: int = 2, last: str | None = None
) -> tuple[str, ...]:
    return lanes_to_start(lanes, busy=busy, waiting=waiting, pushes_max=at_most, last_started=last)


def test_at_most_so_many_pushes_run_at_once() -> None:
    assert start("A", "B", "C") == ("A", "B")
    assert start("A", "B", "C", busy=("C",)) == ("A",)
    assert start("A", "B", busy=("C", "D")) == ()
    assert start("A", busy=("B", "C", "D")) == ()


def test_a_lane_pushes_one_run_at_a_time() -> None:
    assert start("A", "B", busy=("A",), at_most=4) == ("B",)


def test_a_lane_whose_nas_is_away_starts_nothing_and_holds_up_no_other() -> None:
    assert start("A", "B", waiting=("A",), at_most=1) == ("B",)


def test_the_lane_after_the_last_that_started_comes_first() -> None:
    assert start("A", "B", "C", at_most=1, last="A") == ("B",)
    assert start("A", "B", "C", at_most=1, last="C") == ("A",)
    assert start("A", "C", at_most=1, last="B") == ("C",)
    assert start("A", at_most=1, last="A") == ("A",)


def test_a_busy_lane_does_not_starve_another() -> None:
    last, started = None, []
    for _ in range(6):
        (last,) = start("A", "B", "C", at_most=1, last=last)
        started.append(last)
    assert started == ["A", "B", "C", "A", "B", "C"]


lanes = st.lists(st.sampled_from("ABCDEF"), unique=True)


@given(lanes, lanes, lanes, st.integers(0, 4), st.none() | st.sampled_from("ABCDEF"))
def test_what_is_started_is_allowed_and_nothing_allowed_is_left_while_a_slot_is_free(
    work: list[str], busy: list[str], waiting: list[str], most: int, last: str | None
) -> None:
    started = lanes_to_start(work, busy=busy, waiting=waiting, pushes_max=most, last_started=last)
    allowed = set(work) - set(busy) - set(waiting)
    assert set(started) <= allowed
    assert len(set(started)) == len(started) == min(len(allowed), max(0, most - len(busy)))
