"""A run's history as its way through the chart, and how many runs are where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exlab_watch_agent.core.record import Move
from exlab_watch_agent.diagram.overlay import NOTHING, counts_overlay, promise_letter, way_overlay
from exlab_watch_agent.statechart import CHART, RunState, Trigger

AT = datetime(2026, 11, 3, 9, 15, tzinfo=UTC)
S, T = RunState, Trigger


def move(after_s: float, trigger: str, source: RunState | None, dest: RunState, reason: str = "so it was") -> Move:
    return Move(AT + timedelta(seconds=after_s), trigger, source, dest, reason)


MOVES = (
    move(0, "discovered", None, S.ACQUIRING),
    move(60, "admitted", S.ACQUIRING, S.QUEUED),
    move(60.25, "push_started", S.QUEUED, S.RUNNING),
    move(3660.25, "put_back", S.RUNNING, S.QUEUED, "the NAS went\naway"),
    move(3720.25, "push_started", S.QUEUED, S.RUNNING),
)


def test_a_way_counts_visits_and_adds_up_how_long_the_run_stayed() -> None:
    way = way_overlay(CHART, "/data/Runs/Run_1", MOVES, AT + timedelta(seconds=3780.25))
    assert way.states == {S.ACQUIRING: "1×, 60 s", S.QUEUED: "2×, 60 s", S.RUNNING: "2×, 61 min"}
    assert way.rows == {
        (S.ACQUIRING, T.ADMITTED): "1×",
        (S.QUEUED, T.PUSH_STARTED): "2×",
        (S.RUNNING, T.PUT_BACK): "1×",
    }
    assert (way.subject, way.detail, way.now) == ("The way of Run_1", "/data/Runs/Run_1", S.RUNNING)


def test_each_step_has_the_number_of_its_arrow_and_how_long_the_run_was_where_it_was_before() -> None:
    numbers = {row.key: str(number) for number, row in enumerate(CHART.rows, start=1)}
    steps = way_overlay(CHART, "/r", MOVES, AT).steps
    assert [(step.number, step.stayed) for step in steps] == [
        ("", ""),
        (numbers[S.ACQUIRING, T.ADMITTED], "60 s"),
        (numbers[S.QUEUED, T.PUSH_STARTED], "0.25 s"),
        (numbers[S.RUNNING, T.PUT_BACK], "60 min"),
        (numbers[S.QUEUED, T.PUSH_STARTED], "60 s"),
    ]
    assert (steps[0].move, steps[0].at) == ("new → acquiring", "2026-11-03T09:15:00Z")
    assert steps[3].reason == r"the NAS went\naway"


def test_a_move_that_today_s_chart_does_not_have_is_a_step_without_an_arrow() -> None:
    older = (
        move(0, "a_trigger_of_old", S.CLEANED, S.FAILED),
        move(1, "admitted", S.ACQUIRING, S.FAILED),
        move(2, "admitted", S.CLEANED, S.QUEUED),
    )
    way = way_overlay(CHART, "/r", older, AT)
    assert [step.number for step in way.steps] == ["", "", ""]
    assert way.rows == {}
    assert set(way.states) == {S.FAILED, S.QUEUED}


def test_a_clock_that_was_set_back_makes_no_time_less_than_none() -> None:
    back = (move(10, "discovered", None, S.ACQUIRING), move(0, "admitted", S.ACQUIRING, S.QUEUED))
    assert way_overlay(CHART, "/r", back, AT).steps[1].stayed == "0.00 s"


def test_a_run_without_a_history_has_no_way() -> None:
    way = way_overlay(CHART, "/r", (), AT)
    assert (way.steps, way.now, dict(way.states)) == ((), None, {})


def test_counts_name_only_the_states_in_which_runs_are() -> None:
    found = counts_overlay([S.VERIFIED, S.FAILED, S.VERIFIED])
    assert found.states == {S.VERIFIED: "2 runs", S.FAILED: "1 run"}
    assert found.subject == "3 runs, and where they are"
    assert not found.is_way
    assert counts_overlay([]).states == NOTHING.states == {}


def test_promises_are_lettered() -> None:
    assert [promise_letter(index) for index in range(4)] == list("ABCD")
