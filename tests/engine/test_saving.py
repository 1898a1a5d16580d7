"""Save, then act, and what happens while there is no room to save: nothing is lost, nothing is done twice or too early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from exlab_watch_agent.core.passes import Uptime
from exlab_watch_agent.core.policy import Policy
from exlab_watch_agent.engine.desk import Desk
from exlab_watch_agent.engine.lane import Noticed, Requested, ScanWanted, Woken
from exlab_watch_agent.engine.saving import Saving
from exlab_watch_agent.engine.timers import TimerKind
from exlab_watch_agent.errors import StoreFullError, StoreWriteError
from exlab_watch_agent.ports import Entry

BEGAN = datetime(2026, 4, 17, 14, 32, tzinfo=UTC)


@dataclass
class Clock:
    mono_s: float = 1000.0

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.mono_s - 1000.0)

    def monotonic_s(self) -> float:
        return self.mono_s

    def uptime(self) -> Uptime:
        return Uptime("boot", self.mono_s)


@dataclass
class Store:
    """A store that has room, has none, or fails."""

    error: StoreWriteError | None = None
    kept: list[str] = field(default_factory=list)
    tries: int = 0

    def commit(self, entries: Sequence[Entry], *, at: datetime) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.kept += [entry.kind for entry in entries]


class Loop:
    def __init__(self) -> None:
        self.store, self.clock, self.done = Store(), Clock(), []  # type: ignore[var-annotated]
        nothing: Any = lambda *_: None  # noqa: E731
        self.desk = Desk(cast("Any", self.store), Policy(), self.clock, nothing, nothing, nothing, None, {}, {})
        self.saving = Saving(self.desk, schedule=lambda: None)

    def decide(self, kind: str) -> None:
        self.desk.entries.append(Entry(kind))
        self.desk.after_commit.append(lambda: self.done.append(kind))

    def wait(self, seconds: float, *messages: Any) -> list[Any]:
        self.clock.mono_s += seconds
        return self.saving.go_on(messages)


@pytest.fixture
def loop() -> Loop:
    return Loop()


FULL = StoreFullError("There is no room in the folder: make room.")


def test_nothing_takes_effect_before_it_is_durable_and_then_once(loop: Loop) -> None:
    loop.store.error = FULL
    loop.decide("a")
    loop.decide("b")
    loop.saving.commit()
    pause = loop.saving.pause
    assert pause is not None
    assert (pause.since, pause.reason) == (BEGAN, str(FULL))
    assert (loop.store.kept, loop.done) == ([], [])
    loop.wait(1.0)
    assert loop.done == []
    loop.store.error = None
    loop.wait(2.0)
    assert loop.saving.pause is None
    assert (loop.store.kept, loop.done) == (["a", "b"], ["a", "b"])
    loop.saving.commit()
    assert (loop.store.kept, loop.done) == (["a", "b"], ["a", "b"])


def test_it_tries_again_after_1_2_4_and_at_most_30_seconds_and_from_1_in_the_next_pause(loop: Loop) -> None:
    for _ in range(2):
        loop.store.error, loop.store.tries = FULL, 0
        loop.decide("a")
        loop.saving.commit()
        for tries, wait_s in enumerate((1, 2, 4, 8, 16, 30, 30, 30), start=1):
            assert loop.store.tries == tries
            loop.wait(wait_s - 0.01)
            assert loop.store.tries == tries
            loop.wait(0.01)
        loop.store.error = None
        loop.wait(30)
        assert loop.saving.pause is None
        assert not loop.desk.timers.has(TimerKind.ROOM, "")


def test_meanwhile_outcomes_are_kept_in_order_and_events_come_down_to_one_scan(loop: Loop) -> None:
    loop.store.error = FULL
    loop.decide("a")
    loop.saving.commit()
    outcomes = [SimpleNamespace(number=number) for number in range(3)]
    for number in range(5000):
        assert (
            loop.wait(0.0, Noticed((f"/data/{number}",)), ScanWanted(("SCOPE_01",), is_full=False), None, Woken()) == []
        )
    assert loop.wait(0.0, outcomes[0], outcomes[1]) == []
    assert loop.wait(0.0, outcomes[2]) == []
    loop.store.error = None
    assert loop.wait(1.0) == [*outcomes, ScanWanted()]
    loop.store.error = FULL
    loop.decide("b")
    loop.saving.commit()
    loop.store.error = None
    assert loop.wait(1.0) == []  # no event was missed this time


def test_what_arrives_in_the_moment_of_room_is_handled_then_too(loop: Loop) -> None:
    loop.store.error = FULL
    loop.decide("a")
    loop.saving.commit()
    loop.store.error = None
    late = SimpleNamespace()
    assert loop.wait(1.0, late) == [late]


def test_timers_that_come_due_fire_afterwards_unless_what_was_decided_cancels_them(loop: Loop) -> None:
    loop.store.error = FULL
    loop.desk.timers.set(TimerKind.LOOK, "kept", due_s=1000.5)
    loop.desk.timers.set(TimerKind.READY, "cancelled", due_s=1000.5)
    loop.decide("a")
    loop.desk.after_commit.append(lambda: loop.desk.timers.cancel(TimerKind.READY, "cancelled"))
    loop.saving.commit()
    loop.wait(1.0)
    assert loop.desk.timers.next_due_s() == 1003.0  # the loop sleeps until the next try, and not at all before
    loop.store.error = None
    loop.wait(2.0)
    assert loop.desk.timers.take_due(loop.clock.mono_s) == [(TimerKind.LOOK, "kept")]
    loop.store.error = FULL
    loop.decide("b")
    loop.saving.commit()
    loop.store.error = None
    loop.wait(1.0)
    assert loop.desk.timers.take_due(loop.clock.mono_s) == []  # once is enough


def test_a_command_is_refused_with_the_reason_instead_of_waiting_for_room(loop: Loop) -> None:
    answers: list[Mapping[str, Any]] = []
    loop.store.error = FULL
    loop.decide("a")
    loop.saving.commit()
    loop.wait(0.0, Requested({"command": "retry"}, answers.append))
    assert answers == [{"ok": False, "message": f"Nothing is decided now: {FULL}"}]
    loop.store.error = None
    assert loop.wait(1.0) == []


def test_what_took_effect_may_decide_more_and_find_no_room_again(loop: Loop) -> None:
    loop.decide("a")

    def decide_more() -> None:
        loop.store.error = FULL
        loop.decide("b")

    loop.desk.after_commit.append(decide_more)
    loop.saving.commit()
    assert (loop.store.kept, loop.done) == (["a"], ["a"])
    loop.store.error = None
    loop.wait(1.0)
    assert (loop.store.kept, loop.done) == (["a", "b"], ["a", "b"])


def test_a_failed_fsync_is_not_waited_for_and_a_command_does_not_wait_for_room_either(loop: Loop) -> None:
    loop.store.error = StoreWriteError("the disk fails")
    loop.decide("a")
    with pytest.raises(StoreWriteError, match="the disk fails"):
        loop.saving.commit()
    loop.saving.waits_for_room = False
    loop.store.error = FULL
    with pytest.raises(StoreFullError):
        loop.saving.commit()
    assert loop.saving.pause is None
    assert loop.done == []
