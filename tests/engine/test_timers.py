"""Timers by monotonic due times: one a key, replaced when set again."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exlab_watch_agent.engine.timers import TimerKind, Timers


def test_a_timer_fires_when_it_is_due_and_once() -> None:
    timers = Timers()
    timers.set(TimerKind.LOOK, "a", due_s=5)
    assert timers.take_due(4.9) == []
    assert timers.take_due(5) == [(TimerKind.LOOK, "a")]
    assert timers.take_due(6) == []
    assert timers.next_due_s() is None


def test_the_earliest_is_next_and_they_fire_in_order() -> None:
    timers = Timers()
    timers.set(TimerKind.LOOK, "late", due_s=9)
    timers.set(TimerKind.SCAN, "early", due_s=3)
    timers.set(TimerKind.AUDIT, "middle", due_s=5)
    assert timers.next_due_s() == 3
    assert [key for _, key in timers.take_due(10)] == ["early", "middle", "late"]


def test_setting_a_timer_again_replaces_it_in_both_directions() -> None:
    timers = Timers()
    timers.set(TimerKind.LOOK, "a", due_s=5)
    timers.set(TimerKind.LOOK, "a", due_s=8)
    assert timers.take_due(7) == []
    timers.set(TimerKind.LOOK, "a", due_s=2)
    assert timers.take_due(7) == [(TimerKind.LOOK, "a")]
    assert timers.take_due(9) == []


def test_set_earlier_never_postpones() -> None:
    timers = Timers()
    timers.set_earlier(TimerKind.LOOK, "a", due_s=5)
    timers.set_earlier(TimerKind.LOOK, "a", due_s=8)
    assert timers.next_due_s() == 5
    timers.set_earlier(TimerKind.LOOK, "a", due_s=3)
    assert timers.next_due_s() == 3


def test_kinds_with_the_same_key_are_apart() -> None:
    timers = Timers()
    timers.set(TimerKind.LOOK, "a", due_s=1)
    timers.set(TimerKind.READY, "a", due_s=1)
    timers.cancel(TimerKind.LOOK, "a")
    assert not timers.has(TimerKind.LOOK, "a")
    assert timers.take_due(2) == [(TimerKind.READY, "a")]


def test_cancelling_what_is_not_set_is_harmless() -> None:
    timers = Timers()
    timers.cancel(TimerKind.LOOK, "a")
    assert timers.next_due_s() is None


keys = st.sampled_from(["a", "b"])
dues = st.integers(0, 9)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, dues),
        st.tuples(st.just("earlier"), keys, dues),
        st.tuples(st.just("cancel"), keys, st.just(0)),
        st.tuples(st.just("take"), st.just(""), dues),
    )
)


@given(actions)
def test_timers_behave_as_a_plain_dictionary_of_due_times_does(steps: list[Any]) -> None:
    timers, model = Timers(), {}
    for action, key, due in steps:
        if action == "set":
            timers.set(TimerKind.LOOK, key, due_s=due)
            model[key] = due
        elif action == "earlier":
            timers.set_earlier(TimerKind.LOOK, key, due_s=due)
            model[key] = min(due, model.get(key, due))
        elif action == "cancel":
            timers.cancel(TimerKind.LOOK, key)
            model.pop(key, None)
        else:
            expected = {name for name, at in model.items() if at <= due}
            assert {name for _, name in timers.take_due(due)} == expected
            model = {name: at for name, at in model.items() if at > due}
        assert timers.next_due_s() == min(model.values(), default=None)
